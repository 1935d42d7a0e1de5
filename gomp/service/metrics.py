"""What Prometheus sees: one table of metrics, and one collector that reads shared memory when it is scraped.

Heap, collector and pause figures have the names that Go's own client gives them, so dashboards and alerts for Go programs work as they are;
what Go has no word for begins with ``gomp_``. Every counter is a total kept in shared memory, which outlives the process that counted, so
none ever goes back while the runtime lives.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gomp.cgroup import MemoryCgroup
from gomp.core.shm import layout, records
from gomp.pressure import Pressure
from gomp.runtime import memstats, residency
from gomp.runtime.memstats import MemStats, PoolStats, PStats, RepairStats, ScavengeStats
from gomp.runtime.residency import ProcessMemory, Residency
from gomp.runtime.sitecounts import SiteCounts
from gomp.service.processes import ProcessMemories

GO_VERSION = "go1.27.3"  # the Go whose memory system this is
_CGROUP = MemoryCgroup.of_this_process()
_PROCESSES = ProcessMemories()
_SITES = SiteCounts()
GOGC_OFF = float((1 << 64) - 1)  # what Go exports for GOGC=off


@dataclass(frozen=True)
class Snapshot:
    """All that one scrape reads."""

    stats: MemStats
    ready: bool
    coordinator_pid: int
    service_pid: int
    heap_max: int
    processes: list[tuple[str, ProcessMemory]]
    residency: Residency
    goroutine_sites: list[tuple[str, int]]


def snapshot() -> Snapshot:
    """The state of the runtime whose segments are mapped here."""
    runtime = records.view(records.runtime_dtype, records.RUNTIME)[0]
    stats = memstats.read()
    processes = [(f"P{p.idx}", p.pid) for p in stats.ps[:-1]]
    processes += [("coordinator", int(runtime.coordinator_pid)), ("service", os.getpid())]
    return Snapshot(
        stats=stats,
        ready=is_ready(),
        coordinator_pid=int(runtime.coordinator_pid),
        service_pid=os.getpid(),
        heap_max=int(runtime.max_pages) * layout.PAGE_SIZE,
        processes=_PROCESSES.of(processes),
        residency=residency.read(*_segment_descriptors(), _CGROUP),
        goroutine_sites=_SITES.read(),
    )


def _segment_descriptors() -> tuple[int, int]:
    """Those of the coordinator, which this process has inherited."""
    coordinator = records.view(records.p_dtype, layout.p_addr(layout.COORDINATOR_P))[0]
    return int(coordinator.heap_fd), int(coordinator.meta_fd)


def is_ready() -> bool:
    """Whether the runtime takes programs: it has begun, not begun to end, and each P has a process."""
    runtime = records.view(records.runtime_dtype, records.RUNTIME)[0]
    return bool(runtime.xready) and not runtime.xshutdown


def p_label(p: PStats) -> str:
    """What the label ``p`` says."""
    return "coordinator" if p.idx == layout.COORDINATOR_P else str(p.idx)


# --- the table --------------------------------------------------------------------------------------------------------

Values = Iterable[tuple[str, float]]


@dataclass(frozen=True)
class Entry:
    """One metric. ``read`` gives its value, None where the system has none, or, for one with a label, the values with what the label says."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    read: Callable[[Snapshot], float | Values | None]
    label: str = ""


def _each_p(read: Callable[[PStats], float]) -> Callable[[Snapshot], Values]:
    return lambda s: ((p_label(p), read(p)) for p in s.stats.ps)


def _each_pool(read: Callable[[PoolStats], float]) -> Callable[[Snapshot], Values]:
    return lambda s: ((p.name, read(p)) for p in s.stats.pools)


def _each_process(read: Callable[[ProcessMemory], float]) -> Callable[[Snapshot], Values]:
    return lambda s: ((name, read(memory)) for name, memory in s.processes)


def _pressure(read: Callable[[Pressure], float]) -> Callable[[Snapshot], Values]:
    return lambda s: ((tasks, read(pressure)) for tasks, pressure in s.residency.pressure.items())


def _cgroup_events(s: Snapshot) -> Values:
    return s.residency.cgroup.events.items()


def _scavenged(scavenge: ScavengeStats) -> Values:
    return ((by, getattr(scavenge, f"{by}_bytes")) for by in ("background", "eager", "forced"))


def _repaired(repairs: RepairStats) -> Values:
    return ((what, getattr(repairs, what)) for what in ("locks", "redos", "spans", "handles", "marking"))


