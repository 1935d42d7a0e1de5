"""How much must be marked for each byte that is allocated meanwhile, by whom, and what the cycles say about programs and marking.

Decisions are arithmetic on the pacer's record, with time as an argument; others act on them. The formulas are Go's (mgcpacer.go; proposals
44167 and 48409), in its order of operations: replayed, they give its numbers to the last bit. Goal and trigger are in
:mod:`~gomp.core.gc.goal`.

workers   a quarter of the processors marks in the background
assists   while marking, each byte allocated is worth so many bytes of marking that the marking ends at the goal
cons/mark what programs allocate while a byte is marked: the runway that the next cycle needs
"""

from __future__ import annotations

from gomp.core.gc.goal import NO_GOAL, heap_goal, heap_minimum, percent_goal, trigger
from gomp.core.jit import inline, kernel
from gomp.core.shm.atomics import load_relaxed, store_relaxed
from gomp.core.shm.records import (
    GC_OFF,
    GC_TRIGGER_TIME,
    PACER_XASSIST_NS,
    PACER_XCREDIT,
    PACER_XDEDICATED_NEEDED,
    PACER_XDEDICATED_NS,
    PACER_XFRACTIONAL_NS,
    PACER_XGLOBALS_WORK,
    PACER_XHEAP_WORK,
    PACER_XIDLE_NS,
    PACER_XLIVE,
    PACER_XSCAN,
    PACER_XSTACK_WORK,
    RT_XGCPHASE,
    RT_XPAGES_SWEPT,
    mheap,
    pacer,
    runtime,
)

UTILIZATION = 0.25  # of all processors, for marking in the background
_UTILIZATION_ERROR = 0.3
_OVERSHOOT = 1.1
_MIN_WORK_LEFT = 1000
_SWEEP_MIN_DISTANCE = 1 << 20
_PAGE = 8192
_TOO_BIG, _LEAST = 2.0**63, -(1 << 63)
_PERCENT_OFF = 100_000  # what GOGC=off counts as where a goal is stretched


# --- settings ---------------------------------------------------------------------------------------------------------


@kernel("int64(int64)")
def set_gc_percent(percent: int) -> int:
    """Set GOGC (below 0: off), followed by :func:`commit`; what it was. World: stopped, or not started yet."""
    pc = pacer()
    before = pc.gc_percent
    pc.gc_percent = max(percent, -1)
    pc.heap_minimum = heap_minimum(percent)
    return before


@kernel("int64(int64)")
def set_memory_limit(limit: int) -> int:
    """Set the memory limit (NO_LIMIT: none), followed by :func:`commit`; what it was. World: stopped, or not started yet."""
    pc = pacer()
    before = pc.memory_limit
    pc.memory_limit = limit
    return before


@inline
def _scannable() -> int:
    """Bytes that the last cycle scanned."""
    pc = pacer()
    return pc.last_heap_scan + pc.last_stack_scan + pc.globals_scan


@kernel("void(int64)")
def commit(is_sweep_done: int) -> None:
    """Decide what goal and trigger follow from (commit). World: stopped, or not started yet."""
    pc = pacer()
    pc.sweep_dist_min_trigger = 0 if is_sweep_done else load_relaxed(PACER_XLIVE) + _SWEEP_MIN_DISTANCE
    pc.gc_percent_goal = percent_goal(
        pc.gc_percent, pc.heap_marked, pc.last_stack_scan, pc.globals_scan, pc.heap_minimum
    )
    pc.runway = int(pc.cons_mark * (1.0 - UTILIZATION) / UTILIZATION * float(_scannable()))


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
    """``now_ns``: when the stop that begins the cycle was asked for. World: stopped; how much stacks and globals hold is known."""
    pc = pacer()
    for word in (PACER_XASSIST_NS, PACER_XDEDICATED_NS, PACER_XFRACTIONAL_NS, PACER_XIDLE_NS):
        store_relaxed(word, 0)
    pc.mark_start_ns = now_ns
    pc.triggered = load_relaxed(PACER_XLIVE)
    store_relaxed(PACER_XDEDICATED_NEEDED, dedicated_workers(procs))
    pc.fractional_goal = fractional_share(procs)
    pc.max_idle = max_idle_workers(procs, kind)
    _reset_work()


