"""One reading of the runtime, for the live page and ``gomp top``: the figures that they show, in what JSON can hold.

Sizes are in bytes, points in time in ms of Unix time, CPU times in ns. ``None`` stands for a limit or a goal that there is none of.
"""

from __future__ import annotations

import time
from typing import Any

from gomp.cgroup import MemoryCgroup
from gomp.config import NO_LIMIT
from gomp.core.gc import goal
from gomp.core.shm import layout, records
from gomp.runtime import cyclelog, memstats, residency, steady
from gomp.runtime.memstats import MemStats, PStats


def read(doing: list[str], heap_fd: int, cgroup: MemoryCgroup) -> dict[str, Any]:
    """The figures of now, with what each P did since the last: ``doing`` has a text of :func:`gomp.runtime.doing.look` for each look.

    ``heap_fd`` is the heap's segment, ``cgroup`` the runtime's.
    """
    runtime = records.view(records.runtime_dtype, records.RUNTIME)[0]
    # Before what is in use: what a program takes meanwhile does not linger.
    resident = residency.resident_bytes(heap_fd) if runtime.scavenge_lazily else 0
    stats = memstats.read()
    max_heap = _max_heap(runtime)
    return {
        "now": steady.unix_ms(),
        "uptime_s": stats.uptime_s,
        "state": _state(runtime),
        "settings": {
            "gogc": None if stats.gogc < 0 else stats.gogc,
            "memory_limit": _or_none(stats.memory_limit, NO_LIMIT - 1),
            "memory_limit_is_auto": bool(runtime.limit_is_auto),
            "procs": stats.procs,
            "procs_are_auto": bool(runtime.procs_are_auto),
        },
        "heap": {
            "live": stats.heap_live,
            "goal": _or_none(stats.next_gc, max_heap),
            "trigger": _or_none(int(goal.trigger()), max_heap),
            "marked": stats.heap_marked,
            "objects": stats.heap_objects,
            "allocated": stats.total_alloc,
            "mallocs": stats.mallocs,
        },
        "memory": _memory(stats) | {"lingering": _lingering(stats, resident)},
        "container": _container(cgroup),
        "cycles": {"count": stats.num_gc, "forced": stats.num_forced_gc, "is_limited": stats.limiter.active},
        "cpu": _cpu(stats, runtime),
        "pauses": {"p50_s": stats.pause_p50_s, "p99_s": stats.pause_p99_s, "max_s": stats.pause_max_s},
        "goroutines": stats.goroutines.count,
        "ps": [_p(p, doing) for p in stats.ps if p.pid],
    }


def _state(runtime: Any) -> str:
    if runtime.xshutdown:
        return "ending"
    if not runtime.xready:
        return "starting"
    if runtime.xstop:
        return "stopped"
    return "marking" if runtime.xgcphase != records.GC_OFF else "running"


def _max_heap(runtime: Any) -> int:
    """A goal above it is none: it cannot be reached."""
    return int(runtime.max_pages) * layout.PAGE_SIZE


def _or_none(size: int, most: int) -> int | None:
    return size if size <= most else None


def _memory(stats: MemStats) -> dict[str, int]:
    """What the memory limit counts, by class, and what does not: released. Objects include those that died and are not swept yet."""
    return {
        "objects": stats.heap_alloc,
        "unused": stats.heap_inuse - stats.heap_alloc,
        "stacks": stats.stack_inuse,
        "free": stats.heap_free,
        "metadata": stats.mapped - stats.heap_inuse - stats.stack_inuse - stats.heap_free,
        "mapped": stats.mapped,
        "released": stats.heap_released,
    }


def _lingering(stats: MemStats, resident: int) -> int:
    """What of the released is ``resident`` still, as nobody has needed it: lazy return (GODEBUG madvdontneed=0)."""
    kept = stats.heap_inuse + stats.stack_inuse + stats.heap_free
    return min(max(resident - kept, 0), stats.heap_released)


def _container(cgroup: MemoryCgroup) -> dict[str, int | None] | None:
    """What the cgroup with the strictest limit is charged, and that; None where there is no limit."""
    strictest = cgroup.strictest()
    return {"usage": strictest.usage(), "limit": strictest.limit()} if strictest else None


def _cpu(stats: MemStats, runtime: Any) -> dict[str, int]:
    """CPU time so far by what it went to, that of the cycle that is on included, and what there was of it. In a pause, when a cycle's time is being
    added to the totals, it is left out; so what has been told may be more than what is told next."""
    running = records.view(records.pacer_dtype, records.PACER)[0]
    is_on = int(runtime.xgcphase != records.GC_OFF and not runtime.xstop)
    return {
        "assists": int(stats.mark_assist_s * 1e9) + is_on * int(running.xassist_ns),
        "background": int((stats.mark_dedicated_s + stats.mark_fractional_s) * 1e9)
        + is_on * int(running.xdedicated_ns + running.xfractional_ns),
        "idle": int(stats.mark_idle_s * 1e9) + is_on * int(running.xidle_ns),
        "pauses": int(stats.pause_cpu_s * 1e9),
        "sweeping": int(sum(p.sweep_cpu_s for p in stats.ps) * 1e9),
        "returning": int((stats.scavenge.background_s + stats.scavenge.eager_s) * 1e9),
        "available": memstats.available_cpu_ns(runtime, time.monotonic_ns()),
    }


def _p(p: PStats, doing: list[str]) -> dict[str, Any]:
    is_coordinator = p.idx == layout.COORDINATOR_P
    place = -1 if is_coordinator else p.idx
    return {
        "name": "coordinator" if is_coordinator else f"P{p.idx}",
        "pid": p.pid,
        "did": "".join(look[place] for look in doing if is_coordinator or p.idx < len(look) - 1),
        "mark_s": p.mark_cpu_s,
        "assist_s": p.assist_cpu_s,
        "sweep_s": p.sweep_cpu_s,
        "stopped_s": p.stopped_s,
        "programs": p.programs,
        "deaths": p.deaths,
    }


def read_cycles(after: int) -> list[dict[str, Any]]:
    """The cycles that have ended since number ``after``, as far as they are kept."""
    max_heap = _max_heap(records.view(records.runtime_dtype, records.RUNTIME)[0])
    return [_cycle(cycle, max_heap) for cycle in cyclelog.read(after)]


def _cycle(cycle: cyclelog.CycleRecord, max_heap: int) -> dict[str, Any]:
    start, mark, term, end = (
        round(steady.unix_ms(ns), 3) for ns in (cycle.start_ns, cycle.mark_ns, cycle.term_ns, cycle.end_ns)
    )
    return {
        "number": cycle.number,
        "start": start,
        "mark": mark,
        "term": term,
        "end": end,
        "pause_ns": cycle.pause_ns,
        "forced": bool(cycle.forced),
        "heap_start": cycle.heap_start,
        "heap_end": cycle.heap_end,
        "heap_marked": cycle.heap_marked,
        "goal": _or_none(cycle.goal, max_heap),
        "assist_ns": cycle.assist_ns,
        "background_ns": cycle.dedicated_ns + cycle.fractional_ns,
        "idle_ns": cycle.idle_ns,
    }