TABLE = (
    Entry("go_info", "gauge", "Always 1; the Go whose memory system this is.", lambda s: [(GO_VERSION, 1)], "version"),
    Entry("go_sched_gomaxprocs_threads", "gauge", "Ps that run programs.", lambda s: s.stats.procs),
    Entry(
        "go_gc_gogc_percent", "gauge", "GOGC; 2^64-1 if off.", lambda s: GOGC_OFF if s.stats.gogc < 0 else s.stats.gogc
    ),
    Entry("go_gc_gomemlimit_bytes", "gauge", "GOMEMLIMIT; 2^63-1 if off.", lambda s: s.stats.memory_limit),
    Entry("go_goroutines", "gauge", "Goroutines with frames, and programs that wait at channels.", lambda s: s.stats.goroutines.count),
    Entry("go_sched_goroutines_goroutines", "gauge", "As go_goroutines.", lambda s: s.stats.goroutines.count),
    Entry("go_sched_goroutines_runnable_goroutines", "gauge", "Of those, in queues.", lambda s: s.stats.goroutines.runnable),
    Entry("go_sched_goroutines_running_goroutines", "gauge", "Of those, run by a P.", lambda s: s.stats.goroutines.running),
    Entry("go_sched_goroutines_waiting_goroutines", "gauge", "Of those, waiting.", lambda s: s.stats.goroutines.waiting),
    Entry("go_sched_goroutines_created_goroutines_total", "counter", "Goroutines ever started.", lambda s: s.stats.goroutines.created),
    Entry("gomp_goroutines", "gauge", "Those of the 20 places that have started most, and others.", lambda s: s.goroutine_sites, "site"),
    Entry("gomp_goroutines_leaked", "gauge", "That wait for ever, as the last look for such found.", lambda s: s.stats.goroutines.leaked),
    Entry("gomp_goroutine_leak_looks_total", "counter", "Collections that looked for such.", lambda s: s.stats.goroutines.leak_looks),
    Entry("gomp_goroutine_record_bytes", "gauge", "Bytes of records of goroutines.", lambda s: s.stats.goroutines.record_bytes),
    # what programs allocated
    Entry("go_memstats_alloc_bytes", "gauge", "Bytes in objects, live or not yet swept.", lambda s: s.stats.alloc),
    Entry("go_memstats_alloc_bytes_total", "counter", "Bytes allocated so far.", lambda s: s.stats.total_alloc),
    Entry("go_memstats_mallocs_total", "counter", "Objects allocated so far.", lambda s: s.stats.mallocs),
    Entry("go_memstats_frees_total", "counter", "Objects freed so far.", lambda s: s.stats.frees),
    Entry("go_gc_heap_tiny_allocs_objects_total", "counter", "Objects inside shared 16-byte blocks.", lambda s: s.stats.tiny_allocs),
    # what the heap holds
    Entry("go_memstats_sys_bytes", "gauge", "Bytes of address space the heap and its metadata have taken.", lambda s: s.stats.sys),
    Entry("go_memstats_heap_alloc_bytes", "gauge", "As go_memstats_alloc_bytes.", lambda s: s.stats.heap_alloc),
    Entry("go_memstats_heap_sys_bytes", "gauge", "Bytes the heap has grown to.", lambda s: s.stats.heap_sys),
    Entry("go_memstats_heap_idle_bytes", "gauge", "Bytes of pages in no span.", lambda s: s.stats.heap_idle),
    Entry("go_memstats_heap_inuse_bytes", "gauge", "Bytes of pages in spans.", lambda s: s.stats.heap_inuse),
    Entry("go_memstats_heap_released_bytes", "gauge", "Bytes of pages that the system has back.", lambda s: s.stats.heap_released),
    Entry("go_memstats_heap_objects", "gauge", "Objects, live or not yet swept.", lambda s: s.stats.heap_objects),
    Entry("go_memstats_stack_inuse_bytes", "gauge", "Bytes of goroutine stacks.", lambda s: s.stats.stack_inuse),
    Entry("go_memstats_stack_sys_bytes", "gauge", "Bytes taken for stacks.", lambda s: s.stats.stack_sys),
    Entry("go_memstats_mspan_inuse_bytes", "gauge", "Bytes of span records in use.", lambda s: s.stats.mspan_inuse),
    Entry("go_memstats_mspan_sys_bytes", "gauge", "Bytes of span records.", lambda s: s.stats.mspan_sys),
    Entry("go_memstats_mcache_inuse_bytes", "gauge", "Bytes of caches of Ps that run programs.", lambda s: s.stats.mcache_inuse),
    Entry("go_memstats_mcache_sys_bytes", "gauge", "Bytes of caches.", lambda s: s.stats.mcache_sys),
    Entry("go_memstats_buck_hash_sys_bytes", "gauge", "Bytes of profiling tables.", lambda s: s.stats.buck_hash_sys),
    Entry("go_memstats_gc_sys_bytes", "gauge", "Bytes of the collector's other metadata.", lambda s: s.stats.gc_sys),
    Entry("go_memstats_other_sys_bytes", "gauge", "Bytes of anything else.", lambda s: s.stats.other_sys),
    # the collector
    Entry("go_memstats_next_gc_bytes", "gauge", "Heap goal of this cycle.", lambda s: s.stats.next_gc),
    Entry("go_memstats_last_gc_time_seconds", "gauge", "Unix time when the last cycle ended.", lambda s: s.stats.last_gc / 1e9),
    Entry("go_gc_heap_live_bytes", "gauge", "Bytes the last cycle marked.", lambda s: s.stats.heap_marked),
    Entry("go_gc_cycles_total_gc_cycles_total", "counter", "Cycles so far.", lambda s: s.stats.num_gc),
    Entry("go_gc_cycles_forced_gc_cycles_total", "counter", "Cycles that somebody asked for.", lambda s: s.stats.num_forced_gc),
    Entry(
        "go_gc_cycles_automatic_gc_cycles_total",
        "counter",
        "Cycles that the runtime began by itself.",
        lambda s: s.stats.num_automatic_gc,
    ),
    Entry(
        "go_cpu_classes_gc_mark_assist_cpu_seconds_total",
        "counter",
        "CPU time that programs spent helping with the mark.",
        lambda s: s.stats.assist_cpu_s,
    ),
    Entry(
        "go_cpu_classes_gc_pause_cpu_seconds_total",
        "counter",
        "CPU time lost to pauses, on all Ps.",
        lambda s: s.stats.pause_cpu_s,
    ),
    Entry("go_cpu_classes_gc_total_cpu_seconds_total", "counter", "CPU time of the collector.", lambda s: s.stats.gc_cpu_s),
    # ours: the runtime
    Entry("gomp_ready", "gauge", "1 if the runtime takes programs.", lambda s: int(s.ready)),
    Entry("gomp_uptime_seconds", "gauge", "Seconds since the runtime began.", lambda s: s.stats.uptime_s),
    Entry("gomp_coordinator_pid", "gauge", "Process of the coordinator.", lambda s: s.coordinator_pid),
    Entry("gomp_service_pid", "gauge", "Process that answers here.", lambda s: s.service_pid),
    Entry("gomp_heap_max_bytes", "gauge", "The heap never grows beyond this.", lambda s: s.heap_max),
    Entry("gomp_mapped_bytes", "gauge", "What the memory limit counts: all that is mapped and not returned.", lambda s: s.stats.mapped),
    # ours: what is really in memory
    Entry("gomp_heap_resident_bytes", "gauge", "Pages of the heap in memory, released ones included.", lambda s: s.residency.heap),
    Entry("gomp_metadata_resident_bytes", "gauge", "Pages of the metadata in memory.", lambda s: s.residency.metadata),
    Entry("gomp_heap_returnable_bytes", "gauge", "What a collection and free_os_memory would give back, at least.", lambda s: s.residency.returnable),
    Entry(
        "gomp_process_private_bytes",
        "gauge",
        "Memory of a process's own, beside what the memory limit counts.",
        _each_process(lambda m: m.private),
        "process",
    ),
    Entry(
        "gomp_process_shared_bytes",
        "gauge",
        "Memory that it shares with others, the heap among it.",
        _each_process(lambda m: m.shared),
        "process",
    ),
    Entry("gomp_cgroup_memory_usage_bytes", "gauge", "What the cgroup is charged.", lambda s: s.residency.cgroup.usage),
    Entry("gomp_cgroup_memory_limit_bytes", "gauge", "The strictest limit from the cgroup upwards.", lambda s: s.residency.cgroup.limit),
    Entry("gomp_cgroup_memory_events_total", "counter", "How often the cgroup's limit was met, by what came of it.", _cgroup_events, "event"),
    Entry(
        "gomp_memory_pressure_ratio",
        "gauge",
        "Of the last ten seconds: when some task, or all, waited for memory.",
        _pressure(lambda p: p.avg10 / 100),
        "tasks",
    ),
    Entry(
        "gomp_memory_pressure_seconds_total",
        "counter",
        "Time that some task, or all, waited for memory.",
        _pressure(lambda p: p.total_s),
        "tasks",
    ),
    Entry("gomp_gc_landing_error_ratio", "gauge", "How far above its goal the last cycle ended, by the goal.", lambda s: s.stats.landing_error),
    Entry("gomp_heap_live_bytes", "gauge", "Marked by the last cycle or allocated since.", lambda s: s.stats.heap_live),
    Entry("gomp_gc_mark_cpu_seconds_total", "counter", "CPU time of marking, by everybody.", lambda s: s.stats.mark_cpu_s),
    Entry("gomp_gc_pause_max_seconds", "gauge", "The longest pause.", lambda s: s.stats.pause_max_s),
    Entry(
        "gomp_gc_stopping_seconds_total",
        "counter",
        "Time from the request of each stop until all Ps stood.",
        lambda s: s.stats.stopping_total_ns / 1e9,
    ),
    Entry("go_gc_limiter_last_enabled_gc_cycle", "gauge", "Last cycle for which the GC CPU limiter was on.", lambda s: s.stats.limiter.last_cycle),
    Entry("gomp_gc_limiter_active", "gauge", "1 while the GC CPU limiter is on.", lambda s: int(s.stats.limiter.active)),
    Entry("gomp_gc_limiter_enabled_total", "counter", "How often the GC CPU limiter went on.", lambda s: s.stats.limiter.times),
    Entry("gomp_gc_limiter_seconds_total", "counter", "How long it was on, up to the last time that it ended.", lambda s: s.stats.limiter.seconds),
    # ours: the scavenger
    Entry(
        "go_cpu_classes_scavenge_background_cpu_seconds_total",
        "counter",
        "CPU time of returning memory to the system in the background.",
        lambda s: s.stats.scavenge.background_s,
    ),
    Entry(
        "go_cpu_classes_scavenge_assist_cpu_seconds_total",
        "counter",
        "The same, by programs whose allocations made it necessary.",
        lambda s: s.stats.scavenge.eager_s,
    ),
    Entry(
        "go_cpu_classes_scavenge_total_cpu_seconds_total",
        "counter",
        "Both.",
        lambda s: s.stats.scavenge.background_s + s.stats.scavenge.eager_s,
    ),
    Entry(
        "gomp_scavenged_bytes_total",
        "counter",
        "Memory returned to the system.",
        lambda s: _scavenged(s.stats.scavenge),
        "by",
    ),
    # ours: after deaths
    Entry("gomp_repairs_total", "counter", "Repairs of the heap after processes had died.", lambda s: s.stats.repairs.count),
    Entry("gomp_repair_seconds_total", "counter", "Time the world stood still for repairs.", lambda s: s.stats.repairs.total_s),
    Entry("gomp_repair_last_seconds", "gauge", "Time the world stood still for the last repair.", lambda s: s.stats.repairs.last_s),
    Entry("gomp_repair_max_seconds", "gauge", "Longest time the world stood still for a repair.", lambda s: s.stats.repairs.max_s),
    Entry("gomp_repaired_total", "counter", "What repairs have put right.", lambda s: _repaired(s.stats.repairs), "what"),
    # ours: finalizers and cleanups
    Entry("gomp_finalizers_queued_total", "counter", "Finalizers whose objects died.", lambda s: s.stats.finalizers.queued),
    Entry("gomp_finalizers_executed_total", "counter", "Finalizers that ran.", lambda s: s.stats.finalizers.executed),
    Entry("gomp_finalizers_failed_total", "counter", "Finalizers that raised.", lambda s: s.stats.finalizers.failed),
    Entry("gomp_finalizers_lost_total", "counter", "Finalizers of processes that died, due or not.", lambda s: s.stats.finalizers.lost),
    Entry("gomp_cleanups_queued_total", "counter", "Cleanups whose objects died.", lambda s: s.stats.cleanups.queued),
    Entry("gomp_cleanups_executed_total", "counter", "Cleanups that ran.", lambda s: s.stats.cleanups.executed),
    Entry("gomp_cleanups_failed_total", "counter", "Cleanups that raised.", lambda s: s.stats.cleanups.failed),
    Entry("gomp_cleanups_lost_total", "counter", "Cleanups of processes that died, due or not.", lambda s: s.stats.cleanups.lost),
    # ours: pools
    Entry("gomp_pool_hits_total", "counter", "Objects that a pool gave back.", _each_pool(lambda p: p.hits), "pool"),
    Entry("gomp_pool_misses_total", "counter", "Objects that had to be made.", _each_pool(lambda p: p.misses), "pool"),
    Entry("gomp_pool_steals_total", "counter", "Hits from another P.", _each_pool(lambda p: p.steals), "pool"),
    Entry("gomp_pool_victim_hits_total", "counter", "Hits that one more collection would have taken.", _each_pool(lambda p: p.victim_hits), "pool"),
    Entry("gomp_pool_drops_total", "counter", "Objects that were too large, or too many.", _each_pool(lambda p: p.drops), "pool"),
    # ours: each P
    Entry("gomp_p_pid", "gauge", "Process of the P.", lambda s: [(p_label(p), p.pid) for p in s.stats.ps if p.pid], "p"),
    Entry("gomp_p_mark_cpu_seconds_total", "counter", "CPU time the P spent marking.", _each_p(lambda p: p.mark_cpu_s), "p"),
    Entry("gomp_p_assist_cpu_seconds_total", "counter", "CPU time the P spent in assists.", _each_p(lambda p: p.assist_cpu_s), "p"),
    Entry("gomp_p_cycle_assist_seconds", "gauge", "That in the cycle that is on, or was the last.", _each_p(lambda p: p.cycle_assist_s), "p"),
    Entry("gomp_p_assist_debt_bytes", "gauge", "Allocated by the P while marking and not paid for yet.", _each_p(lambda p: p.assist_debt), "p"),
    Entry("gomp_p_sweep_cpu_seconds_total", "counter", "CPU time the P spent sweeping.", _each_p(lambda p: p.sweep_cpu_s), "p"),
    Entry("gomp_p_stopped_seconds_total", "counter", "Time the P stood still in stops.", _each_p(lambda p: p.stopped_s), "p"),
    Entry("gomp_p_stops_total", "counter", "Stops the P stood still in.", _each_p(lambda p: p.stops), "p"),
    Entry("gomp_p_resume_max_seconds", "gauge", "Longest time from the end of a stop to running.", _each_p(lambda p: p.resume_max_s), "p"),
    Entry("gomp_p_refills_total", "counter", "Spans the P's cache was filled with.", _each_p(lambda p: p.refills), "p"),
    Entry("gomp_p_restarts_total", "counter", "Processes of the P that died, and were replaced.", _each_p(lambda p: p.deaths), "p"),
    Entry("gomp_p_stack_copies_total", "counter", "Moves of goroutine stacks by the P.", _each_p(lambda p: p.stack_copies), "p"),
    Entry("gomp_p_stack_copied_bytes_total", "counter", "Bytes of stacks that they copied.", _each_p(lambda p: p.stack_copied), "p"),
    Entry("gomp_p_programs_total", "counter", "Goroutines the P ran to their end.", _each_p(lambda p: p.programs), "p"),
)  # fmt: skip

