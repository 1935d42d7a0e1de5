"""Giving free memory back to the system (mgcscavenge.go).

Free pages are taken as if for a span, from the highest address down, punched out of the heap's segment without the heap lock, and freed again
as released. A process that is killed in between leaves pages that belong to nothing: repair punches and frees them.
"""

from __future__ import annotations

from gomp.core.heap.accounting import mapped_ready
from gomp.core.heap.palloc import (
    free_pages_locked,
    last_committed_locked,
    lock_heap,
    take_pages_locked,
    unlock_heap,
)
from gomp.core.jit import inline, kernel
from gomp.core.sched.locks import begin_critical, end_critical
from gomp.core.sched.status import stop_requested
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_relaxed, load_relaxed
from gomp.core.shm.libc import punch_hole
from gomp.core.shm.records import LIMITER_XLIMITING, MHEAP_XCOMMITTED, MHEAP_XRELEASED, pacer, self_p


@kernel("int64(int64)")
def _scavenge_one(most: int) -> int:
    """Release up to ``most`` pages; how many. The caller is critical."""
    lock_heap()
    found = last_committed_locked(most)
    page, n = found >> 7, found & 127
    if found >= 0:
        take_pages_locked(page, n)
    unlock_heap()
    if found < 0:
        return 0
    punch_hole(self_p().heap_fd, page << layout.PAGE_SHIFT, n << layout.PAGE_SHIFT)
    lock_heap()
    free_pages_locked(page, n, 1)
    unlock_heap()
    add_relaxed(MHEAP_XCOMMITTED, -(n << layout.PAGE_SHIFT))
    add_relaxed(MHEAP_XRELEASED, n << layout.PAGE_SHIFT)
    return n


@kernel("int64(int64, int64)")
def scavenge(nbytes: int, least: int) -> int:
    """Release ``nbytes`` of free memory, if there is so much and the GC CPU limiter is not on; how much it was.

    Whoever wants to stop the world waits for ``least`` bytes of it only: a limit that was lowered by gigabytes is not one long pause.
    """
    begin_critical()
    done = 0
    while done < nbytes and load_relaxed(LIMITER_XLIMITING) == 0 and (done < least or not stop_requested()):
        n = _scavenge_one((nbytes - done + layout.PAGE_SIZE - 1) >> layout.PAGE_SHIFT)
        if n == 0:
            break
        done += n << layout.PAGE_SHIFT
    end_critical()
    return done


@inline
def make_room(nbytes: int) -> None:
    """Holds: nothing. Before ``nbytes`` are committed: release as much as they would take the runtime beyond its limit (mheap.go, allocSpan)."""
    over = mapped_ready() + nbytes - pacer().memory_limit
    if over > 0:
        scavenge(over, nbytes)
