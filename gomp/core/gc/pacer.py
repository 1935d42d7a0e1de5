"""When a cycle starts, how much must be marked for each byte that is allocated meanwhile, and where the heap should end.

Decisions are arithmetic on the pacer's record, with time as an argument; others act on them. The formulas are Go's (mgcpacer.go; proposals
44167 and 48409).

goal      what is marked, plus GOGC percent of it and of the stacks and globals that were scanned, at least the heap minimum; not beyond
          what the memory limit leaves for the heap
trigger   where the next cycle starts, so far below the goal that marking ends before it is reached: by the runway, which is what programs
          allocated, by the measure of the last cycles, in the time that it takes to mark (cons/mark)
assists   while marking, each byte allocated is worth so many bytes of marking that the marking ends at the goal
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.shm.atomics import load_relaxed, store_relaxed
from gomp.core.shm.records import (
    GC_OFF,
    GC_TRIGGER_TIME,
    MHEAP_XFREE,
    MHEAP_XINUSE,
    MHEAP_XMETADATA,
    MHEAP_XWBUF,
    PACER_XASSIST_NS,
    PACER_XCREDIT,
    PACER_XDEDICATED_NEEDED,
    PACER_XDEDICATED_NS,
    PACER_XFRACTIONAL_NS,
    PACER_XGLOBALS_WORK,
    PACER_XGOAL,
    PACER_XHEAP_WORK,
    PACER_XIDLE_NS,
    PACER_XLIVE,
    PACER_XSCAN,
    PACER_XSTACK_WORK,
    PACER_XTRIGGER,
    RT_XGCPHASE,
    RT_XPAGES_SWEPT,
    mheap,
    pacer,
    runtime,
)

NO_LIMIT = (1 << 63) - 1
NO_GOAL = (1 << 62) - 1
DEFAULT_HEAP_MINIMUM = 4 << 20
UTILIZATION = 0.25  # of all processors, for marking in the background
_UTILIZATION_ERROR = 0.3
_OVERSHOOT = 1.1
_MIN_RUNWAY = 64 << 10
_MIN_WORK_LEFT = 1000
_LIMIT_HEADROOM = 1 << 20
_SWEEP_MIN_DISTANCE = 1 << 20
_PAGE = 8192
_GLOBAL_BYTES = 8  # of a root: its reference


@kernel("void(int64, int64)")
def set_gc_percent(percent: int, memory_limit: int) -> None:
    """Set GOGC (-1: off) and the memory limit (NO_LIMIT: none). World: stopped, or not started yet."""
    pc = pacer()
    pc.gc_percent = max(percent, -1)
    pc.heap_minimum = DEFAULT_HEAP_MINIMUM * percent // 100 if percent >= 0 else NO_GOAL
    pc.memory_limit = memory_limit


# --- goal and trigger -------------------------------------------------------------------------------------------------


@inline
def percent_goal(percent: int, marked: int, stacks: int, globals_: int, minimum: int) -> int:
    """The goal by GOGC in bytes (commit)."""
    if percent < 0:
        return NO_GOAL
    return max(marked + (marked + stacks + globals_) * percent // 100, minimum)


@inline
def limit_goal(limit: int, mapped: int, heap_free: int, heap_alloc: int, marked: int) -> int:
    """The goal that keeps everything mapped below ``limit`` (memoryLimitHeapGoal), in bytes."""
    nonheap = mapped - heap_free - heap_alloc
    over = max(mapped - limit, 0)
    if nonheap + over >= limit:
        return marked
    goal = limit - (nonheap + over)
    headroom = max(goal // 100 * 3, _LIMIT_HEADROOM)
    goal = headroom if goal < 2 * headroom else goal - headroom
    return max(goal, marked)


@inline
def trigger_for(goal: int, min_trigger: int, marked: int, runway: int) -> int:
    """Heap in bytes at which a cycle with this goal starts (trigger): at 70 to 95 percent of the way from what is marked to the goal."""
    if marked >= goal:
        return goal
    step = (goal - marked) // 64
    lowest = max(min_trigger, marked, step * 45 + marked)
    highest = step * 61 + marked
    if goal > DEFAULT_HEAP_MINIMUM:
        highest = max(highest, goal - DEFAULT_HEAP_MINIMUM)
    highest = max(highest, lowest)
    trigger = lowest if runway > goal else goal - runway
    return min(max(trigger, lowest), highest)


@inline
def mapped_ready() -> int:
    """Bytes that the memory limit counts: all that is mapped and has not been returned."""
    return (
        load_relaxed(MHEAP_XINUSE)
        + load_relaxed(MHEAP_XFREE)
        + load_relaxed(MHEAP_XMETADATA)
        + load_relaxed(MHEAP_XWBUF)
    )


@inline
def _scannable() -> int:
    """Bytes that the last cycle scanned."""
    pc = pacer()
    return pc.last_heap_scan + pc.last_stack_scan + pc.globals_scan


@kernel("void(int64)")
def commit(is_sweep_done: int) -> None:
    """Decide goal and trigger of the next cycle. World: stopped, or not started yet."""
    pc = pacer()
    live = load_relaxed(PACER_XLIVE)
    pc.globals_scan = _GLOBAL_BYTES * runtime().nglobals
    pc.sweep_dist_min_trigger = 0 if is_sweep_done else live + _SWEEP_MIN_DISTANCE
    goal = percent_goal(pc.gc_percent, pc.heap_marked, pc.last_stack_scan, pc.globals_scan, pc.heap_minimum)
    pc.gc_percent_goal = goal
    pc.runway = int(pc.cons_mark * (1.0 - UTILIZATION) / UTILIZATION * float(_scannable()))
    by_limit = NO_GOAL
    if pc.memory_limit != NO_LIMIT:
        by_limit = limit_goal(
            pc.memory_limit, mapped_ready(), load_relaxed(MHEAP_XFREE), load_relaxed(MHEAP_XINUSE), pc.heap_marked
        )
    min_trigger = 0
    if by_limit < goal:
        goal = by_limit
    else:
        goal = max(goal, pc.sweep_dist_min_trigger)
        min_trigger = pc.sweep_dist_min_trigger
    store_relaxed(PACER_XGOAL, goal)
    store_relaxed(PACER_XTRIGGER, trigger_for(goal, min_trigger, pc.heap_marked, pc.runway))


# --- a cycle ----------------------------------------------------------------------------------------------------------


@inline
def dedicated_workers(procs: int) -> int:
    """How many Ps do nothing but mark (startCycle): a quarter of them, as near as whole ones come to it and not above by more than 30%."""
    wanted = float(procs) * UTILIZATION
    n = int(wanted + 0.5)
    if float(n) > wanted and float(n) / wanted - 1.0 > _UTILIZATION_ERROR:
        n -= 1
    return n


@inline
def fractional_share(procs: int) -> float:
    """The share of its time that each P marks beside the dedicated ones, when these are too few."""
    wanted = float(procs) * UTILIZATION
    n = float(dedicated_workers(procs))
    if abs(n / wanted - 1.0) <= _UTILIZATION_ERROR:
        return 0.0
    return (wanted - n) / float(procs)


@inline
def max_idle_workers(procs: int, kind: int) -> int:
    """How many idle Ps may mark: all but the dedicated workers; in a cycle that only the clock asked for, at most one worker in all."""
    n = dedicated_workers(procs)
    if kind == GC_TRIGGER_TIME:
        return 0 if n > 0 else 1
    return procs - n


@kernel("void(int64, int64, int64)")
def start_cycle(now_ns: int, procs: int, kind: int) -> None:
    """``now_ns``: when the stop that begins the cycle was asked for. World: stopped."""
    pc = pacer()
    for word in (PACER_XASSIST_NS, PACER_XDEDICATED_NS, PACER_XFRACTIONAL_NS, PACER_XIDLE_NS):
        store_relaxed(word, 0)
    pc.mark_start_ns = now_ns
    pc.triggered = load_relaxed(PACER_XLIVE)
    store_relaxed(PACER_XDEDICATED_NEEDED, dedicated_workers(procs))
    pc.fractional_goal = fractional_share(procs)
    pc.max_idle = max_idle_workers(procs, kind)
    _raise_goal(pc.triggered + _MIN_RUNWAY)
    _reset_work()


@kernel("void()")
def restart_cycle() -> None:
    """The cycle that is on has lost what it had scanned. World: stopped.

    It has as far to go as at its start and gets as much heap to go it: assists would else have to make up for what was lost, at once.
    """
    pc = pacer()
    runway = max(load_relaxed(PACER_XGOAL) - pc.triggered, 0)
    pc.triggered = load_relaxed(PACER_XLIVE)
    _raise_goal(pc.triggered + runway)
    _reset_work()


@inline
def _raise_goal(goal: int) -> None:
    """To at least ``goal``, unless it is the memory limit that has set it."""
    pc = pacer()
    if pc.memory_limit == NO_LIMIT or load_relaxed(PACER_XGOAL) >= pc.gc_percent_goal:
        store_relaxed(PACER_XGOAL, max(load_relaxed(PACER_XGOAL), goal))


@inline
def _reset_work() -> None:
    for word in (PACER_XHEAP_WORK, PACER_XSTACK_WORK, PACER_XGLOBALS_WORK, PACER_XCREDIT):
        store_relaxed(word, 0)
    revise()


@inline
def scan_work_done() -> int:
    return load_relaxed(PACER_XHEAP_WORK) + load_relaxed(PACER_XSTACK_WORK) + load_relaxed(PACER_XGLOBALS_WORK)


@kernel("void()")
def revise() -> None:
    """Set what an allocated byte costs in marking (revise). Called by everybody who moves xheap_live while the heap is marked.

    Two may do it at once: what they store differs by what happened between them, and the next one is near.
    """
    pc = pacer()
    percent = pc.gc_percent if pc.gc_percent >= 0 else 100_000
    live, work, goal = load_relaxed(PACER_XLIVE), scan_work_done(), load_relaxed(PACER_XGOAL)
    expected = max(_scannable(), 1)
    most = load_relaxed(PACER_XSCAN) + pc.max_stack_scan + pc.globals_scan
    if work > expected:
        extended = int(float(goal - pc.triggered) / float(expected) * float(most)) + pc.triggered
        goal = min(extended, int((1.0 + float(percent) / 100.0) * float(goal)))
        expected = most
    if live > goal:
        goal = int(float(goal) * _OVERSHOOT)
        expected = most
    left = float(max(expected - work, _MIN_WORK_LEFT))
    distance = float(max(goal - live, 1))
    pc.assist_work_per_byte = left / distance
    pc.assist_bytes_per_work = distance / left


@kernel("void(int64, int64)")
def end_cycle(now_ns: int, procs: int) -> None:
    """Measure what was allocated for what was marked (endCycle). ``now_ns``: when the marking ended. World: stopped."""
    pc = pacer()
    pc.last_heap_goal = load_relaxed(PACER_XGOAL)
    live, work = load_relaxed(PACER_XLIVE), scan_work_done()
    if live <= pc.triggered or work <= 0:
        return
    cpu = float((now_ns - pc.mark_start_ns) * procs)
    utilization, idle = UTILIZATION, 0.0
    if cpu > 0.0:
        utilization += float(load_relaxed(PACER_XASSIST_NS)) / cpu
        idle = float(load_relaxed(PACER_XIDLE_NS)) / cpu
    current = float(live - pc.triggered) * (utilization + idle) / (float(work) * max(1.0 - utilization, 0.01))
    pc.cons_mark = current
    for i in range(4):
        pc.cons_mark = max(pc.cons_mark, pc.last_cons_mark[i])
    for i in range(3):
        pc.last_cons_mark[i] = pc.last_cons_mark[i + 1]
    pc.last_cons_mark[3] = current


@kernel("void(int64)")
def reset_live(marked: int) -> None:
    """After marking: what is marked is what lives (resetLive)."""
    pc = pacer()
    pc.heap_marked = marked
    store_relaxed(PACER_XLIVE, marked)
    pc.last_heap_scan = load_relaxed(PACER_XHEAP_WORK)
    store_relaxed(PACER_XSCAN, pc.last_heap_scan)
    pc.last_stack_scan = load_relaxed(PACER_XSTACK_WORK)
    pc.max_stack_scan = pc.last_stack_scan
    pc.triggered = NO_GOAL


@kernel("void()")
def pace_sweep() -> None:
    """So many pages swept per byte allocated that the sweep ends before the trigger (mgcsweep.go, gcPaceSweeper)."""
    rt = runtime()
    live = load_relaxed(PACER_XLIVE)
    distance = max(load_relaxed(PACER_XTRIGGER) - live - _SWEEP_MIN_DISTANCE, _PAGE)
    pages = mheap().pages_in_use - load_relaxed(RT_XPAGES_SWEPT)
    is_off = load_relaxed(RT_XGCPHASE) == GC_OFF
    rt.sweep_ratio = float(pages) / float(distance) if pages > 0 and is_off else 0.0
    rt.sweep_basis_live = live
    rt.sweep_basis_pages = load_relaxed(RT_XPAGES_SWEPT)
