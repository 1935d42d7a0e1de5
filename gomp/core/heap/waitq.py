"""Queues of goroutines that wait at one thing, a channel, a group or a lock: who waits, in which order, and what has become of it.

Two words of the thing name the first and the last, the records lead from one to the next. What changes together is one redo record. ``done``
is the last word of it that a waiting goroutine has: who is WAITING and done is about to be made ready.

A goroutine in a select waits in several queues, with a record for each *case* (G_CASE). The others find it in any of them, and only one may say
what has become of it: who has moved its ``xclaim`` from OPEN to CLAIMED. All others pass it by.

BUSY      it is joining the queues, or leaving them: who passes it by says so, and it looks once more (MISSED).
CLAIMED   and by which P: what that one has taken the queue's lock for, it does. If it dies before, repair has the goroutine look again.
GAVE_UP   by the goroutine itself.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.sched import redo
from gomp.core.sched.latency import since_waiting
from gomp.core.sched.runq import NO_G
from gomp.core.shm import layout
from gomp.core.shm.atomics import cas_acq_rel, load64, load_acquire
from gomp.core.shm.records import (
    G_CASE,
    G_DONE,
    G_LINKED,
    G_NEXT,
    G_WAITING,
    G_XCLAIM,
    P_XENDED_WAITS,
    WAITS_FOR_GROUP,
    WAITS_IN_SELECT,
    WAITS_TO_RECEIVE,
    WAITS_TO_SEND,
    g_at,
    self_p,
)

# The words of a channel: see mutator/chan.py.
BUFFER, HOLDS_LINKS, SIZE, COUNT, FIRST, CLOSED, RECEIVERS, LAST_RECEIVER, SENDERS, LAST_SENDER = range(0, 80, 8)
# The words of a group and of a lock: see mutator/sync.py.
PENDING, GENERATION, WAITERS, LAST_WAITER = range(0, 32, 8)
HOLDER = PENDING
TO_LAST = 8  # from the word that names the first in a queue to that which names the last

NOT_OPEN, BUSY, MISSED, OPEN, GAVE_UP, CLAIMED = range(6)
CLAIMER_SHIFT = 8  # above CLAIMED: the number of the P


# --- joining ----------------------------------------------------------------------------------------------------------


@inline
def wait_locked(g: int, at: int, why: int) -> None:
    """Holds: the lock of the thing at ``at``, if it is one. The goroutine at ``g``, which this P runs, waits there, behind all others."""
    _prepare(g, at, why)
    g_at(g).of = NO_G
    redo.plan(0, g, G_WAITING)
    redo.commit(_plan_last(1, g))


@inline
def link_case_locked(case: int) -> None:
    """Holds: the lock of the channel that the case at ``case`` has. It is the last in the queue there."""
    _prepare(case, g_at(case).chan, g_at(case).wait)
    redo.plan(0, case + G_LINKED, 1)
    redo.commit(_plan_last(1, case))


@inline
def _prepare(g: int, at: int, why: int) -> None:
    gp = g_at(g)
    gp.wait = why
    gp.chan = at
    gp.done = 0
    gp.since_ns = since_waiting(why)
    gp.leaked = 0
    gp.next = NO_G
    if why == WAITS_TO_RECEIVE:
        gp.elem = 0
        gp.elem_is_link = load64(at + HOLDS_LINKS) if at != 0 else 0


@inline
def _plan_last(n: int, g: int) -> int:
    """After ``n`` planned stores: the record at ``g`` behind all others in its queue, if it has one. How many stores are planned."""
    if g_at(g).chan == 0:
        return n
    queue, number = queue_of(g), layout.g_number(g)
    last = load64(queue + TO_LAST)
    redo.plan(n, layout.g_addr(last) + G_NEXT if last != NO_G else queue, number)
    redo.plan(n + 1, queue + TO_LAST, number)
    return n + 2


@inline
def queue_of(g: int) -> int:
    """Address of the word that names the first of the queue in which the goroutine, or the case, at ``g`` waits."""
    gp = g_at(g)
    if gp.wait == WAITS_TO_RECEIVE:
        return gp.chan + RECEIVERS
    return gp.chan + (SENDERS if gp.wait == WAITS_TO_SEND else WAITERS)


@inline
def is_in_queue(g: int) -> bool:
    """Whether the record at ``g`` is of a goroutine that waits in a queue, or a case in one, and nobody has told it anything. World: stopped."""
    gp, status = g_at(g), load_acquire(g)
    if gp.done != 0 or not layout.is_heap_addr(gp.chan):
        return False
    if status == G_CASE:
        return gp.linked != 0
    return status == G_WAITING and gp.wait >= WAITS_TO_RECEIVE and gp.wait != WAITS_IN_SELECT


# --- being told -------------------------------------------------------------------------------------------------------


@inline
def claim_first_locked(queue: int) -> int:
    """Holds: the lock of the thing that ``queue`` is of. Number of the first there who may be told something, and by this P alone; NO_G if there is
    none. It is to be told before the lock is released."""
    first = load64(queue)
    if first == NO_G or g_at(layout.g_addr(first)).of == NO_G:
        return first
    return _claim_from(first)


@kernel("int64(int64)")
def _claim_from(number: int) -> int:
    while number != NO_G and not _claim(g_at(layout.g_addr(number)).of):
        number = g_at(layout.g_addr(number)).next
    return number


@inline
def _claim(of: int) -> bool:
    """Whether this P may tell one whose case is of goroutine ``of``; NO_G: it is no case. One in a select does not meet itself."""
    if of == NO_G:
        return True
    if of == self_p().selecting:
        return False
    claim = layout.g_addr(of) + G_XCLAIM
    while True:
        state = load_acquire(claim)
        if state == OPEN:
            if cas_acq_rel(claim, OPEN, CLAIMED | self_p().idx << CLAIMER_SHIFT):
                return True
        elif state != BUSY or cas_acq_rel(claim, BUSY, MISSED):
            return False


@inline
def commit_done(n: int, number: int, done: int) -> None:
    """Holds: the lock of where the one of that ``number`` waits, which this P may tell. After ``n`` <= 3 planned stores: take it out, and tell it."""
    g = layout.g_addr(number)
    n = _plan_unlink(n, g, _before(g))
    redo.plan(n, g + G_DONE, done)
    if g_at(g).of != NO_G:
        redo.plan(n + 1, layout.g_addr(g_at(g).of) + G_DONE, number)
        n += 1
    redo.commit(n + 1)


@inline
def unlink_locked(g: int) -> None:
    """Holds: the lock of where it waits, or the world is stopped. The goroutine, or the case, at ``g`` does not wait there any more."""
    before = _before(g)
    if before >= 0:
        redo.commit(_plan_unlink(0, g, before))


@inline
def _before(g: int) -> int:
    """Number of the record before that at ``g`` in its queue; NO_G if it is the first, -1 if it is not there."""
    number = layout.g_number(g)
    at, before = load64(queue_of(g)), NO_G
    while at != number and at != NO_G:
        before = at
        at = g_at(layout.g_addr(at)).next
    return before if at == number else -1


@inline
def _plan_unlink(n: int, g: int, before: int) -> int:
    queue, following = queue_of(g), g_at(g).next
    redo.plan(n, layout.g_addr(before) + G_NEXT if before > NO_G else queue, following)
    n += 1
    if following == NO_G:
        redo.plan(n, queue + TO_LAST, before)
        n += 1
    if g_at(g).of != NO_G:
        redo.plan(n, g + G_LINKED, 0)
        n += 1
    return n


# --- repair -----------------------------------------------------------------------------------------------------------


@inline
def is_over_stw(g: int) -> bool:
    """Whether what the record at ``g`` waits for has come to pass, and who was to say so may have died: its channel is closed, its group was done."""
    gp = g_at(g)
    if not is_in_queue(g):
        return False
    if gp.wait == WAITS_FOR_GROUP:
        return load64(gp.chan + GENERATION) != gp.elem
    return gp.wait in (WAITS_TO_RECEIVE, WAITS_TO_SEND) and load64(gp.chan + CLOSED) != 0


# --- ends of waits that are listened for ------------------------------------------------------------------------------


@inline
def list_ended(p: int, g: int) -> None:
    """The wait of the goroutine at ``g``, which listens at the P at ``p``, is over: put it on the list there. It is RUNNABLE, and nobody else's.

    Processes put in, each by a compare-and-swap of the first (release: the link is written before); that P takes all at once. So no entry that
    somebody has read as the first can have been taken out and put in again before it is behind another.
    """
    number = layout.g_number(g)
    while True:
        first = load_acquire(p + P_XENDED_WAITS)
        g_at(g).link = first
        if cas_acq_rel(p + P_XENDED_WAITS, first, number):
            return
