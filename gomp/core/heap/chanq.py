"""Queues of goroutines at channels: who waits, in which order, and what has become of it.

Two words of a channel name the first and the last, the records lead from one to the next. What changes together is one redo record. ``done``
is the last word of it that a waiting goroutine has: who is WAITING and done is about to be made ready.
"""

from __future__ import annotations

from gomp.core.jit import inline
from gomp.core.sched import redo
from gomp.core.sched.runq import NO_G
from gomp.core.shm import layout
from gomp.core.shm.atomics import load64
from gomp.core.shm.records import G_DONE, G_NEXT, G_WAITING, WAITS_TO_RECEIVE, g_at

# The words of a channel: see mutator/chan.py.
BUFFER, HOLDS_LINKS, SIZE, COUNT, FIRST, CLOSED, RECEIVERS, LAST_RECEIVER, SENDERS, LAST_SENDER = range(0, 80, 8)
TO_LAST = 8  # from the word that names the first in a queue to that which names the last


@inline
def wait_locked(g: int, ch: int, queue: int, why: int) -> None:
    """Holds: the channel's lock, if there is one. The goroutine at ``g``, which this P runs, waits there, behind all others."""
    gp, number = g_at(g), layout.g_number(g)
    gp.wait = why
    gp.chan = ch
    gp.done = 0
    gp.since_ns = 0
    gp.leaked = 0
    gp.next = NO_G
    if why == WAITS_TO_RECEIVE:
        gp.elem = 0
        gp.elem_is_link = load64(ch + HOLDS_LINKS) if ch != 0 else 0
    redo.plan(0, g, G_WAITING)
    n = 1
    if ch != 0:
        last = load64(ch + queue + TO_LAST)
        redo.plan(1, layout.g_addr(last) + G_NEXT if last != NO_G else ch + queue, number)
        redo.plan(2, ch + queue + TO_LAST, number)
        n = 3
    redo.commit(n)


@inline
def commit_done(n: int, queue: int, g: int, done: int) -> None:
    """Holds: the channel's lock. After ``n`` planned stores: take goroutine ``g``, the first, out of the queue at ``queue``, and tell it."""
    following = g_at(layout.g_addr(g)).next
    redo.plan(n, queue, following)
    redo.plan(n + 1, layout.g_addr(g) + G_DONE, done)
    if following == NO_G:
        redo.plan(n + 2, queue + TO_LAST, NO_G)
        redo.commit(n + 3)
    else:
        redo.commit(n + 2)


@inline
def queue_of(g: int) -> int:
    """Address of the word that names the first of the queue in which the goroutine at ``g`` waits."""
    return g_at(g).chan + (RECEIVERS if g_at(g).wait == WAITS_TO_RECEIVE else SENDERS)


@inline
def unlink_locked(g: int) -> None:
    """Holds: the channel's lock, or the world is stopped. The goroutine at ``g`` does not wait there any more."""
    queue = queue_of(g)
    number, at, before = layout.g_number(g), load64(queue), NO_G
    while at != number and at != NO_G:
        before = at
        at = g_at(layout.g_addr(at)).next
    if at == NO_G:
        return
    following = g_at(g).next
    redo.plan(0, layout.g_addr(before) + G_NEXT if before != NO_G else queue, following)
    n = 1
    if following == NO_G:
        redo.plan(1, queue + TO_LAST, before)
        n = 2
    redo.commit(n)
