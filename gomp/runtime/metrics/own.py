"""What Go has no word for. Every counter is a total kept in shared memory, which outlives the process that counted."""

from __future__ import annotations

from collections.abc import Callable

from gomp.core.shm import layout
from gomp.pressure import Pressure
from gomp.runtime.memstats import PoolStats, PStats, RepairStats, ScavengeStats
from gomp.runtime.metrics.description import Labelled, Metric
from gomp.runtime.metrics.snapshot import Snapshot
from gomp.runtime.residency import ProcessMemory


def p_label(p: PStats) -> str:
    """What the label ``p`` says."""
    return "coordinator" if p.idx == layout.COORDINATOR_P else str(p.idx)


def _each_p(read: Callable[[PStats], float]) -> Callable[[Snapshot], Labelled]:
    return lambda s: ((p_label(p), read(p)) for p in s.stats.ps)


def _each_pool(read: Callable[[PoolStats], float]) -> Callable[[Snapshot], Labelled]:
    return lambda s: ((p.name, read(p)) for p in s.stats.pools)


def _each_process(read: Callable[[ProcessMemory], float]) -> Callable[[Snapshot], Labelled]:
    return lambda s: ((name, read(memory)) for name, memory in s.processes)


def _pressure(read: Callable[[Pressure], float]) -> Callable[[Snapshot], Labelled]:
    return lambda s: ((tasks, read(pressure)) for tasks, pressure in s.residency.pressure.items())


def _cgroup_events(s: Snapshot) -> Labelled:
    return s.residency.cgroup.events.items()


def _scavenged(scavenge: ScavengeStats) -> Labelled:
    return ((by, getattr(scavenge, f"{by}_bytes")) for by in ("background", "eager", "forced"))


def _repaired(repairs: RepairStats) -> Labelled:
    return ((what, getattr(repairs, what)) for what in ("locks", "redos", "spans", "handles", "marking"))


def _last_cycle(s: Snapshot) -> Labelled:
    marking = ((by, int(s.gc[f"last_{by}_ns"]) / 1e9) for by in ("assist", "dedicated", "fractional", "idle"))
    return [*marking, ("pause", int(s.gc.last_pause_ns) * s.stats.procs / 1e9)]


