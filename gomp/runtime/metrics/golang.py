"""Go's runtime/metrics: those that mean something here, and why the others do not (metrics.go, description.go)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gomp.core.shm import records
from gomp.runtime.metrics.description import Metric
from gomp.runtime.metrics.histograms import SIZE_BUCKETS, Float64Histogram
from gomp.runtime.metrics.snapshot import CpuClasses, Snapshot

GOGC_OFF = (1 << 64) - 1  # what Go says for GOGC=off


def _cpu(read: Callable[[CpuClasses], int]) -> Callable[[Snapshot], float]:
    return lambda s: read(s.cpu) / 1e9


def _stop(histogram: int) -> Callable[[Snapshot], Float64Histogram]:
    return lambda s: s.stops(histogram)


GO_METRICS = (
    Metric("/cpu/classes/gc/mark/assist:cpu-seconds", "counter", "CPU time in which programs helped with marking.",
           _cpu(lambda c: c.assist)),
    Metric("/cpu/classes/gc/mark/dedicated:cpu-seconds", "counter", "CPU time of marking in a quarter of the processors.",
           _cpu(lambda c: c.dedicated)),
    Metric("/cpu/classes/gc/mark/idle:cpu-seconds", "counter", "CPU time of marking in place of idle Ps: nobody has missed it.",
           _cpu(lambda c: c.mark_idle)),
    Metric("/cpu/classes/gc/pause:cpu-seconds", "counter", "CPU time in which collection had Ps stand still.",
           _cpu(lambda c: c.pause)),
    Metric("/cpu/classes/gc/total:cpu-seconds", "counter", "CPU time of collection: marking and pauses.", _cpu(lambda c: c.gc)),
    Metric("/cpu/classes/idle:cpu-seconds", "counter", "CPU time in which Ps had nothing to run.", _cpu(lambda c: c.idle)),
    Metric("/cpu/classes/scavenge/assist:cpu-seconds", "counter", "CPU time of returning memory to the system by those who allocate.",
           _cpu(lambda c: c.scavenge_assist)),
    Metric("/cpu/classes/scavenge/background:cpu-seconds", "counter", "CPU time of returning memory to the system in the background.",
           _cpu(lambda c: c.scavenge_background)),
    Metric("/cpu/classes/scavenge/total:cpu-seconds", "counter", "CPU time of returning memory to the system.",
           _cpu(lambda c: c.scavenge)),
    Metric("/cpu/classes/total:cpu-seconds", "counter", "GOMAXPROCS times the time: all of /cpu/classes, as of the end of the last marking.",
           _cpu(lambda c: c.total)),
    Metric("/cpu/classes/user:cpu-seconds", "counter", "CPU time that programs had.", _cpu(lambda c: c.user)),
    Metric("/gc/cleanups/executed:cleanups", "counter", "Cleanups that ran.", lambda s: s.stats.cleanups.executed, by_default=False),
    Metric("/gc/cleanups/queued:cleanups", "counter", "Cleanups whose objects died.", lambda s: s.stats.cleanups.queued, by_default=False),
    Metric("/gc/cycles/automatic:gc-cycles", "counter", "Cycles that the runtime began by itself.",
           lambda s: s.stats.num_automatic_gc),
    Metric("/gc/cycles/forced:gc-cycles", "counter", "Cycles that somebody asked for.", lambda s: s.stats.num_forced_gc),
    Metric("/gc/cycles/total:gc-cycles", "counter", "Cycles so far.", lambda s: s.stats.num_gc),
    Metric("/gc/finalizers/executed:finalizers", "counter", "Finalizers that ran.", lambda s: s.stats.finalizers.executed, by_default=False),
    Metric("/gc/finalizers/queued:finalizers", "counter", "Finalizers whose objects died.", lambda s: s.stats.finalizers.queued, by_default=False),
    Metric("/gc/gogc:percent", "gauge", "GOGC; 2^64-1 if off.", lambda s: GOGC_OFF if s.stats.gogc < 0 else s.stats.gogc),
    Metric("/gc/gomemlimit:bytes", "gauge", "GOMEMLIMIT; 2^63-1 if off.", lambda s: s.stats.memory_limit),
    Metric("/gc/heap/allocs-by-size:bytes", "histogram", "Objects allocated, by the size of their slots; tiny ones by the block.",
           lambda s: Float64Histogram(s.stats.allocs_by_size, SIZE_BUCKETS, s.stats.total_alloc), by_default=False),
    Metric("/gc/heap/allocs:bytes", "counter", "Bytes allocated so far.", lambda s: s.stats.total_alloc, by_default=False),
    Metric("/gc/heap/allocs:objects", "counter", "Objects allocated so far; tiny ones count by the block.",
           lambda s: s.stats.mallocs - s.stats.tiny_allocs, by_default=False),
    Metric("/gc/heap/frees-by-size:bytes", "histogram", "Objects freed, by the size of their slots; tiny ones by the block.",
           lambda s: Float64Histogram(s.stats.frees_by_size, SIZE_BUCKETS, s.stats.total_alloc - s.stats.alloc), by_default=False),
    Metric("/gc/heap/frees:bytes", "counter", "Bytes freed so far.",
           lambda s: s.stats.total_alloc - s.stats.alloc, by_default=False),
    Metric("/gc/heap/frees:objects", "counter", "Objects freed so far; tiny ones count by the block.",
           lambda s: s.stats.frees - s.stats.tiny_allocs, by_default=False),
    Metric("/gc/heap/goal:bytes", "gauge", "Heap size at which this cycle is to end.", lambda s: s.stats.next_gc),
    Metric("/gc/heap/live:bytes", "gauge", "Bytes the last cycle marked.", lambda s: s.stats.heap_marked),
    Metric("/gc/heap/objects:objects", "gauge", "Objects, live or not yet swept.", lambda s: s.stats.heap_objects, by_default=False),
    Metric("/gc/heap/tiny/allocs:objects", "counter", "Objects inside shared 16-byte blocks.", lambda s: s.stats.tiny_allocs),
    Metric("/gc/limiter/last-enabled:gc-cycle", "gauge", "Last cycle for which the GC CPU limiter was on; 0 if none.",
           lambda s: s.stats.limiter.last_cycle),
    Metric("/gc/pauses:seconds", "histogram", "As /sched/pauses/total/gc:seconds.", _stop(records.STOPPED_GC), by_default=False),
    Metric("/gc/scan/globals:bytes", "gauge", "Bytes of named globals that the last marking had to look at.", lambda s: s.scan[0], by_default=False),
    Metric("/gc/scan/heap:bytes", "gauge", "Bytes of the heap that marking has to look at.", lambda s: s.scan[2], by_default=False),
    Metric("/gc/scan/stack:bytes", "gauge", "Bytes of stacks and handles that the last marking looked at.", lambda s: s.scan[1], by_default=False),
    Metric("/gc/scan/total:bytes", "gauge", "All that marking has to look at.", lambda s: sum(s.scan), by_default=False),
    Metric("/gc/stack/starting-size:bytes", "gauge", "What the stack of a new goroutine has.", lambda s: s.starting_stack, by_default=False),
    Metric("/memory/classes/heap/free:bytes", "gauge", "Free pages that are not released.", lambda s: s.stats.heap_free),
    Metric("/memory/classes/heap/objects:bytes", "gauge", "Bytes in objects, live or not yet swept.", lambda s: s.stats.heap_alloc),
    Metric("/memory/classes/heap/released:bytes", "gauge", "Free pages that the system has back, or with lazy return may have when it needs them.",
           lambda s: s.stats.heap_released),
    Metric("/memory/classes/heap/stacks:bytes", "gauge", "Pages of goroutine stacks.",
           lambda s: s.stats.stack_inuse, by_default=False),
    Metric("/memory/classes/heap/unused:bytes", "gauge", "Bytes of spans that are in no object.",
           lambda s: s.stats.heap_inuse - s.stats.heap_alloc),
    Metric("/memory/classes/metadata/mcache/free:bytes", "gauge", "Caches of Ps that there are not now.",
           lambda s: s.stats.mcache_sys - s.stats.mcache_inuse, by_default=False),
    Metric("/memory/classes/metadata/mcache/inuse:bytes", "gauge", "Caches of Ps that run programs.",
           lambda s: s.stats.mcache_inuse, by_default=False),
    Metric("/memory/classes/metadata/mspan/free:bytes", "gauge", "Span records of pages in no span.",
           lambda s: s.stats.mspan_sys - s.stats.mspan_inuse, by_default=False),
    Metric("/memory/classes/metadata/mspan/inuse:bytes", "gauge", "Span records in use.", lambda s: s.stats.mspan_inuse, by_default=False),
    Metric("/memory/classes/metadata/other:bytes", "gauge", "The collector's other metadata: bitmaps, work buffers.",
           lambda s: s.stats.gc_sys, by_default=False),
    Metric("/memory/classes/os-stacks:bytes", "gauge", "0: native stacks are their processes' own.",
           lambda s: s.stats.stack_sys - s.stats.stack_inuse, by_default=False),
    Metric("/memory/classes/other:bytes", "gauge", "Records, tables, and copies of native stacks.",
           lambda s: s.stats.other_sys, by_default=False),
    Metric("/memory/classes/profiling/buckets:bytes", "gauge", "Tables of profiles.", lambda s: s.stats.buck_hash_sys, by_default=False),
    Metric("/memory/classes/total:bytes", "gauge", "Everything that is mapped: all of /memory/classes.", lambda s: s.stats.sys),
    Metric("/sched/gomaxprocs:threads", "gauge", "Ps that run programs.", lambda s: s.stats.procs),
    Metric("/sched/goroutines-created:goroutines", "counter", "Goroutines ever started.", lambda s: s.goroutines_created),
    Metric("/sched/goroutines/not-in-go:goroutines", "gauge", "Of the goroutines, those in the middle of a call of Python.",
           lambda s: s.stats.goroutines.not_in_go, by_default=False),
    Metric("/sched/goroutines/runnable:goroutines", "gauge", "Of the goroutines, those in queues.",
           lambda s: s.stats.goroutines.runnable),
    Metric("/sched/goroutines/running:goroutines", "gauge", "Of the goroutines, those that a P runs.",
           lambda s: s.stats.goroutines.running),
    Metric("/sched/goroutines/waiting:goroutines", "gauge", "Of the goroutines, those that wait.",
           lambda s: s.stats.goroutines.waiting),
    Metric("/sched/goroutines:goroutines", "gauge", "Goroutines with frames, and programs that wait at channels.",
           lambda s: s.stats.goroutines.count),
    Metric("/sched/latencies:seconds", "histogram", "How long goroutines were ready before they ran; one time in eight is measured.",
           lambda s: s.latencies, by_default=False),
    Metric("/sched/pauses/stopping/gc:seconds", "histogram", "How long it took until the world stood, for pauses of collection.",
           _stop(records.STOPPING_GC), by_default=False),
    Metric("/sched/pauses/stopping/other:seconds", "histogram", "The same for other stops: exact statistics, verification, repair, a new GOMAXPROCS.",
           _stop(records.STOPPING_OTHER), by_default=False),
    Metric("/sched/pauses/total/gc:seconds", "histogram", "Pauses of collection, from the request until the world ran again.",
           _stop(records.STOPPED_GC), by_default=False),
    Metric("/sched/pauses/total/other:seconds", "histogram", "Other stops, from the request until the world ran again.",
           _stop(records.STOPPED_OTHER), by_default=False),
    Metric("/sched/threads/total:threads", "gauge", "Threads of coordinator, Ps and service.",
           lambda s: s.usage.threads if s.usage else None, by_default=False),
    Metric("/sync/mutex/wait/total:seconds", "counter", "How long goroutines waited for locks, and Ps for those of the runtime.",
           lambda s: sum(p.lock_wait_s for p in s.stats.ps), by_default=False),
)  # fmt: skip

ABSENT: Mapping[str, str] = {
    "/cgo/go-to-c-calls:calls": "programs call no C",
    "/godebug/non-default-behavior/*:events": "these settings are of Go's libraries and its linker",
}
