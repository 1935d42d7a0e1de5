"""Channels in the heap: values of one word each, from goroutines that send to goroutines that receive (chan.go).

channel   ten words: the buffer, an array of ``size`` words, or none; how many of them are full, and which is the first; two queues of goroutines
          that wait, by number.
handing   what is sent while somebody waits to receive goes to him and not through the buffer; what is received from a full buffer makes room for the
          first who waits to send. So receivers wait only at an empty channel, senders only at a full one.

Who waits is in the channel's queue, WAITING, and what he sends is in his record; he is given what he receives there too, and puts it into his frame
when he runs again. So nobody writes into another's stack, which may move.

Locks: those of maps, chosen by the channel's address. Under one there is no allocation, no wait and no poll; room in the barrier's buffer is made
before. A goroutine that is taken out of a queue is made ready after the lock is released.

A kill: what changes together is one redo record, and the last word of it says of a goroutine that was waiting what has become of it: ``done``. Who is
WAITING and done was about to be made ready; repair does that. A goroutine that dies while it waits is taken out of its queue by repair.

Barriers: a value in the buffer or in a record is shaded when another overwrites it, and when it is stored there, as in any field.
"""

from __future__ import annotations

from gomp.core.gc.stackscan import is_stack_scanned, scan_stack
from gomp.core.gc.wbbuf import record_write
from gomp.core.heap.chanq import (
    BUFFER,
    CLOSED,
    COUNT,
    FIRST,
    HOLDS_LINKS,
    RECEIVERS,
    SENDERS,
    SIZE,
    commit_done,
    unlink_locked,
    wait_locked,
)
from gomp.core.heap.sizeclass import SPAN_ELEM_SIZE, span_class_for
from gomp.core.jit import inline, kernel
from gomp.core.mutator.hashmap import lock_of, make_room
from gomp.core.sched import redo
from gomp.core.sched.locks import acquire, begin_critical, end_critical, release
from gomp.core.sched.parking import wake, wake_one
from gomp.core.sched.runq import NO_G, runq_put
from gomp.core.shm import layout
from gomp.core.shm.atomics import cas_acq_rel, cpu_pause, load64, load_relaxed, store64
from gomp.core.shm.records import (
    CHAN_CLOSED,
    CHAN_DONE,
    CHAN_WOULD_BLOCK,
    G_ELEM,
    G_RUNNABLE,
    G_WAITING,
    GC_MARK,
    GC_OFF,
    P_OUT,
    RT_XGCPHASE,
    WAITS_TO_RECEIVE,
    WAITS_TO_SEND,
    g_at,
    self_p,
)

CHAN_BYTES, CHAN_MASK, SCAN_BYTES = 80, 0b1, 8
CHAN_CLASS = span_class_for(CHAN_BYTES, True)
CHAN_SLOT = SPAN_ELEM_SIZE[CHAN_CLASS]
_HEADER = 8  # of the buffer
VALUE = layout.SELF_BASE + P_OUT  # where what was received is


# --- receiving --------------------------------------------------------------------------------------------------------


@kernel("int64(int64, int64)")
def receive(ch: int, g: int) -> int:
    """Receive from the channel at ``ch``, in KERNEL: CHAN_DONE or CHAN_CLOSED, and the value, or 0, is at VALUE; or CHAN_WOULD_BLOCK.

    Then the goroutine at ``g``, which this P runs, waits there from now on, and may be anybody's; nobody does if ``g`` is 0.
    """
    if ch == 0:
        if g != 0:
            wait_locked(g, ch, 0, WAITS_TO_RECEIVE)
        return CHAN_WOULD_BLOCK
    _lock_for(ch, g)
    done = receive_locked(ch, g)
    unlock(ch)
    return done


@inline
def receive_locked(ch: int, g: int) -> int:
    """Holds: the channel's lock, until :func:`unlock`."""
    sender = (
        load64(ch + SENDERS) if load64(ch + CLOSED) == 0 else NO_G
    )  # who waits to send on a closed one is told that
    if load64(ch + COUNT) != 0:
        _take_first_locked(ch, sender)
        return CHAN_DONE
    if sender != NO_G:
        at = layout.g_addr(sender)
        store64(VALUE, g_at(at).elem)
        _plan_elem(0, ch, at + G_ELEM, 0)
        _commit_woken(1, ch + SENDERS, sender, CHAN_DONE)
        return CHAN_DONE
    if load64(ch + CLOSED) != 0:
        store64(VALUE, 0)
        return CHAN_CLOSED
    if g != 0:
        wait_locked(g, ch, RECEIVERS, WAITS_TO_RECEIVE)
    return CHAN_WOULD_BLOCK


@inline
def _take_first_locked(ch: int, sender: int) -> None:
    """Holds: the channel's lock. The oldest value in the buffer; the place that it leaves is for what ``sender`` waits to send, if there is one."""
    size, first = load64(ch + SIZE), load64(ch + FIRST)
    place = load64(ch + BUFFER) + _HEADER + 8 * first
    store64(VALUE, load64(place))
    redo.plan(0, ch + FIRST, first + 1 if first + 1 < size else 0)
    if sender == NO_G:
        _plan_elem(1, ch, place, 0)
        redo.plan(2, ch + COUNT, load64(ch + COUNT) - 1)
        redo.commit(3)
    else:
        at = layout.g_addr(sender)
        _plan_elem(1, ch, place, g_at(at).elem)
        _plan_elem(2, ch, at + G_ELEM, 0)
        _commit_woken(3, ch + SENDERS, sender, CHAN_DONE)


# --- sending ----------------------------------------------------------------------------------------------------------


