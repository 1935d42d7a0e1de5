"""Select: waiting at several channels at once, for whatever comes first (select.go).

First each case is tried in turn, in random order: if one can be done it is, and nothing else has happened. Who then has to wait joins the queue
of each channel with a record, a case, and waits: see :mod:`~gomp.core.heap.waitq` for who may tell it what has become of that.

No two channels' locks are held at once. So while it joins one queue, somebody may come to another that it has joined before: it is BUSY, he passes
it by and says so, MISSED, and it looks once more before it waits. It leaves the queues when it runs again, so in between they have cases in them
that are over; they are passed by, too.

A kill: a case whose goroutine is dead is nobody's, and repair takes it out of its queue. Who had claimed a goroutine, and died before he did
anything, has kept others from it: then it looks AGAIN.

A value that it is to send is in its case, and so is what it receives: both are roots as long as its goroutine waits in a select.
"""

from __future__ import annotations

from gomp.core.gc.wbbuf import record_write
from gomp.core.heap.gs import drop_case, take_case
from gomp.core.heap.mheap import NO_MEMORY
from gomp.core.heap.waitq import BUSY, HOLDS_LINKS, NOT_OPEN, OPEN, link_case_locked, unlink_locked
from gomp.core.jit import inline, kernel
from gomp.core.mutator.chan import VALUE, receive_locked, send_locked
from gomp.core.mutator.waits import blacken, change_status, lock, lock_for, unlock
from gomp.core.sched.locks import begin_critical, end_critical
from gomp.core.sched.runq import NO_G
from gomp.core.shm import layout
from gomp.core.shm.atomics import cas_acq_rel, load64, load_relaxed, store64, store_release
from gomp.core.shm.cheaprand import cheaprand
from gomp.core.shm.records import (
    CHAN_WOULD_BLOCK,
    G_ELEM,
    G_RUNNING,
    G_WAITING,
    G_XCLAIM,
    GC_OFF,
    NOT_WAITING,
    P_OUT,
    RT_XGCPHASE,
    WAITS_IN_SELECT,
    WAITS_TO_RECEIVE,
    WAITS_TO_SEND,
    g_at,
    self_p,
)

CASE_BYTES = (
    32  # in P_OUT: the channel; what is sent; where what is received goes, or SENDS; where it goes whether it was
)
MOST_CASES = 16
SENDS = -1
DONE, NONE_READY, WAITS = 0, -1001, -1002  # beside a place, and what await_done says
_OUT = layout.SELF_BASE + P_OUT
_NIBBLES = 0xFEDCBA9876543210 - (1 << 64)


# --- without waiting --------------------------------------------------------------------------------------------------


@kernel("int64(int64)")
def try_cases(n: int) -> int:
    """Do one of the ``n`` cases in P_OUT that can be done: its place. How is in ``selected``, and what was received at VALUE. Or NONE_READY."""
    order = _shuffled(n)
    for i in range(n):
        place = order >> 4 * i & 15
        case = _OUT + CASE_BYTES * place
        ch = load64(case)
        if ch != 0:
            lock(ch)
            done = send_locked(ch, load64(case + 8), 0) if load64(case + 16) == SENDS else receive_locked(ch, 0)
            unlock(ch)
            if done != CHAN_WOULD_BLOCK:
                self_p().selected = done
                return place
    return NONE_READY


@inline
def _shuffled(n: int) -> int:
    """The numbers below ``n`` in any order, four bits each."""
    order = _NIBBLES
    for i in range(n - 1, 0, -1):
        j = cheaprand(24) % (i + 1)
        swapped = (order >> 4 * i ^ order >> 4 * j) & 15
        order ^= swapped << 4 * i | swapped << 4 * j
    return order


# --- waiting ----------------------------------------------------------------------------------------------------------


@kernel("int64(int64, int64)")
def wait_for_cases(n: int, g: int) -> int:
    """Have the goroutine at ``g``, which this P runs, wait for one of the ``n`` cases in P_OUT: WAITS, and it may be anybody's; DONE, as one could
    be done meanwhile; or NO_MEMORY."""
    begin_select(g)
    for place in range(n - 1, -1, -1):
        case = _OUT + CASE_BYTES * place
        sends = load64(case + 16) == SENDS
        record = add_case(g, load64(case), load64(case + 8), WAITS_TO_SEND if sends else WAITS_TO_RECEIVE)
        if record < 0:
            free_cases(g)
            return NO_MEMORY
        g_at(record).into = load64(case + 16)
        g_at(record).ok_into = load64(case + 24)
    me = self_p()
    if g_at(g).entry != 0:
        g_at(g).into = me.out_into
    me.out_bytes = 0  # all is in the cases now
    return join_queues(g)


@inline
def begin_select(g: int) -> None:
    gp = g_at(g)
    gp.chan = 0
    gp.elem_is_link = 0
    gp.done = 0
    gp.since_ns = 0
    gp.leaked = 0
    gp.cases = NO_G
    store_release(g + G_XCLAIM, BUSY)
    gp.wait = WAITS_IN_SELECT