_FAMILIES = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}
PAUSE_QUANTILES = ("0", "0.25", "0.5", "0.75", "1")


def families(s: Snapshot) -> Iterator[Metric]:
    """The metrics of ``s`` in Prometheus's terms."""
    yield _pauses(s.stats)
    for entry in TABLE:
        values = entry.read(s)
        if values is None:
            continue
        if isinstance(values, int | float):
            yield _FAMILIES[entry.kind](entry.name, entry.help, value=values)
            continue
        family = _FAMILIES[entry.kind](entry.name, entry.help, labels=[entry.label])
        for label, value in values:
            family.add_metric([label], value)
        yield family


def _pauses(stats: MemStats) -> Metric:
    name = "go_gc_duration_seconds"
    summary = Metric(name, "Pauses of the last 256 cycles by quantile; all of them in count and sum.", "summary")
    for q in PAUSE_QUANTILES:
        summary.add_sample(name, {"quantile": q}, stats.cycle_pause_quantile(float(q)))
    summary.add_sample(f"{name}_sum", {}, stats.pause_total_ns / 1e9)
    summary.add_sample(f"{name}_count", {}, stats.num_gc)
    return summary


class RuntimeCollector(Collector):
    """Reads the runtime's shared memory each time it is asked."""

    def collect(self) -> Iterator[Metric]:
        yield from families(snapshot())


def registry() -> CollectorRegistry:
    """A registry with the one collector."""
    made = CollectorRegistry(auto_describe=False)
    made.register(RuntimeCollector())
    return made
