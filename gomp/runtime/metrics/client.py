"""What Go's Prometheus client gives beside runtime/metrics: the older names, which most dashboards read, and its process's (client_golang)."""

from __future__ import annotations

from collections.abc import Callable

from gomp.runtime.metrics.description import Metric, Summary
from gomp.runtime.metrics.snapshot import Snapshot
from gomp.runtime.usage import Usage

GO_VERSION = "go1.27.3"  # the Go whose memory system this is
_QUANTILES = ("0", "0.25", "0.5", "0.75", "1")


def _pauses(s: Snapshot) -> Summary:
    quantiles = (ns / 1e9 for ns in s.gc_stats.pause_quantiles)
    return Summary(tuple(zip(_QUANTILES, quantiles, strict=True)), s.gc_stats.pause_total / 1e9, s.gc_stats.num_gc)


def _usage(read: Callable[[Usage], float]) -> Callable[[Snapshot], float | None]:
    return lambda s: read(s.usage) if s.usage else None


CLIENT_METRICS = (
    Metric("go_info", "gauge", "Always 1; the Go whose memory system this is.", lambda s: [(GO_VERSION, 1)], "version"),
    Metric("go_goroutines", "gauge", "Goroutines with frames, and programs that wait at channels.", lambda s: s.stats.goroutines.count),
    Metric("go_threads", "gauge", "Threads of coordinator, Ps and service.", _usage(lambda u: u.threads)),
    Metric("go_gc_duration_seconds", "summary", "Pauses of the last 256 cycles by quantile; all of them in count and sum.", _pauses),
    # what programs allocated
    Metric("go_memstats_alloc_bytes", "gauge", "Bytes in objects, live or not yet swept.", lambda s: s.stats.alloc),
    Metric("go_memstats_alloc_bytes_total", "counter", "Bytes allocated so far.", lambda s: s.stats.total_alloc),
    Metric("go_memstats_mallocs_total", "counter", "Objects allocated so far.", lambda s: s.stats.mallocs),
    Metric("go_memstats_frees_total", "counter", "Objects freed so far.", lambda s: s.stats.frees),
    Metric("go_memstats_lookups_total", "counter", "Always 0, as in Go; its client no longer tells it, and older dashboards ask.", lambda s: 0),
    # what the heap holds
    Metric("go_memstats_sys_bytes", "gauge", "Bytes of address space the heap and its metadata have taken.", lambda s: s.stats.sys),
    Metric("go_memstats_heap_alloc_bytes", "gauge", "As go_memstats_alloc_bytes.", lambda s: s.stats.heap_alloc),
    Metric("go_memstats_heap_sys_bytes", "gauge", "Bytes the heap has grown to.", lambda s: s.stats.heap_sys),
    Metric("go_memstats_heap_idle_bytes", "gauge", "Bytes of pages in no span.", lambda s: s.stats.heap_idle),
    Metric("go_memstats_heap_inuse_bytes", "gauge", "Bytes of pages in spans.", lambda s: s.stats.heap_inuse),
    Metric("go_memstats_heap_released_bytes", "gauge", "Bytes of released pages.", lambda s: s.stats.heap_released),
    Metric("go_memstats_heap_objects", "gauge", "Objects, live or not yet swept.", lambda s: s.stats.heap_objects),
    Metric("go_memstats_stack_inuse_bytes", "gauge", "Bytes of goroutine stacks.", lambda s: s.stats.stack_inuse),
    Metric("go_memstats_stack_sys_bytes", "gauge", "Bytes taken for stacks.", lambda s: s.stats.stack_sys),
    Metric("go_memstats_mspan_inuse_bytes", "gauge", "Bytes of span records in use.", lambda s: s.stats.mspan_inuse),
    Metric("go_memstats_mspan_sys_bytes", "gauge", "Bytes of span records.", lambda s: s.stats.mspan_sys),
    Metric("go_memstats_mcache_inuse_bytes", "gauge", "Bytes of caches of Ps that run programs.", lambda s: s.stats.mcache_inuse),
    Metric("go_memstats_mcache_sys_bytes", "gauge", "Bytes of caches.", lambda s: s.stats.mcache_sys),
    Metric("go_memstats_buck_hash_sys_bytes", "gauge", "Bytes of profiling tables.", lambda s: s.stats.buck_hash_sys),
    Metric("go_memstats_gc_sys_bytes", "gauge", "Bytes of the collector's other metadata.", lambda s: s.stats.gc_sys),
    Metric("go_memstats_other_sys_bytes", "gauge", "Bytes of anything else.", lambda s: s.stats.other_sys),
    # the collector
    Metric("go_memstats_next_gc_bytes", "gauge", "Heap goal of this cycle.", lambda s: s.stats.next_gc),
    Metric("go_memstats_last_gc_time_seconds", "gauge", "Unix time when the last cycle ended.", lambda s: s.stats.last_gc / 1e9),
    # the processes: coordinator, Ps and service together
    Metric("process_cpu_seconds_total", "counter", "CPU time of coordinator, Ps and service, and of those that have ended.",
           _usage(lambda u: u.cpu_s)),
    Metric("process_open_fds", "gauge", "Open file descriptors of all of them.", _usage(lambda u: u.open_fds)),
    Metric("process_max_fds", "gauge", "As many they may have, all together.", _usage(lambda u: u.max_fds)),
    Metric("process_virtual_memory_bytes", "gauge", "Their address space: the heap, most of it never touched, counts in each.",
           _usage(lambda u: u.virtual_bytes)),
    Metric("process_virtual_memory_max_bytes", "gauge", "As much address space the coordinator may have.",
           _usage(lambda u: float(u.max_virtual_bytes))),
    Metric("process_resident_memory_bytes", "gauge", "What they have in memory: the heap and its metadata once, and each one's own.",
           lambda s: s.resident_bytes),
    Metric("process_start_time_seconds", "gauge", "Unix time when the coordinator started.", _usage(lambda u: u.start_unix_s)),
    Metric("process_network_receive_bytes_total", "counter", "Bytes that came by network, for whoever is in the same network namespace.",
           _usage(lambda u: u.received_bytes)),
    Metric("process_network_transmit_bytes_total", "counter", "Bytes that went out, likewise.", _usage(lambda u: u.sent_bytes)),
)  # fmt: skip