@inline
def add_case(g: int, ch: int, value: int, why: int) -> int:
    """Address of a new case of the goroutine at ``g``, before its others, in no queue yet; NO_MEMORY."""
    number = take_case(layout.g_number(g))
    if number == NO_G:
        return NO_MEMORY
    case = layout.g_addr(number)
    gp = g_at(case)
    gp.chan = ch
    gp.wait = why
    gp.done = 0
    gp.linked = 0
    gp.elem_is_link = load64(ch + HOLDS_LINKS) if ch != 0 else 0
    if gp.elem_is_link and load_relaxed(RT_XGCPHASE) != GC_OFF:
        gp.elem = 0
        record_write(case + G_ELEM, value)
    gp.elem = value
    gp.link = g_at(g).cases
    g_at(g).cases = number
    return case


@kernel("int64(int64)")
def join_queues(g: int) -> int:
    """Have the goroutine at ``g``, which is BUSY, do one of its cases, DONE, or wait for all of them: WAITS, and it may be anybody's."""
    me = self_p()
    while True:
        number = g_at(g).cases
        while number != NO_G:
            case = layout.g_addr(number)
            if g_at(case).chan != 0:
                lock_for(g_at(case).chan, g)
                me.selecting = layout.g_number(g)
                done = try_case_locked(case)
                me.selecting = NO_G
                unlock(g_at(case).chan)
                if done:
                    g_at(g).done = number
                    return DONE
            number = g_at(case).link
        if open_claim(g):
            return WAITS


@inline
def try_case_locked(case: int) -> bool:
    """Holds: its channel's lock. Do the case at ``case``, and then it has what has become of it; or link it."""
    gp = g_at(case)
    ch = gp.chan
    done = send_locked(ch, gp.elem, 0) if gp.wait == WAITS_TO_SEND else receive_locked(ch, 0)
    if done == CHAN_WOULD_BLOCK:
        if gp.linked == 0:
            link_case_locked(case)
        return False
    if gp.linked != 0:
        unlink_locked(case)
    if gp.wait == WAITS_TO_RECEIVE:
        if gp.elem_is_link and load_relaxed(RT_XGCPHASE) != GC_OFF:
            record_write(case + G_ELEM, load64(VALUE))
        gp.elem = load64(VALUE)
    gp.done = done
    return True


@inline
def open_claim(g: int) -> bool:
    """Let the others tell the goroutine at ``g``, which waits from now on; or false: it is to look again, as one has passed it by."""
    begin_critical()
    blacken(g)
    store_release(g, G_WAITING)
    is_open = cas_acq_rel(g + G_XCLAIM, BUSY, OPEN)
    if not is_open:
        change_status(g, G_WAITING, G_RUNNING)
        store_release(g + G_XCLAIM, BUSY)
    end_critical()
    return is_open


# --- the end ----------------------------------------------------------------------------------------------------------


@inline
def look_again(g: int) -> int:
    """The goroutine at ``g`` runs again, and nobody has told it anything: as :func:`join_queues`."""
    g_at(g).done = 0
    store_release(g + G_XCLAIM, BUSY)
    return join_queues(g)


@kernel("int64(int64)")
def end_select(g: int) -> int:
    """Of the goroutine at ``g``, which this P runs and one of whose cases is done: the place of that. As :func:`try_cases`; where what was received
    goes is in ``out_into`` and ``out_ok``; the first is SENDS if nothing was."""
    gp, me = g_at(g), self_p()
    done = layout.g_addr(gp.done)
    place, number = 0, gp.cases
    while number != gp.done:
        place += 1
        number = g_at(layout.g_addr(number)).link
    leave_queues(g)
    me.selected = g_at(done).done
    me.out_into = g_at(done).into
    me.out_ok = g_at(done).ok_into
    store64(VALUE, g_at(done).elem)
    me.out_bytes = 8  # a root, while the cases are freed
    free_cases(g)
    me.out_bytes = 0
    return place


@kernel("void(int64)")
def leave_queues(g: int) -> None:
    """No case of the goroutine at ``g``, which this P runs, is in a queue."""
    number = g_at(g).cases
    while number != NO_G:
        case = layout.g_addr(number)
        if g_at(case).linked != 0:
            lock(g_at(case).chan)
            if g_at(case).linked != 0:
                unlink_locked(case)
            unlock(g_at(case).chan)
        number = g_at(case).link


@kernel("void(int64)")
def free_cases(g: int) -> None:
    """The goroutine at ``g``, which this P runs and none of whose cases is in a queue, is in no select any more."""
    gp = g_at(g)
    gp.wait = NOT_WAITING
    while gp.cases != NO_G:
        number = gp.cases
        gp.cases = g_at(layout.g_addr(number)).link
        drop_case(number)
    store_release(g + G_XCLAIM, NOT_OPEN)