@kernel("void()")
def restart_cycle() -> None:
    """The cycle that is on has lost what it had scanned. World: stopped.

    It has as far to go as at its start and gets as much heap to go it: assists would else have to make up for what was lost, at once.
    """
    pc = pacer()
    live = load_relaxed(PACER_XLIVE)
    if pc.gc_percent_goal != NO_GOAL:
        pc.gc_percent_goal += live - pc.triggered
    pc.triggered = live
    _reset_work()


@inline
def _reset_work() -> None:
    for word in (PACER_XHEAP_WORK, PACER_XSTACK_WORK, PACER_XGLOBALS_WORK, PACER_XCREDIT):
        store_relaxed(word, 0)
    revise()


@inline
def scan_work_done() -> int:
    return load_relaxed(PACER_XHEAP_WORK) + load_relaxed(PACER_XSTACK_WORK) + load_relaxed(PACER_XGLOBALS_WORK)


@inline
def _truncate(x: float) -> int:
    """As an integer; one that is too big becomes the least, as on Go's processors."""
    return int(x) if abs(x) < _TOO_BIG else _LEAST


@kernel("void()")
def revise() -> None:
    """Set what an allocated byte costs in marking (revise). Called by everybody who moves xheap_live while the heap is marked.

    Two may do it at once: what they store differs by what happened between them, and the next one is near.
    """
    pc = pacer()
    percent = pc.gc_percent if pc.gc_percent >= 0 else _PERCENT_OFF
    live, work, goal = load_relaxed(PACER_XLIVE), scan_work_done(), heap_goal()
    expected = max(_scannable(), 1)
    most = load_relaxed(PACER_XSCAN) + pc.max_stack_scan + pc.globals_scan
    if work > expected:
        extended = _truncate(float(goal - pc.triggered) / float(expected) * float(most)) + pc.triggered
        goal = min(extended, _truncate((1.0 + float(percent) / 100.0) * float(goal)))
        expected = most
    if live > goal:
        goal = _truncate(float(goal) * _OVERSHOOT)
        expected = most
    left = float(max(expected - work, _MIN_WORK_LEFT))
    distance = float(max(goal - live, 1))
    pc.assist_work_per_byte = left / distance
    pc.assist_bytes_per_work = distance / left


@kernel("void(int64, int64)")
def end_cycle(now_ns: int, procs: int) -> None:
    """Measure what was allocated for what was marked (endCycle). ``now_ns``: when the marking ended. World: stopped."""
    pc = pacer()
    pc.last_heap_goal = heap_goal()
    live, work = load_relaxed(PACER_XLIVE), scan_work_done()
    if live <= pc.triggered or work <= 0:
        return
    cpu = float((now_ns - pc.mark_start_ns) * procs)
    utilization, idle = UTILIZATION, 0.0
    if cpu > 0.0:
        utilization += float(load_relaxed(PACER_XASSIST_NS)) / cpu
        idle = float(load_relaxed(PACER_XIDLE_NS)) / cpu
    current = (float(live - pc.triggered) * (utilization + idle)) / (float(work) * (1.0 - utilization))
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
    distance = max(trigger() - live - _SWEEP_MIN_DISTANCE, _PAGE)
    pages = mheap().pages_in_use - load_relaxed(RT_XPAGES_SWEPT)
    is_off = load_relaxed(RT_XGCPHASE) == GC_OFF
    rt.sweep_ratio = float(pages) / float(distance) if pages > 0 and is_off else 0.0
    rt.sweep_basis_live = live
    rt.sweep_basis_pages = load_relaxed(RT_XPAGES_SWEPT)
