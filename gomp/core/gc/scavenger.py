"""The background scavenger: what the coordinator does to give memory back, a millisecond at a time (mgcscavenge.go, scavengerState.run).

1. When a cycle's marking ends, a new generation begins and goals are set, with the world stopped.
2. When its sweep is over, the coordinator works towards them, and sleeps, as :mod:`~gomp.core.gc.scavpace` says.
"""

from __future__ import annotations

from gomp.core.gc.goal import heap_goal
from gomp.core.gc.scavpace import MIN_WORK_NS, NOTHING_TO_DO, QUANTUM, gc_percent_goal, memory_limit_goal, work_of
from gomp.core.heap.accounting import heap_in_use, heap_retained, mapped_ready
from gomp.core.heap.palloc import lock_heap, unlock_heap
from gomp.core.heap.scavenge import ALWAYS, scavenge
from gomp.core.heap.scavindex import next_generation_locked
from gomp.core.jit import inline, kernel
from gomp.core.shm.atomics import add_relaxed
from gomp.core.shm.libc import cputime, nanotime
from gomp.core.shm.records import (
    SCAV_XBACKGROUND,
    SCAV_XBACKGROUND_NS,
    SCAV_XFORCED,
    pacer,
    runtime,
    scavpace,
)

_OS_PAGE = 4096
# Go's quantum is 64 KiB of its own mapping. A hole in a file that several processes map costs per page half as much if it is four times as long.
_BATCH = 4 * QUANTUM
# What is returned may be wanted again, which costs programs more than it has cost here: the hundredth of the time is to cover some of that, too.
# Not where the memory limit wants it back.
_COUNTED = 2.0
_STOPPED_NS = 10_000_000  # far more than a piece takes


@kernel("void()")
def end_generation_stw() -> None:
    """Marking has ended, and nothing is swept yet. World: stopped, which no holder of the heap lock is."""
    lock_heap()
    next_generation_locked()
    unlock_heap()
    scavpace().last_in_use = heap_in_use()


@kernel("void()")
def set_goals_stw() -> None:
    """After the pacer has settled (gcPaceScavenger). World: stopped."""
    s, pc = scavpace(), pacer()
    if runtime().keep_free:
        s.memory_limit_goal = s.gc_percent_goal = NOTHING_TO_DO
        return
    s.memory_limit_goal = memory_limit_goal(pc.memory_limit, mapped_ready())
    s.gc_percent_goal = gc_percent_goal(heap_goal(), pc.last_heap_goal, s.last_in_use, heap_retained(), _OS_PAGE)


@inline
def _is_at_goals() -> bool:
    s = scavpace()
    return heap_retained() <= s.gc_percent_goal and mapped_ready() <= s.memory_limit_goal


@kernel("int64()")
def work() -> int:
    """A millisecond of it or two, if there is so much to do: the bytes released, and in ``worked_ns`` what it counts as.

    That is the clock's time, as in Go, but of a process that was stopped in the middle its own: it would not return anything for hours.
    """
    s = scavpace()
    s.worked_ns = 0.0
    released = 0
    began = cputime()
    while s.worked_ns < _COUNTED * MIN_WORK_NS and not _is_at_goals():
        counted = 1.0 if mapped_ready() > s.memory_limit_goal else _COUNTED
        at, of_its_own = nanotime(), cputime()
        n = scavenge(_BATCH, _BATCH, 0, ALWAYS)
        took = nanotime() - at
        if took > _STOPPED_NS:
            took = cputime() - of_its_own
        s.worked_ns += counted * work_of(n, took, _OS_PAGE)
        released += n
        if n < _BATCH:
            break
    add_relaxed(SCAV_XBACKGROUND, released)
    add_relaxed(SCAV_XBACKGROUND_NS, cputime() - began)
    return released


@kernel("int64(int64)")
def release_some(deadline_ns: int) -> int:
    """Of everything that is free, as much as goes until then, and a piece of it in any case: the bytes released; 0 when there is nothing left."""
    released, n = 0, _BATCH
    while n > 0 and (released == 0 or nanotime() < deadline_ns):
        n = scavenge(_BATCH, _BATCH, 1, ALWAYS)
        released += n
    add_relaxed(SCAV_XFORCED, released)
    return released
