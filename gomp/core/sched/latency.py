"""How long goroutines are ready before they run (proc.go, casgstatus), and how long they wait for locks.

Of the times that a goroutine becomes ready one in eight is measured, as in Go: which, follows from its number and how often it has run. The
goroutine's ``since_ns`` says since when, with SINCE_READY; the P that runs it counts it in a histogram of its own. A wait for a lock is measured
always, with SINCE_LOCKED: it takes longer than looking at the clock.

A marker that sees a goroutine wait may write the same word. Then it says neither, and nothing is counted.
"""

from __future__ import annotations

from gomp.core.jit import inline
from gomp.core.sched import timehist
from gomp.core.shm import layout
from gomp.core.shm.libc import nanotime
from gomp.core.shm.records import P_LATENCIES, SINCE_LOCKED, SINCE_MASK, SINCE_READY, WAITS_FOR_LOCK, g_at, self_p

TRACKED_EVERY = 8  # gTrackingPeriod; a power of two
_LATENCIES = layout.SELF_BASE + P_LATENCIES


@inline
def since_waiting(why: int) -> int:
    """What ``since_ns`` says of a goroutine that begins to wait, for WAITS_*."""
    return nanotime() & ~SINCE_MASK | SINCE_LOCKED if why == WAITS_FOR_LOCK else 0


@inline
def note_ready(g: int) -> None:
    """The goroutine at ``g``, which this P has in hand, is about to be ready."""
    gp = g_at(g)
    since = gp.since_ns
    if since & SINCE_MASK == SINCE_LOCKED:
        self_p().lock_wait_ns += nanotime() - since
    if (gp.runs + layout.g_number(g)) & (TRACKED_EVERY - 1) == 0:
        gp.since_ns = nanotime() & ~SINCE_MASK | SINCE_READY
    elif since != 0:
        gp.since_ns = 0


@inline
def note_run(g: int) -> None:
    """This P runs the goroutine at ``g``, which was ready."""
    since = g_at(g).since_ns
    if since & SINCE_MASK == SINCE_READY:
        g_at(g).since_ns = 0
        timehist.add(_LATENCIES, nanotime() - since)