OWN_METRICS = (
    Metric("gomp_goroutines", "gauge", "Those of the 20 places that have started most, and others.", lambda s: s.goroutine_sites, "site"),
    Metric("gomp_goroutines_leaked", "gauge", "That wait for ever, as the last look for such found.", lambda s: s.stats.goroutines.leaked),
    Metric("gomp_goroutine_leak_looks_total", "counter", "Collections that looked for such.", lambda s: s.stats.goroutines.leak_looks),
    Metric("gomp_goroutine_record_bytes", "gauge", "Bytes of records of goroutines.", lambda s: s.stats.goroutines.record_bytes),
    # the runtime
    Metric("gomp_ready", "gauge", "1 if the runtime takes programs.", lambda s: int(s.ready)),
    Metric("gomp_uptime_seconds", "gauge", "Seconds since the runtime began.", lambda s: s.stats.uptime_s),
    Metric("gomp_coordinator_pid", "gauge", "Process of the coordinator.", lambda s: s.coordinator_pid),
    Metric("gomp_service_pid", "gauge", "Process that answers here.", lambda s: s.service_pid or None),
    Metric("gomp_heap_max_bytes", "gauge", "The heap never grows beyond this.", lambda s: s.heap_max),
    Metric("gomp_mapped_bytes", "gauge", "What the memory limit counts: all that is mapped and not released.",
           lambda s: s.stats.mapped),
    # what is really in memory
    Metric("gomp_heap_resident_bytes", "gauge", "Pages of the heap in memory, released ones included.", lambda s: s.residency.heap),
    Metric("gomp_metadata_resident_bytes", "gauge", "Pages of the metadata in memory.", lambda s: s.residency.metadata),
    Metric("gomp_heap_returnable_bytes", "gauge", "What a collection and free_os_memory would give back, at least.",
           lambda s: s.residency.returnable),
    Metric("gomp_process_private_bytes", "gauge", "Memory of a process's own, beside what the memory limit counts.",
           _each_process(lambda m: m.private), "process"),
    Metric("gomp_process_shared_bytes", "gauge", "Memory that it shares with others, the heap among it.",
           _each_process(lambda m: m.shared), "process"),
    Metric("gomp_cgroup_memory_usage_bytes", "gauge", "What the cgroup is charged.", lambda s: s.residency.cgroup.usage),
    Metric("gomp_cgroup_memory_limit_bytes", "gauge", "The strictest limit from the cgroup upwards.", lambda s: s.residency.cgroup.limit),
    Metric("gomp_cgroup_memory_events_total", "counter", "How often the cgroup's limit was met, by what came of it.", _cgroup_events, "event"),
    Metric("gomp_memory_pressure_ratio", "gauge", "Of the last ten seconds: when some task, or all, waited for memory.",
           _pressure(lambda p: p.avg10 / 100), "tasks"),
    Metric("gomp_memory_pressure_seconds_total", "counter", "Time that some task, or all, waited for memory.",
           _pressure(lambda p: p.total_s), "tasks"),
    Metric("gomp_gc_landing_error_ratio", "gauge", "How far above its goal the last cycle ended, by the goal; 0 without one.",
           lambda s: s.stats.landing_error),
    Metric("gomp_heap_live_bytes", "gauge", "Marked by the last cycle or allocated since.", lambda s: s.stats.heap_live),
    Metric("gomp_gc_mark_cpu_seconds_total", "counter", "CPU time of marking, by everybody.", lambda s: s.stats.mark_cpu_s),
    Metric("gomp_gc_pause_max_seconds", "gauge", "The longest pause.", lambda s: s.stats.pause_max_s),
    Metric("gomp_gc_stopping_seconds_total", "counter", "Time from the request of each stop until all Ps stood.",
           lambda s: s.stats.stopping_total_ns / 1e9),
    Metric("gomp_gc_cycle_cpu_seconds", "gauge", "CPU time of the last cycle, by what it was spent on.", _last_cycle, "by"),
    Metric("gomp_gc_limiter_active", "gauge", "1 while the GC CPU limiter is on.", lambda s: int(s.stats.limiter.active)),
    Metric("gomp_gc_limiter_enabled_total", "counter", "How often the GC CPU limiter went on.", lambda s: s.stats.limiter.times),
    Metric("gomp_gc_limiter_seconds_total", "counter", "How long it was on, up to the last time that it ended.", lambda s: s.stats.limiter.seconds),
    # the scavenger
    Metric("gomp_scavenged_bytes_total", "counter", "Memory released to the system.", lambda s: _scavenged(s.stats.scavenge), "by"),
    # after deaths
    Metric("gomp_repairs_total", "counter", "Repairs of the heap after processes had died.", lambda s: s.stats.repairs.count),
    Metric("gomp_repair_seconds_total", "counter", "Time the world stood still for repairs.", lambda s: s.stats.repairs.total_s),
    Metric("gomp_repair_last_seconds", "gauge", "Time the world stood still for the last repair.", lambda s: s.stats.repairs.last_s),
    Metric("gomp_repair_max_seconds", "gauge", "Longest time the world stood still for a repair.", lambda s: s.stats.repairs.max_s),
    Metric("gomp_repaired_total", "counter", "What repairs have put right.", lambda s: _repaired(s.stats.repairs), "what"),
    # finalizers and cleanups
    Metric("gomp_finalizers_queued_total", "counter", "Finalizers whose objects died.", lambda s: s.stats.finalizers.queued),
    Metric("gomp_finalizers_executed_total", "counter", "Finalizers that ran.", lambda s: s.stats.finalizers.executed),
    Metric("gomp_finalizers_failed_total", "counter", "Finalizers that raised.", lambda s: s.stats.finalizers.failed),
    Metric("gomp_finalizers_lost_total", "counter", "Finalizers of processes that died, due or not.", lambda s: s.stats.finalizers.lost),
    Metric("gomp_cleanups_queued_total", "counter", "Cleanups whose objects died.", lambda s: s.stats.cleanups.queued),
    Metric("gomp_cleanups_executed_total", "counter", "Cleanups that ran.", lambda s: s.stats.cleanups.executed),
    Metric("gomp_cleanups_failed_total", "counter", "Cleanups that raised.", lambda s: s.stats.cleanups.failed),
    Metric("gomp_cleanups_lost_total", "counter", "Cleanups of processes that died, due or not.", lambda s: s.stats.cleanups.lost),
    # pools
    Metric("gomp_pool_hits_total", "counter", "Objects that a pool gave back.", _each_pool(lambda p: p.hits), "pool"),
    Metric("gomp_pool_misses_total", "counter", "Objects that had to be made.", _each_pool(lambda p: p.misses), "pool"),
    Metric("gomp_pool_steals_total", "counter", "Hits from another P.", _each_pool(lambda p: p.steals), "pool"),
    Metric("gomp_pool_victim_hits_total", "counter", "Hits that one more collection would have taken.", _each_pool(lambda p: p.victim_hits), "pool"),
    Metric("gomp_pool_drops_total", "counter", "Objects that were too large, or too many.", _each_pool(lambda p: p.drops), "pool"),
    Metric("gomp_pool_evictions_total", "counter", "Objects that collections took, as nobody had for two of them.",
           _each_pool(lambda p: p.evictions), "pool"),
    # each P
    Metric("gomp_p_pid", "gauge", "Process of the P.", lambda s: [(p_label(p), p.pid) for p in s.stats.ps if p.pid], "p"),
    Metric("gomp_p_mutator_seconds_total", "counter", "Time that the P had for its programs, up to the end of the last marking.",
           _each_p(lambda p: p.mutator_s), "p"),
    Metric("gomp_p_idle_seconds_total", "counter", "Time that it had nothing to run, likewise.", _each_p(lambda p: p.idle_s), "p"),
    Metric("gomp_p_mark_cpu_seconds_total", "counter", "CPU time the P spent marking.", _each_p(lambda p: p.mark_cpu_s), "p"),
    Metric("gomp_p_assist_cpu_seconds_total", "counter", "Time the P spent in assists.", _each_p(lambda p: p.assist_cpu_s), "p"),
    Metric("gomp_p_cycle_assist_seconds", "gauge", "That in the cycle that is on, or was the last.", _each_p(lambda p: p.cycle_assist_s), "p"),
    Metric("gomp_p_assist_debt_bytes", "gauge", "Allocated by the P while marking and not paid for yet.", _each_p(lambda p: p.assist_debt), "p"),
    Metric("gomp_p_sweep_cpu_seconds_total", "counter", "Time the P spent sweeping.", _each_p(lambda p: p.sweep_cpu_s), "p"),
    Metric("gomp_p_stopped_seconds_total", "counter", "Time the P stood still: in stops, until a cycle began, until marking ended.",
           _each_p(lambda p: p.stopped_s), "p"),
    Metric("gomp_p_stops_total", "counter", "Times that it did.", _each_p(lambda p: p.stops), "p"),
    Metric("gomp_p_resume_max_seconds", "gauge", "Longest time from the end of a stop to running.", _each_p(lambda p: p.resume_max_s), "p"),
    Metric("gomp_p_safepoints_total", "counter", "Stops that the P met in the middle of something.", _each_p(lambda p: p.safepoints), "p"),
    Metric("gomp_p_safepoint_seconds_total", "counter", "Time from the request of each until it met it.", _each_p(lambda p: p.safepoint_s), "p"),
    Metric("gomp_p_safepoint_max_seconds", "gauge", "The longest of those times.", _each_p(lambda p: p.safepoint_max_s), "p"),
    Metric("gomp_p_barrier_flushes_total", "counter", "Times that its write barrier's buffer was emptied.",
           _each_p(lambda p: p.barrier_flushes), "p"),
    Metric("gomp_p_steals_total", "counter", "Goroutines that the P took from others.", _each_p(lambda p: p.steals), "p"),
    Metric("gomp_p_lock_wait_seconds_total", "counter", "Time it waited for locks, and goroutines did that it woke.",
           _each_p(lambda p: p.lock_wait_s), "p"),
    Metric("gomp_p_refills_total", "counter", "Spans the P's cache was filled with.", _each_p(lambda p: p.refills), "p"),
    Metric("gomp_p_restarts_total", "counter", "Processes of the P that died, and were replaced.", _each_p(lambda p: p.deaths), "p"),
    Metric("gomp_p_stack_copies_total", "counter", "Moves of goroutine stacks by the P.", _each_p(lambda p: p.stack_copies), "p"),
    Metric("gomp_p_stack_copied_bytes_total", "counter", "Bytes of stacks that they copied.", _each_p(lambda p: p.stack_copied), "p"),
    Metric("gomp_p_programs_total", "counter", "Goroutines the P ran to their end.", _each_p(lambda p: p.programs), "p"),
)  # fmt: skip
