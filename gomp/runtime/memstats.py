"""Go's MemStats, computed from the records in shared memory at the moment of the call.

Nothing is stopped and no cache is flushed, so an object that a P has taken from its cache counts only after the P's next refill: where Go's
ReadMemStats stops the world and flushes, this is Go's ``runtime/metrics``, and it can be read while the runtime hangs.

What always holds, whatever runs meanwhile:

- ``heap_sys == heap_inuse + heap_idle``, ``heap_idle == heap_free + heap_released``
- ``sys - heap_released`` is what the memory limit counts (:mod:`~gomp.core.heap.accounting`).
- ``sys == heap_sys + stack_sys + mspan_sys + mcache_sys + buck_hash_sys + gc_sys + other_sys``
- ``heap_alloc >= 0`` and ``heap_objects == mallocs - frees >= 0``: what was freed is read before what was allocated.
- ``heap_alloc <= heap_inuse``: pages are counted a moment after the objects on them, and those freed in between as still in use.
- ``num_gc == num_forced_gc + num_automatic_gc``
- Totals only grow: they are sums of per-P totals, which outlive the process of the P.

Where the words of Go meet another machine: a *span record* stands for each page and counts as MSpan; what else the collector keeps in the
metadata segment (bitmaps, work buffers) counts as GCSys, and records, tables and copies of native stacks as OtherSys. The interpreters of the
processes are not the runtime's memory and in none of these figures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from gomp.config import ENDLESS
from gomp.core.gc import goal
from gomp.core.heap.sizeclass import SIZES
from gomp.core.shm import layout, records
from gomp.core.shm.atomics import load_acquire

BY_SIZE_CLASSES = 61  # Go's BySize stops at class 60
_EPOCH_OF_NOBODY = 1  # that of a record as the coordinator makes it
_MCACHE_BYTES = layout.NUM_SPAN_CLASSES * records.MCACHE_ENTRY


@dataclass(frozen=True)
class SizeStats:
    """One row of BySize: slots of ``size`` bytes, objects allocated and freed so far."""

    size: int
    mallocs: int
    frees: int


@dataclass(frozen=True)
class PStats:
    """What one P has done so far. Times in seconds by the clock, but for marking as a worker, which is CPU time."""

    idx: int
    pid: int  # 0: nobody
    mark_cpu_s: float
    assist_cpu_s: float
    cycle_assist_s: float  # of that, in the cycle that is on or was the last
    assist_debt: int  # bytes allocated while marking and not paid for yet
    sweep_cpu_s: float
    mutator_s: float  # for its programs, and in idleness: up to the end of the last marking
    idle_s: float
    stopped_s: float  # in stops, until a cycle began, until marking ended
    stops: int
    resume_max_s: float
    safepoints: int  # stops that it has met in the middle of something, and how long that has taken each time
    safepoint_s: float
    safepoint_max_s: float
    lock_wait_s: float  # for locks: it, and goroutines that it has woken
    steals: int  # goroutines taken from other Ps
    barrier_flushes: int
    refills: int
    programs: int
    stack_copies: int
    stack_copied: int
    deaths: int


@dataclass(frozen=True)
class RepairStats:
    """What was put right after processes of Ps had died."""

    count: int
    total_s: float  # from the request of the stop to its end
    last_s: float
    max_s: float
    locks: int  # released
    redos: int  # changes that were finished
    spans: int  # that were in somebody's hand
    handles: int  # references that were dropped
    marking: int  # mark phases started over


@dataclass(frozen=True)
class GoroutineStats:
    """Goroutines, and programs that wait at channels, which are goroutines meanwhile. Of one moment if nothing changes meanwhile.

    Those of Python's that wait for nothing in the heap, but for their turn or for each other, count as runnable.
    """

    count: int
    runnable: int
    running: int
    waiting: int
    not_in_go: int  # of programs that wait for Python meanwhile
    created: int
    record_bytes: int  # committed for their records, free ones among them
    leaked: int  # that wait for ever, as the last look for such has found
    leak_looks: int  # how many there were


@dataclass(frozen=True)
class LimiterStats:
    """The GC CPU limiter: whether it is on, and how often and how long it was."""

    active: bool
    times: int
    seconds: float  # that which is going on not counted
    last_cycle: int  # the last cycle for which it was on; 0: none


@dataclass(frozen=True)
class ScavengeStats:
    """What was returned to the system, ever: in the background, by those who allocate, and because somebody wanted all of it back."""

    background_bytes: int
    eager_bytes: int
    forced_bytes: int
    background_s: float
    eager_s: float


@dataclass(frozen=True)
class SpecialStats:
    """Finalizers, or cleanups, so far."""

    queued: int  # due: their objects died
    executed: int
    failed: int  # of those executed: they raised
    lost: int  # nobody can run them: the process that had registered them died; also of those whose objects were, or are, alive


@dataclass(frozen=True)
class PoolStats:
    """What a pool has done so far, on all Ps."""

    name: str
    hits: int
    misses: int
    steals: int  # of the hits: from another P
    victim_hits: int  # of the hits: what the next collection would have taken
    drops: int
    evictions: int  # what collections took, as nobody had for two of them


@dataclass(frozen=True)
class MemStats:
    """Go's MemStats under Go's names in snake case, then what Go reports elsewhere or has no word for."""

    alloc: int
    total_alloc: int
    sys: int
    mallocs: int
    frees: int
    heap_alloc: int
    heap_sys: int
    heap_idle: int
    heap_inuse: int
    heap_released: int
    heap_objects: int
    stack_inuse: int
    stack_sys: int
    mspan_inuse: int
    mspan_sys: int
    mcache_inuse: int
    mcache_sys: int
    buck_hash_sys: int
    gc_sys: int
    other_sys: int
    next_gc: int
    last_gc: int  # Unix time in ns
    pause_total_ns: int
    pause_ns: tuple[int, ...] = field(repr=False)  # a ring; the latest at (num_gc + 255) % 256
    pause_end: tuple[int, ...] = field(repr=False)  # the same ring: Unix time in ns when each ended
    num_gc: int
    num_forced_gc: int
    num_automatic_gc: int
    gc_cpu_fraction: float
    by_size: tuple[SizeStats, ...] = field(repr=False)
    lookups: int  # always 0, as in Go
    enable_gc: bool  # always true
    debug_gc: bool  # always false

    allocs_by_size: tuple[int, ...] = field(repr=False)  # objects of each size class from 1 on, and last the large ones
    frees_by_size: tuple[int, ...] = field(repr=False)
    heap_free: int  # idle, but not released
    heap_live: int  # what the pacer believes to be live: marked, plus allocated since
    heap_marked: int  # by the last cycle
    tiny_allocs: int  # objects inside shared 16-byte blocks
    gogc: int  # -1: off
    memory_limit: int
    last_goal: int  # that the last cycle was to end at
    last_heap_end: int  # and the heap when its marking ended
    procs: int
    stops: int
    stop_ns: tuple[int, ...] = field(
        repr=False
    )  # the last pauses, each by itself: a ring; the latest at (stops - 1) % len
    pause_max_ns: int
    stopping_total_ns: int  # from the request of each stop until all were stopped
    mark_assist_s: float  # marking by allocating programs; then by dedicated, fractional and idle workers
    mark_dedicated_s: float
    mark_fractional_s: float
    mark_idle_s: float
    pause_cpu_s: float  # pauses times the Ps
    uptime_s: float
    goroutines: GoroutineStats
    limiter: LimiterStats
    scavenge: ScavengeStats
    repairs: RepairStats
    finalizers: SpecialStats
    cleanups: SpecialStats
    pools: tuple[PoolStats, ...]
    ps: tuple[PStats, ...] = field(repr=False)  # Ps that run programs, attached ones, and last the coordinator's

    @property
    def gc_cpu_s(self) -> float:
        """CPU time that collection took: pauses on all Ps, and marking, that of idle Ps too (Go's /cpu/classes/gc/total)."""
        return self.pause_cpu_s + self.mark_cpu_s

    @property
    def landing_error(self) -> float:
        """How far from its goal the last cycle ended, as a share of the goal: above 0 the heap was larger. 0 without a goal."""
        has_goal = 0 < self.last_goal < ENDLESS
        return (self.last_heap_end - self.last_goal) / self.last_goal if has_goal else 0.0

    @property
    def mapped(self) -> int:
        """What the memory limit counts: all that is mapped and has not been released."""
        return self.sys - self.heap_released

    @property
    def mark_cpu_s(self) -> float:
        """CPU time of all marking."""
        return self.mark_assist_s + self.mark_dedicated_s + self.mark_fractional_s + self.mark_idle_s

    @property
    def assist_cpu_s(self) -> float:
        """CPU time that programs spent helping with the mark, in cycles that have ended."""
        return self.mark_assist_s

    @property
    def mark_cpu_s_per_p(self) -> tuple[float, ...]:
        """CPU time that each of the Ps that run programs spent marking."""
        return tuple(p.mark_cpu_s for p in self.ps[: self.procs])

    @property
    def pause_p50_s(self) -> float:
        """Median of the last 512 pauses, two or more a cycle."""
        return self.pause_quantile(0.5)

    @property
    def pause_p99_s(self) -> float:
        """99th percentile of the last 512 pauses."""
        return self.pause_quantile(0.99)

    @property
    def pause_max_s(self) -> float:
        """The longest pause of all."""
        return self.pause_max_ns / 1e9

    def to_json(self) -> dict[str, Any]:
        """All fields in what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> MemStats:
        """The record that :meth:`to_json` gave."""
        rebuilt: dict[str, Any] = {
            "pause_ns": tuple(data["pause_ns"]),
            "pause_end": tuple(data["pause_end"]),
            "stop_ns": tuple(data["stop_ns"]),
            "by_size": tuple(SizeStats(**row) for row in data["by_size"]),
            "allocs_by_size": tuple(data["allocs_by_size"]),
            "frees_by_size": tuple(data["frees_by_size"]),
            "goroutines": GoroutineStats(**data["goroutines"]),
            "limiter": LimiterStats(**data["limiter"]),
            "scavenge": ScavengeStats(**data["scavenge"]),
            "repairs": RepairStats(**data["repairs"]),
            "finalizers": SpecialStats(**data["finalizers"]),
            "cleanups": SpecialStats(**data["cleanups"]),
            "pools": tuple(PoolStats(**p) for p in data["pools"]),
            "ps": tuple(PStats(**p) for p in data["ps"]),
        }
        return cls(**(data | rebuilt))

    def pause_quantile(self, q: float) -> float:
        """The pause, in seconds, that a share ``q`` of the last 512 did not exceed; 0 without pauses."""
        return _quantile(self.stop_ns[: self.stops], q)

    def cycle_pause_quantile(self, q: float) -> float:
        """The same of the last 256 cycles' pauses, each cycle's taken together."""
        return _quantile(self.pause_ns[: self.num_gc], q)


def _quantile(times_ns: tuple[int, ...], q: float) -> float:
    ordered = sorted(times_ns)
    return ordered[max(math.ceil(q * len(ordered)) - 1, 0)] / 1e9 if ordered else 0.0


def read() -> MemStats:
    """The figures of the runtime whose segments this process has mapped."""
    runtime = records.view(records.runtime_dtype, records.RUNTIME)[0]
    heap = records.view(records.mheap_dtype, records.MHEAP)[0]
    pacer = records.view(records.pacer_dtype, records.PACER)[0]
    gc = records.view(records.gcstats_dtype, records.GCSTATS)[0]
    procs, nrecords = int(runtime.nprocs), int(runtime.nrecords)
    indices = [idx for idx in (*range(nrecords), layout.COORDINATOR_P) if _has_been(idx, procs)]
    ps = [_p_record(idx) for idx in indices]
    objects = _read_objects(ps)
    now_ns = time.monotonic_ns()
    uptime_s = max(now_ns - int(runtime.start_ns), 0) / 1e9
    available_s = available_cpu_ns(runtime, now_ns) / 1e9
    pause_cpu_s = int(gc.pause_cpu_ns) / 1e9
    busy_s = pause_cpu_s + int(gc.assist_ns + gc.dedicated_ns + gc.fractional_ns) / 1e9
    memory = _read_memory(runtime, heap, objects["heap_alloc"])
    num_forced_gc, num_automatic_gc = int(gc.num_forced), int(gc.num_automatic)
    return MemStats(
        **objects,
        **memory,
        lookups=0,
        enable_gc=True,
        debug_gc=False,
        next_gc=int(goal.heap_goal()),
        last_gc=int(gc.last_gc_unix_ns),
        pause_total_ns=int(gc.pause_total_ns),
        pause_ns=tuple(gc.pause_ns.tolist()),
        pause_end=tuple(gc.pause_end_ns.tolist()),
        num_gc=num_forced_gc + num_automatic_gc,  # the coordinator's own count of all may be one ahead
        num_forced_gc=num_forced_gc,
        num_automatic_gc=num_automatic_gc,
        gc_cpu_fraction=busy_s / available_s if available_s > 0 else 0.0,
        heap_live=int(pacer.xheap_live),
        heap_marked=int(pacer.heap_marked),
        gogc=int(pacer.gc_percent),
        memory_limit=int(pacer.memory_limit),
        last_goal=int(gc.last_goal),
        last_heap_end=int(gc.heap1),
        procs=procs,
        stops=int(gc.stops),
        stop_ns=tuple(gc.stop_ns.tolist()),
        pause_max_ns=int(gc.pause_max_ns),
        stopping_total_ns=int(gc.stopping_total_ns),
        mark_assist_s=int(gc.assist_ns) / 1e9,
        mark_dedicated_s=int(gc.dedicated_ns) / 1e9,
        mark_fractional_s=int(gc.fractional_ns) / 1e9,
        mark_idle_s=int(gc.idle_ns) / 1e9,
        pause_cpu_s=pause_cpu_s,
        uptime_s=uptime_s,
        goroutines=_goroutine_stats(ps),
        limiter=_limiter_stats(),
        scavenge=_scavenge_stats(),
        repairs=read_repairs(),
        finalizers=_special_stats(ps, 0),
        cleanups=_special_stats(ps, 1),
        pools=tuple(read_pools()),
        ps=tuple(_p_stats(idx, p) for idx, p in zip(indices, ps, strict=True)),
    )


def available_cpu_ns(runtime: Any, now_ns: int) -> int:
    """CPU time that there was for programs since the start: GOMAXPROCS times the time, for each of its values (Go's sched.totaltime)."""
    return int(runtime.cpu_before_ns) + (now_ns - int(runtime.resized_ns)) * int(runtime.nprocs)


def _has_been(idx: int, procs: int) -> bool:
    """Whether there is or was a P of that number: there is room for more, whose records a process has never had."""
    return idx < procs or idx == layout.COORDINATOR_P or int(_p_record(idx).epoch) > _EPOCH_OF_NOBODY


def _p_record(idx: int) -> Any:
    return records.view(records.p_dtype, layout.PS_BASE + idx * layout.P_STRIDE)[0]


def _p_stats(idx: int, p: Any) -> PStats:
    return PStats(
        idx=idx,
        pid=int(p.xpid),
        mark_cpu_s=int(p.mark_ns + p.stand_in_ns) / 1e9,
        assist_cpu_s=int(p.assist_ns) / 1e9,
        cycle_assist_s=int(p.cycle_assist_ns) / 1e9,
        assist_debt=max(-int(p.assist_bytes), 0),
        sweep_cpu_s=int(p.sweep_ns) / 1e9,
        mutator_s=int(p.mutator_ns) / 1e9,
        idle_s=int(p.idle_ns) / 1e9,
        stopped_s=int(p.stopped_ns) / 1e9,
        stops=int(p.stops),
        resume_max_s=int(p.resume_max_ns) / 1e9,
        safepoints=int(p.safepoints),
        safepoint_s=int(p.safepoint_ns) / 1e9,
        safepoint_max_s=int(p.safepoint_max_ns) / 1e9,
        lock_wait_s=int(p.lock_wait_ns) / 1e9,
        steals=int(p.steals),
        barrier_flushes=int(p.barrier_flushes),
        refills=int(p.refills),
        programs=int(p.programs),
        stack_copies=int(p.stack_copies),
        stack_copied=int(p.stack_copied),
        deaths=int(p.crashes),
    )


def _goroutine_stats(ps: list[Any]) -> GoroutineStats:
    sched = records.view(records.sched_dtype, records.SCHED)[0]
    count = max(int(sched.ngs - sched.nfree) - sum(int(p.g_nfree + p.g_ncases) for p in ps), 0)
    queued = int(sched.xrunq_size) + sum(int(p.xrunq_tail - p.xrunq_head) + int(p.xrunnext != 0) for p in ps)
    in_python = sum(int(p.curg != 0 and p.xnative_kept != 0) for p in ps)
    running = min(sum(int(p.curg != 0) for p in ps) - in_python, count)
    in_python = min(in_python, count - running)
    runnable = min(max(queued, 0), count - running - in_python)
    python = max(sum(int(p.python_gs) for p in ps), 0)
    python_running = min(sum(int(p.python_g != 0) for p in ps), python)
    # Ids are given in blocks: a P that has just begun another has its next, and still the end of the last.
    created = int(sched.xgoids) - sum(max(int(p.goid_end - p.goid_next), 0) for p in ps)
    return GoroutineStats(
        count=count + python,
        runnable=runnable + python - python_running,
        running=running + python_running,
        waiting=count - running - runnable - in_python,
        not_in_go=in_python,
        created=created,
        record_bytes=int(sched.gs_committed),
        leaked=int(sched.leaked),
        leak_looks=int(sched.leak_looks),
    )


def _limiter_stats() -> LimiterStats:
    limiter = records.view(records.limiter_dtype, records.LIMITER)[0]
    return LimiterStats(
        active=bool(limiter.xlimiting),
        times=int(limiter.times_enabled),
        seconds=int(limiter.limited_ns) / 1e9,
        last_cycle=int(limiter.last_enabled_cycle),
    )


def _scavenge_stats() -> ScavengeStats:
    pace = records.view(records.scavpace_dtype, records.SCAVPACE)[0]
    return ScavengeStats(
        background_bytes=int(pace.xbackground_bytes),
        eager_bytes=int(pace.xeager_bytes),
        forced_bytes=int(pace.xforced_bytes),
        background_s=int(pace.xbackground_ns) / 1e9,
        eager_s=int(pace.xeager_ns) / 1e9,
    )


def _special_stats(ps: list[Any], kind: int) -> SpecialStats:
    """What is executed is read before what was queued, so that it is never more."""
    failed, executed, lost, queued = (
        sum(int(p[name][kind]) for p in ps)
        for name in ("special_failed", "special_run", "special_lost", "special_queued")
    )
    return SpecialStats(queued=queued, executed=executed, failed=failed, lost=lost)


def read_pools() -> list[PoolStats]:
    """Every pool's figures, in the order in which they were first used."""
    rt = records.view(records.runtime_dtype, records.RUNTIME)[0]
    out = []
    for pool, head in enumerate(
        records.view(records.pool_head_dtype, layout.POOL_HEADS_BASE, layout.MAX_POOLS)[
            : load_acquire(records.RT_XNPOOLS)
        ]
    ):
        ps = records.view(records.pool_dtype, layout.POOLS_BASE + pool * layout.POOL_BYTES, int(rt.nrecords))
        counts = (int(ps[name].sum()) for name in ("hits", "misses", "steals", "victim_hits", "drops", "evictions"))
        out.append(PoolStats(bytes(head.name).decode(), *counts))
    return out


def read_repairs() -> RepairStats:
    """What repairs have put right so far."""
    gc = records.view(records.gcstats_dtype, records.GCSTATS)[0]
    return RepairStats(
        count=int(gc.repairs),
        total_s=int(gc.repair_ns) / 1e9,
        last_s=int(gc.repair_last_ns) / 1e9,
        max_s=int(gc.repair_max_ns) / 1e9,
        locks=int(gc.repaired_locks),
        redos=int(gc.repaired_redos),
        spans=int(gc.repaired_spans),
        handles=int(gc.repaired_handles),
        marking=int(gc.repaired_marking),
    )


def _read_objects(ps: list[Any]) -> dict[str, Any]:
    """Everything that counts objects. Frees come first, so that no difference is ever negative."""
    small_free = _by_class(p.small_free for p in ps)
    large_free, large_free_count = _total(ps, "large_free"), _total(ps, "large_free_count")
    # Between the two halves tiny objects count once on each side, and cancel.
    tiny = _total(ps, "tiny_alloc_count")
    small_alloc = _by_class(p.small_alloc for p in ps)
    large_alloc, large_alloc_count = _total(ps, "large_alloc"), _total(ps, "large_alloc_count")

    total_alloc = large_alloc + _bytes(small_alloc, SIZES)
    allocated = total_alloc - large_free - _bytes(small_free, SIZES)
    mallocs = large_alloc_count + sum(small_alloc) + tiny
    frees = large_free_count + sum(small_free) + tiny
    return {
        "alloc": allocated,
        "heap_alloc": allocated,
        "total_alloc": total_alloc,
        "mallocs": mallocs,
        "frees": frees,
        "heap_objects": mallocs - frees,
        "tiny_allocs": tiny,
        "allocs_by_size": (*small_alloc[1:], large_alloc_count),
        "frees_by_size": (*small_free[1:], large_free_count),
        "by_size": tuple(
            SizeStats(SIZES[i], small_alloc[i] if i else 0, small_free[i] if i else 0) for i in range(BY_SIZE_CLASSES)
        ),
    }


def _read_memory(runtime: Any, heap: Any, allocated: int) -> dict[str, Any]:
    """Everything that counts pages and metadata, beside objects of so many bytes."""
    inuse, committed, released = int(heap.xheap_inuse), int(heap.xheap_committed), int(heap.xheap_released)
    free = max(committed - inuse, 0)  # they move while they are read
    stacks = min(int(records.view(records.stackpool_dtype, records.STACKPOOL)[0].xspan_bytes), committed - free)
    inuse = max(committed - free - stacks, allocated)
    free = max(committed - stacks - inuse, 0)
    mspan_sys = int(heap.metadata_pages) * records.span_dtype.itemsize
    mcache_sys = int(runtime.committed_ps) * _MCACHE_BYTES
    gc_sys = max(int(heap.xmetadata_bytes) - mspan_sys, 0) + int(heap.xwbuf_bytes)
    buck_hash_sys = _profile_bytes()
    other_sys = int(heap.xtable_bytes) - mcache_sys - buck_hash_sys
    heap_sys = inuse + free + released
    return {
        "heap_sys": heap_sys,
        "heap_idle": free + released,
        "heap_free": free,
        "heap_inuse": inuse,
        "heap_released": released,
        "stack_inuse": stacks,  # of goroutines; compiled programs run on native stacks, which are their processes' own
        "stack_sys": stacks,
        "mspan_inuse": int(heap.pages_in_use) * records.span_dtype.itemsize,
        "mspan_sys": mspan_sys,
        "mcache_inuse": int(runtime.nprocs) * _MCACHE_BYTES,
        "mcache_sys": mcache_sys,
        "buck_hash_sys": buck_hash_sys,
        "gc_sys": gc_sys,
        "other_sys": other_sys,
        "sys": heap_sys + stacks + mspan_sys + mcache_sys + buck_hash_sys + gc_sys + other_sys,
    }


def _profile_bytes() -> int:
    """The memory profile's hash table, and what is committed for its buckets."""
    made = int(load_acquire(records.MEMPROFILE_XNBUCKETS)) * layout.BUCKET_RECORD
    return layout.PROFILE_CHAINS * 8 - (-made // layout.TABLE_STEP) * layout.TABLE_STEP


def _by_class(arrays: Iterable[Any]) -> list[int]:
    return [sum(column) for column in zip(*(array.tolist() for array in arrays), strict=True)]


def _total(ps: list[Any], name: str) -> int:
    return sum(int(getattr(p, name)) for p in ps)


def _bytes(counts: list[int], sizes: Iterable[int]) -> int:
    return sum(count * size for count, size in zip(counts, sizes, strict=True))
