"""Giving free memory back to the system (mgcscavenge.go).

Pages are chosen by :mod:`~gomp.core.heap.scavindex`, taken as if for a span, punched out of the heap's segment without the heap lock, and freed
again as released. A process that is killed in between leaves pages that belong to nothing: repair punches and frees them. Lazily, they only count
as released (:mod:`~gomp.core.heap.lazyscav`).

Two who want memory back: the background scavenger (:mod:`~gomp.core.gc.scavenger`), and whoever is about to commit memory that takes the
runtime beyond its limit, or that has made the heap grow beyond what it may retain.
"""

from __future__ import annotations

from gomp.core.heap.accounting import heap_retained, mapped_ready
from gomp.core.heap.lazyscav import release_lazily_locked
from gomp.core.heap.palloc import borrow_pages_locked, lock_heap, return_pages_locked, unlock_heap
from gomp.core.heap.punch import punch
from gomp.core.heap.scavindex import choose_locked
from gomp.core.jit import inline, kernel
from gomp.core.sched.locks import begin_critical, end_critical
from gomp.core.sched.status import stop_requested
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_relaxed, load_relaxed
from gomp.core.shm.commit import return_budget
from gomp.core.shm.libc import nanotime
from gomp.core.shm.records import (
    LIMITER_XASSIST,
    LIMITER_XLIMITING,
    MHEAP_XCOMMITTED,
    MHEAP_XRELEASED,
    P_XEVENT,
    SCAV_XEAGER,
    SCAV_XEAGER_NS,
    TRACE_SCAVENGED,
    pacer,
    runtime,
    scavpace,
)
from gomp.core.shm.tracing import is_tracing, tell

ALWAYS, UNLESS_LIMITED = 0, 1


@kernel("int64(int64, int64)")
def _scavenge_one(most: int, force: int) -> int:
    """Release about ``most`` pages, and those in a row; how many. The caller is critical."""
    is_lazy = runtime().scavenge_lazily != 0
    lock_heap()
    page, n = choose_locked(most, force)
    if page >= 0 and is_lazy:
        release_lazily_locked(page, n)
    elif page >= 0:
        borrow_pages_locked(page, n)
    unlock_heap()
    if page < 0:
        return 0
    if not is_lazy:
        return_budget(n << layout.PAGE_SHIFT)
        punch(page, n)
        lock_heap()
        return_pages_locked(page, n, 1)
        unlock_heap()
    add_relaxed(MHEAP_XCOMMITTED, -(n << layout.PAGE_SHIFT))
    add_relaxed(MHEAP_XRELEASED, n << layout.PAGE_SHIFT)
    return n


@kernel("int64(int64, int64, int64, int64)")
def scavenge(nbytes: int, least: int, force: int, when: int) -> int:
    """Holds: nothing. Release about ``nbytes`` of free memory, if there is so much; how much it was.

    Whoever wants to stop the world waits for ``least`` bytes of it, and the 4 MiB that one piece may have, but no longer: a limit that was lowered by
    gigabytes is not one long pause.
    ``force``: of nearly full chunks too. ``when``: ALWAYS, or UNLESS_LIMITED: while the GC CPU limiter is not on.
    """
    began = nanotime() if is_tracing() else 0
    begin_critical()
    done = 0
    while done < nbytes and (when == ALWAYS or load_relaxed(LIMITER_XLIMITING) == 0):
        if done >= least and stop_requested():
            break
        n = _scavenge_one((nbytes - done + layout.PAGE_SIZE - 1) >> layout.PAGE_SHIFT, force)
        if n == 0:
            break
        done += n << layout.PAGE_SHIFT
    end_critical()
    if began != 0 and done > 0:
        tell(TRACE_SCAVENGED, began, done)
    return done


# --- before memory is committed ---------------------------------------------------------------------------------------


@kernel("int64(int64, int64, int64, int64)")
def scavenge_eagerly(nbytes: int, least: int, force: int, when: int) -> int:
    """As the caller's own work, which the limiter counts as an assist's."""
    began = nanotime()
    done = scavenge(nbytes, least, force, when)
    add_relaxed(SCAV_XEAGER, done)
    took = nanotime() - began
    add_relaxed(SCAV_XEAGER_NS, took)
    if load_relaxed(layout.SELF_BASE + P_XEVENT) == 0:  # else it counts with the event that goes on
        add_relaxed(LIMITER_XASSIST, took)
    return done


@inline
def make_room(nbytes: int) -> None:
    """Holds: nothing. Before ``nbytes`` are committed: release as much as they would take the runtime beyond its limit (mheap.go, allocSpan)."""
    over = mapped_ready() + nbytes - pacer().memory_limit
    if over > 0:
        scavenge_eagerly(over, nbytes, 1, UNLESS_LIMITED)


@inline
def make_room_for_growth(grown: int) -> None:
    """Holds: nothing. The heap has grown by ``grown`` bytes: release as much elsewhere, if it retains more than its goal with them."""
    goal = scavpace().gc_percent_goal
    over = heap_retained() + grown - goal
    if goal != 0 and over > 0:
        scavenge_eagerly(min(grown, over), 0, 0, UNLESS_LIMITED)