@kernel("int64(int64, int64, int64)")
def send(ch: int, value: int, g: int) -> int:
    """Send to the channel at ``ch``, in KERNEL: CHAN_DONE; CHAN_CLOSED, and nothing is sent; or CHAN_WOULD_BLOCK, as :func:`receive` does."""
    if ch == 0:
        if g != 0:
            g_at(g).elem_is_link = 0
            wait_locked(g, ch, 0, WAITS_TO_SEND)
        return CHAN_WOULD_BLOCK
    _lock_for(ch, g)
    done = send_locked(ch, value, g)
    unlock(ch)
    return done


@inline
def send_locked(ch: int, value: int, g: int) -> int:
    """Holds: the channel's lock, until :func:`unlock`."""
    receiver = load64(ch + RECEIVERS)
    count, size = load64(ch + COUNT), load64(ch + SIZE)
    if load64(ch + CLOSED) != 0:
        return CHAN_CLOSED
    if receiver != NO_G:
        _plan_elem(0, ch, layout.g_addr(receiver) + G_ELEM, value)
        _commit_woken(1, ch + RECEIVERS, receiver, CHAN_DONE)
        return CHAN_DONE
    if count < size:
        last = load64(ch + FIRST) + count
        _plan_elem(0, ch, load64(ch + BUFFER) + _HEADER + 8 * (last if last < size else last - size), value)
        redo.plan(1, ch + COUNT, count + 1)
        redo.commit(2)
        return CHAN_DONE
    if g != 0:
        if load64(ch + HOLDS_LINKS) != 0 and load_relaxed(RT_XGCPHASE) != GC_OFF:
            g_at(g).elem = 0
            record_write(g + G_ELEM, value)  # of a program that waits, the stack says nothing
        g_at(g).elem = value
        g_at(g).elem_is_link = load64(ch + HOLDS_LINKS)
        wait_locked(g, ch, SENDERS, WAITS_TO_SEND)
    return CHAN_WOULD_BLOCK


@kernel("int64(int64)")
def close(ch: int) -> int:
    """Close the channel at ``ch``, in KERNEL, and wake all who wait there: CHAN_DONE, or CHAN_CLOSED if it was closed before."""
    _lock(ch)
    done = CHAN_DONE if close_locked(ch) else CHAN_CLOSED
    unlock(ch)
    while done == CHAN_DONE and is_awaited(ch):
        _lock(ch)
        wake_first_locked(ch)
        unlock(ch)
    return done


@inline
def close_locked(ch: int) -> bool:
    """Holds: the channel's lock, until :func:`unlock`. False if it is closed already."""
    if load64(ch + CLOSED) != 0:
        return False
    store64(ch + CLOSED, 1)
    return True


@inline
def is_awaited(ch: int) -> bool:
    """Of a closed channel: whether somebody waits there who has not been told."""
    return load64(ch + RECEIVERS) != NO_G or load64(ch + SENDERS) != NO_G


@inline
def wake_first_locked(ch: int) -> None:
    """Holds: the channel's lock, until :func:`unlock`. Tell the first who waits that the channel is closed."""
    queue = ch + (RECEIVERS if load64(ch + RECEIVERS) != NO_G else SENDERS)
    if load64(queue) != NO_G:
        _commit_woken(0, queue, load64(queue), CHAN_CLOSED)


# --- the lock, and who is woken ---------------------------------------------------------------------------------------


@inline
def _lock(ch: int) -> None:
    make_room()
    acquire(lock_of(ch))


@inline
def _lock_for(ch: int, g: int) -> None:
    """The same; the goroutine at ``g``, which may have to wait, is black: this P may be white yet, and would not be found to run it any more."""
    _lock(ch)
    while g != 0 and load_relaxed(RT_XGCPHASE) == GC_MARK and not is_stack_scanned(g):
        release(lock_of(ch))
        scan_stack(layout.p_addr(self_p().idx), g)
        _lock(ch)


@inline
def _commit_woken(n: int, queue: int, g: int, done: int) -> None:
    """As :func:`~gomp.core.heap.chanq.commit_done`; :func:`unlock` makes the goroutine ready."""
    commit_done(n, queue, g, done)
    self_p().woken = g


@inline
def unlock(ch: int) -> None:
    """Release the channel's lock, then make ready whom what was done under it has woken."""
    me = self_p()
    begin_critical()  # who is woken is in hand
    release(lock_of(ch))
    if me.woken != NO_G:
        make_ready(layout.g_addr(me.woken))
        me.woken = NO_G
    end_critical()


@inline
def _plan_elem(i: int, ch: int, slot: int, value: int) -> None:
    """As :func:`~gomp.core.sched.redo.plan`, with the write barrier if the channel's values are references."""
    if load64(ch + HOLDS_LINKS) != 0 and load_relaxed(RT_XGCPHASE) != GC_OFF:
        record_write(slot, value)
    redo.plan(i, slot, value)


@inline
def make_ready(g: int) -> None:
    """The goroutine at ``g``, which waits, may go on. The caller has it in hand, and does not park."""
    home = g_at(g).home
    while not cas_acq_rel(g, G_WAITING, G_RUNNABLE):
        cpu_pause()  # a marker has its stack
    if home != 0:
        wake(layout.p_addr(home - 1))
    else:
        runq_put(layout.g_number(g), 1)
        wake_one()


@kernel("int64(int64)")
def stop_waiting(g: int) -> int:
    """Take the goroutine at ``g``, which waits here and has this P as its home, out of the queue that it waits in: 1, or 0 if it is done already."""
    ch = g_at(g).chan
    if ch == 0:
        return 1
    acquire(lock_of(ch))
    waits = g_at(g).done == 0
    if waits:
        unlink_locked(g)
    release(lock_of(ch))
    return 1 if waits else 0
