"""Where the heap should end in this cycle, and where the next one starts.

goal      what is marked, plus GOGC percent of it and of the stacks and globals that were scanned, at least the heap minimum; not beyond
          what the memory limit leaves for the heap
trigger   so far below the goal that marking ends before it is reached: by the runway, which is what programs allocate, by the measure of the
          last cycles, in the time that it takes to mark

Both are worked out whenever they are asked for, as in Go: they move with what is mapped, free and allocated (mgcpacer.go, heapGoalInternal,
memoryLimitHeapGoal, trigger).
"""

from __future__ import annotations

from gomp.core.heap.accounting import heap_free, mapped_ready
from gomp.core.jit import inline, kernel
from gomp.core.shm.atomics import load_relaxed
from gomp.core.shm.records import (
    MHEAP_XALLOC,
    pacer,
)

NO_LIMIT = (1 << 63) - 1
NO_GOAL = (1 << 63) - 1  # none: above every goal, that of NO_LIMIT among them
DEFAULT_HEAP_MINIMUM = 4 << 20
_HEAP_MINIMUM_OFF = ((1 << 64) - DEFAULT_HEAP_MINIMUM) // 100
_MIN_RUNWAY = 64 << 10
_LIMIT_HEADROOM = 1 << 20
_TRIES = 100  # at counters that agree; Go tries for ever, but here who moves them may be stopped in between


# --- what the limit leaves ---------------------------------------------------------------------------------------------


@kernel("int64()")
def memory_limit_goal() -> int:
    """The goal that keeps what is mapped below the memory limit, in bytes."""
    pc = pacer()
    free, allocated, mapped = heap_free(), load_relaxed(MHEAP_XALLOC), mapped_ready()
    tries = 0
    while free + allocated > mapped and tries < _TRIES:  # read while they moved
        free, allocated, mapped = heap_free(), load_relaxed(MHEAP_XALLOC), mapped_ready()
        tries += 1
    free = min(free, max(mapped - allocated, 0))
    return limit_goal(pc.memory_limit, mapped, free, allocated, pc.heap_marked)


@inline
def limit_goal(limit: int, mapped: int, free: int, heap_alloc: int, marked: int) -> int:
    """What the limit leaves beside memory that is no heap, less 3 percent for what that grows to meanwhile."""
    nonheap = mapped - free - heap_alloc
    over = max(mapped - limit, 0)
    if nonheap + over >= limit:
        return marked
    goal = limit - (nonheap + over)
    headroom = max(goal // 100 * 3, _LIMIT_HEADROOM)
    goal = headroom if goal < 2 * headroom else goal - headroom
    return max(goal, marked)


# --- goal -------------------------------------------------------------------------------------------------------------


@inline
def heap_minimum(percent: int) -> int:
    """The least goal by GOGC. (Off, it is a number that means nothing: Go's, to the byte.)"""
    if percent < 0:
        return _HEAP_MINIMUM_OFF
    return DEFAULT_HEAP_MINIMUM * percent // 100


@inline
def percent_goal(percent: int, marked: int, stacks: int, globals_: int, minimum: int) -> int:
    """The goal by GOGC in bytes (commit)."""
    if percent < 0:
        return NO_GOAL
    return max(marked + (marked + stacks + globals_) * percent // 100, minimum)


@inline
def goal_and_min_trigger() -> tuple[int, int]:
    """The goal, and below what no cycle starts."""
    pc = pacer()
    goal = pc.gc_percent_goal
    if goal == NO_GOAL or pc.memory_limit != NO_LIMIT:  # a limit that there is none of is far above every other goal
        by_limit = memory_limit_goal()
        if by_limit < goal:
            return by_limit, 0
    goal = max(goal, pc.sweep_dist_min_trigger)
    if pc.triggered != NO_GOAL:
        goal = max(goal, pc.triggered + _MIN_RUNWAY)
    return goal, pc.sweep_dist_min_trigger


@kernel("int64()")
def min_trigger() -> int:
    """Below this no cycle starts, in bytes."""
    return goal_and_min_trigger()[1]


@kernel("int64()")
def heap_goal() -> int:
    """Where the heap should end in this cycle, in bytes."""
    return goal_and_min_trigger()[0]


# --- trigger ----------------------------------------------------------------------------------------------------------


@inline
def trigger_for(goal: int, min_trigger: int, marked: int, runway: int) -> int:
    """Heap in bytes at which a cycle with this goal starts: at 70 to 95 percent of the way from what is marked to the goal."""
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


@kernel("int64()")
def trigger() -> int:
    """Heap in bytes at which the next cycle starts."""
    goal, min_trigger = goal_and_min_trigger()
    return trigger_for(goal, min_trigger, pacer().heap_marked, pacer().runway)
