"""When the next cycle starts: decisions are arithmetic on the pacer's record; others act on them.

The goal is Go's since 1.18: what is marked, plus GOGC percent of it and of the stacks and globals that were scanned, at least the heap minimum,
and not beyond what the memory limit leaves for the heap. Marking stops the world, so nothing is allocated while it runs, and the trigger is
the goal itself.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.shm.atomics import load_relaxed, store_relaxed
from gomp.core.shm.records import (
    GC_OFF,
    MHEAP_XFREE,
    MHEAP_XINUSE,
    MHEAP_XMETADATA,
    MHEAP_XWBUF,
    PACER_XGOAL,
    PACER_XLIVE,
    PACER_XSCAN,
    PACER_XTRIGGER,
    RT_XPAGES_SWEPT,
    mheap,
    pacer,
    runtime,
)

NO_LIMIT = (1 << 63) - 1
NO_GOAL = (1 << 62) - 1
DEFAULT_HEAP_MINIMUM = 4 << 20
_LIMIT_HEADROOM = 1 << 20
_SWEEP_MIN_DISTANCE = 1 << 20
_PAGE = 8192


@kernel("void(int64, int64)")
def set_gc_percent(percent: int, memory_limit: int) -> None:
    """Set GOGC (-1: off) and the memory limit (NO_LIMIT: none). World: stopped, or not started yet."""
    pc = pacer()
    pc.gc_percent = max(percent, -1)
    pc.heap_minimum = DEFAULT_HEAP_MINIMUM * percent // 100 if percent >= 0 else NO_GOAL
    pc.memory_limit = memory_limit


@inline
def percent_goal(percent: int, marked: int, stacks: int, globals_: int, minimum: int) -> int:
    """The goal by GOGC in bytes (mgcpacer.go, commit; proposal 44167)."""
    if percent < 0:
        return NO_GOAL
    return max(marked + (marked + stacks + globals_) * percent // 100, minimum)


@inline
def limit_goal(limit: int, mapped: int, heap_free: int, heap_alloc: int, marked: int) -> int:
    """The goal that keeps everything mapped below ``limit`` (mgcpacer.go, memoryLimitHeapGoal; proposal 48409), in bytes."""
    nonheap = mapped - heap_free - heap_alloc
    over = max(mapped - limit, 0)
    if nonheap + over >= limit:
        return marked
    goal = limit - (nonheap + over)
    headroom = max(goal // 100 * 3, _LIMIT_HEADROOM)
    goal = headroom if goal < 2 * headroom else goal - headroom
    return max(goal, marked)


@inline
def mapped_ready() -> int:
    """Bytes that the memory limit counts: all that is mapped and has not been returned."""
    return (
        load_relaxed(MHEAP_XINUSE)
        + load_relaxed(MHEAP_XFREE)
        + load_relaxed(MHEAP_XMETADATA)
        + load_relaxed(MHEAP_XWBUF)
    )


@kernel("void()")
def commit() -> None:
    """Decide goal and trigger of the next cycle. World: stopped, or not started yet."""
    pc = pacer()
    goal = percent_goal(pc.gc_percent, pc.heap_marked, pc.last_stack_scan, pc.globals_scan, pc.heap_minimum)
    pc.gc_percent_goal = goal
    if pc.memory_limit != NO_LIMIT:
        by_limit = limit_goal(
            pc.memory_limit, mapped_ready(), load_relaxed(MHEAP_XFREE), load_relaxed(MHEAP_XINUSE), pc.heap_marked
        )
        goal = min(goal, by_limit)
    store_relaxed(PACER_XGOAL, goal)
    store_relaxed(PACER_XTRIGGER, goal)


@kernel("void(int64)")
def start_cycle(now_ns: int) -> None:
    pc = pacer()
    pc.mark_start_ns = now_ns
    pc.triggered = load_relaxed(PACER_XLIVE)
    pc.heap_scan_work = 0
    pc.stack_scan_work = 0
    pc.globals_scan_work = 0


@kernel("void(int64)")
def reset_live(marked: int) -> None:
    """After marking: what is marked is what lives (mgcpacer.go, resetLive)."""
    pc = pacer()
    pc.last_heap_goal = load_relaxed(PACER_XGOAL)
    pc.heap_marked = marked
    store_relaxed(PACER_XLIVE, marked)
    store_relaxed(PACER_XSCAN, pc.heap_scan_work)
    pc.last_heap_scan = pc.heap_scan_work
    pc.last_stack_scan = pc.stack_scan_work


@kernel("void()")
def pace_sweep() -> None:
    """So many pages swept per byte allocated that the sweep ends before the trigger (mgcsweep.go, gcPaceSweeper)."""
    rt, pc = runtime(), pacer()
    live = load_relaxed(PACER_XLIVE)
    distance = max(load_relaxed(PACER_XTRIGGER) - live - _SWEEP_MIN_DISTANCE, _PAGE)
    pages = mheap().pages_in_use - load_relaxed(RT_XPAGES_SWEPT)
    rt.sweep_ratio = float(pages) / float(distance) if pages > 0 and rt.gcphase == GC_OFF else 0.0
    rt.sweep_basis_live = live
    rt.sweep_basis_pages = load_relaxed(RT_XPAGES_SWEPT)
    pc.triggered = NO_GOAL
