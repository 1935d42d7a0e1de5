"""What all waits have in common that goroutines end for one another, at channels, groups and locks: the lock of the thing, and who is woken.

Locks: those of maps, chosen by the thing's address. Under one there is no allocation, no wait and no poll; room in the barrier's buffer is made
before. A goroutine that is taken out of a queue is made ready after the lock is released.

A kill: what changes together is one redo record, and the last word of it says of a goroutine that was waiting what has become of it: ``done``. Who is
WAITING and done was about to be made ready; repair does that. A goroutine that dies while it waits is taken out of its queue by repair.
"""

from __future__ import annotations

from gomp.core.gc.stackscan import is_stack_scanned, scan_stack
from gomp.core.heap.waitq import GAVE_UP, OPEN, commit_done, list_ended, unlink_locked
from gomp.core.jit import inline, kernel
from gomp.core.mutator.hashmap import lock_of, make_room
from gomp.core.sched.latency import note_ready
from gomp.core.sched.locks import acquire, begin_critical, end_critical, release
from gomp.core.sched.parking import ring, tell_over, wake_one
from gomp.core.sched.runq import NO_G, runq_put
from gomp.core.sched.status import pause
from gomp.core.shm import layout
from gomp.core.shm.atomics import cas_acq_rel, load_acquire, load_relaxed
from gomp.core.shm.libc import nanotime
from gomp.core.shm.records import (
    DETAIL_READIES,
    G_RUNNABLE,
    G_WAITING,
    G_XCLAIM,
    GC_MARK,
    RT_XGCPHASE,
    RT_XSHUTDOWN,
    TRACE_READY,
    WAITS_IN_SELECT,
    g_at,
    self_p,
)
from gomp.core.shm.tracing import begin_detail, is_too_much, is_tracing, tell_at


@inline
def lock(at: int) -> None:
    """Take the lock of the thing at ``at``, until :func:`unlock`."""
    make_room()
    acquire(lock_of(at))


@inline
def lock_for(at: int, g: int) -> None:
    """The same; the goroutine at ``g``, which may have to wait, is black: this P may be white yet, and would not be found to run it any more."""
    lock(at)
    while g != 0 and load_relaxed(RT_XGCPHASE) == GC_MARK and not is_stack_scanned(g):
        release(lock_of(at))
        scan_stack(layout.p_addr(self_p().idx), g)
        lock(at)


@inline
def blacken(g: int) -> None:
    """A stack is scanned before its goroutine runs on a P that is black."""
    if load_relaxed(RT_XGCPHASE) == GC_MARK and not is_stack_scanned(g):
        scan_stack(layout.p_addr(self_p().idx), g)


@inline
def commit_woken(n: int, number: int, done: int) -> None:
    """As :func:`~gomp.core.heap.waitq.commit_done`; :func:`unlock` makes the goroutine ready."""
    of = g_at(layout.g_addr(number)).of
    commit_done(n, number, done)
    self_p().woken = of if of != NO_G else number


@inline
def unlock(at: int) -> None:
    """Release the lock of the thing at ``at``, then make ready whom what was done under it has woken."""
    me = self_p()
    begin_critical()  # who is woken is in hand
    release(lock_of(at))
    if me.woken != NO_G:
        make_ready(layout.g_addr(me.woken))
        me.woken = NO_G
    end_critical()


@inline
def change_status(g: int, was: int, becomes: int) -> None:
    """The goroutine at ``g`` is in this P's hand, but a marker may have its stack. One that has died with it gives it up by repair, of which there is
    none any more when the runtime has ended."""
    looks = 0
    while not cas_acq_rel(g, was, becomes) and load_acquire(RT_XSHUTDOWN) == 0:
        looks = pause(looks)


@kernel("void(int64, int64, int64)")
def tell_ready(what: int, goid: int, parent: int) -> None:
    """Only while tracing: that goroutine is ready to run, unless there are too many."""
    now = nanotime()
    if begin_detail(DETAIL_READIES, now) != 0:
        tell_at(now, what, goid, parent)


@inline
def make_ready(g: int) -> None:
    """The goroutine at ``g``, which waits, may go on. The caller has it in hand, and does not park."""
    home, listens = g_at(g).home, g_at(g).listens
    note_ready(g)
    if is_tracing() and not is_too_much(DETAIL_READIES):
        tell_ready(TRACE_READY, g_at(g).id, 0)
    change_status(g, G_WAITING, G_RUNNABLE)
    if home != 0:
        if listens:
            list_ended(layout.p_addr(home - 1), g)
            ring(layout.p_addr(home - 1))
        else:
            tell_over(layout.p_addr(home - 1))  # also one that runs others there, without end
    else:
        runq_put(layout.g_number(g), 1)
        wake_one()


@kernel("int64(int64)")
def stop_waiting(g: int) -> int:
    """Have the goroutine at ``g``, which waits here and has this P as its home, wait no more: 1, or 0 if it is done already, or about to be."""
    gp = g_at(g)
    if gp.wait == WAITS_IN_SELECT:
        return 1 if cas_acq_rel(g + G_XCLAIM, OPEN, GAVE_UP) else 0
    if gp.chan == 0:
        return 1
    acquire(lock_of(gp.chan))
    waits = gp.done == 0
    if waits:
        unlink_locked(g)
    release(lock_of(gp.chan))
    return 1 if waits else 0
