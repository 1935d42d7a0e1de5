"""The last cycles, one by one: what the coordinator has written down at the end of each, for who comes later and wants more than totals.

There is room for CYCLES_KEPT. The writer does not wait for readers, and overwrites the oldest before it counts the new one; so what is read is
believed only if that one was still among the kept when the reading was over, the one that may be in the middle of being written counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from gomp.core.shm.atomics import load_acquire
from gomp.core.shm.records import CYCLES, CYCLES_KEPT, GCSTATS_NUM_GC, cycle_dtype, view
from gomp.core.shm.seqlock import load_after_reads


@dataclass(frozen=True)
class CycleRecord:
    """One finished cycle. Times in ns, by the monotonic clock where they are points; sizes in bytes."""

    number: int  # from 1
    start_ns: int  # the first stop was asked for
    mark_ns: int  # marking began
    term_ns: int  # and ended
    end_ns: int
    pause_ns: int  # all its pauses
    forced: int  # 1: somebody asked for it
    procs: int
    heap_start: int
    heap_end: int  # when marking ended
    heap_marked: int
    goal: int  # that it was to end at
    assist_ns: int  # CPU time by who marked
    dedicated_ns: int
    fractional_ns: int
    idle_ns: int


def read(after: int = 0) -> list[CycleRecord]:
    """The cycles above number ``after`` that are kept, the oldest first."""
    before = load_acquire(GCSTATS_NUM_GC)
    if before == after:
        return []
    found = view(cycle_dtype, CYCLES, CYCLES_KEPT).copy()
    now = load_after_reads(GCSTATS_NUM_GC)
    first = max(now + 2 - CYCLES_KEPT, after + 1, 1)
    names = cycle_dtype.names or ()
    return [
        CycleRecord(**dict(zip(names, found[number % CYCLES_KEPT].item(), strict=True)))
        for number in range(first, before + 1)
    ]
