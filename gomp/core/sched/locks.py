"""Locks in shared memory that a dead owner cannot hold for ever.

A lock word is 0, or its owner's P index + 1, with CONTENDED if somebody sleeps on it. Because it names its owner, repair can release the
locks of a dead P. A waiter that has nothing else in hand parks when a stop is requested; holders never park or poll, and hold a lock for a
few instructions. Hence with the world stopped no living P holds a lock, but for a helper's while it marks.

The lock of a dead owner is released by the coordinator: by repair, and wherever the coordinator waits for it, before it can repair anything.
Those who have something in hand, and so cannot be stopped, get it before what it protects is made whole. So what is done under a lock keeps
that usable at every instruction: lists may lose something, and give nothing out twice. A redo record under it is finished before: its values are
of the time when the owner had the lock.

A waiter that has waited too long for a living owner, one that is stopped say, tells the coordinator and waits on; the coordinator kills the
owner's process. If even that does not end it, the runtime ends. The coordinator, which has to end it, then takes the lock from its owner; so does
everybody once the runtime ends.

The locks of hash maps are released later, with the world stopped: nobody has anything in hand who waits for one.

Ranks: a P holds one lock at a time. Whoever needs a second takes it by :func:`try_lock` and backs out if it is taken.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.sched.redo import apply_redo
from gomp.core.sched.status import park_while_stopped, shut_down_if_orphaned, stop_requested
from gomp.core.sched.throw import THROW_LOST_LOCK, tell_of_lost_lock, throw
from gomp.core.shm import layout
from gomp.core.shm.atomics import cas_acq_rel, cpu_pause, load_acquire, xchg_acq_rel
from gomp.core.shm.libc import futex_wait, futex_wake, is_readable, kill_process, nanotime, sched_yield
from gomp.core.shm.records import (
    LIMITER_XLOCK,
    MHEAP_XLOCK,
    RT_XSHUTDOWN,
    RT_XSPECIALS_LOCK,
    RT_XTABLE_LOCK,
    RT_XWBUF_LOCK,
    SCHED_XLOCK,
    STACKPOOL_XLOCK,
    mcentral_dtype,
    p_at,
    self_p,
)

CONTENDED = 1 << 16  # in the low half of the word, which is what a futex compares
OWNER_MASK = CONTENDED - 1
NOBODY = -1
_SPINS = 100
_NAP_NS = 1_000_000
_PATIENCE_NS = 10_000_000_000
_MCENTRAL_SIZE = mcentral_dtype.itemsize


@inline
def begin_critical() -> None:
    """From here this P does not park, whatever it waits for: it has something in hand that a collection must find in its place."""
    self_p().no_park += 1


@inline
def end_critical() -> None:
    self_p().no_park -= 1


@inline
def try_lock(lock: int) -> bool:
    me = self_p()
    if not cas_acq_rel(lock, 0, me.idx + 1):
        return False
    me.no_park += 1
    return True


@inline
def acquire(lock: int) -> None:
    """Take the lock at address ``lock``. The caller holds no other lock."""
    if not try_lock(lock):
        acquire_slow(lock)


@inline
def release(lock: int) -> None:
    self_p().no_park -= 1
    if xchg_acq_rel(lock, 0) & CONTENDED:
        futex_wake(lock)


@kernel("void(int64)")
def acquire_slow(lock: int) -> None:
    acquire_within(lock, _PATIENCE_NS)


@kernel("void(int64, int64)")
def acquire_within(lock: int, patience_ns: int) -> None:
    me = self_p()
    me.waiting_for = lock
    mine = me.idx + 1
    tries, waited, times, since = 0, 0, 0, nanotime()
    while True:
        word = load_acquire(lock)
        if word == 0:
            # Once anybody slept, stay pessimistic: the word cannot tell whether others still sleep.
            if cas_acq_rel(lock, 0, mine if tries < _SPINS else mine | CONTENDED):
                break
            continue
        tries += 1
        if tries < _SPINS:
            cpu_pause()
        elif me.no_park == 0 and stop_requested():
            me.lock_wait_ns += nanotime() - since
            park_while_stopped()
            since = nanotime()
        elif tries < 2 * _SPINS:
            sched_yield()
        elif word & CONTENDED or cas_acq_rel(lock, word, word | CONTENDED):
            began = nanotime()
            futex_wait(lock, word | CONTENDED, _NAP_NS)
            # Who was frozen together with the owner has not waited for it: a sleep counts as two naps at most.
            waited += min(nanotime() - began, 2 * _NAP_NS)
            if me.idx == layout.COORDINATOR_P:
                _release_if_dead(lock)
            if waited > patience_ns or load_acquire(RT_XSHUTDOWN) != 0:
                if _give_up(lock, word | CONTENDED, times):
                    break
                waited = 0
                times += 1
    me.lock_wait_ns += nanotime() - since
    me.no_park += 1
    me.waiting_for = 0


@kernel("int64(int64, int64, int64)")
def _give_up(lock: int, word: int, before: int) -> int:
    """The owner in ``word`` has had the lock too long, as it had ``before`` so many times: 1 if it was taken from it."""
    me = self_p()
    owner = (word & OWNER_MASK) - 1
    if load_acquire(RT_XSHUTDOWN) == 0:
        if me.idx != layout.COORDINATOR_P:
            tell_of_lost_lock(lock, owner)
            shut_down_if_orphaned()
            return 0
        if before == 0 and _kill(layout.p_addr(owner)):
            return 0
        throw(THROW_LOST_LOCK, lock, owner)
    return 1 if cas_acq_rel(lock, word, (me.idx + 1) | CONTENDED) else 0


@inline
def _kill(p: int) -> bool:
    """End the process of the P at ``p``; false if it has none of its own, as in tests. Called by the coordinator, which can."""
    pidfd = p_at(p).pidfd
    return pidfd != 0 and kill_process(pidfd) == 0


@kernel("int64(int64)")
def owner_of(lock: int) -> int:
    """Number of the P that has the lock at ``lock``, which may be any number; NOBODY if none has, or it is no lock."""
    is_lock = lock in (
        MHEAP_XLOCK,
        RT_XWBUF_LOCK,
        RT_XTABLE_LOCK,
        LIMITER_XLOCK,
        RT_XSPECIALS_LOCK,
        STACKPOOL_XLOCK,
        SCHED_XLOCK,
    )
    offset = lock - layout.MCENTRALS_BASE
    is_lock |= 0 <= offset < layout.NUM_SPAN_CLASSES * _MCENTRAL_SIZE and offset % _MCENTRAL_SIZE == 0
    offset = lock - layout.MAP_LOCKS_BASE
    is_lock |= 0 <= offset < layout.MAP_LOCKS * layout.MAP_LOCK_SIZE and offset % layout.MAP_LOCK_SIZE == 0
    return (load_acquire(lock) & OWNER_MASK) - 1 if is_lock else NOBODY


@kernel("void(int64)")
def _release_if_dead(lock: int) -> None:
    """Release the lock if its owner's process has died. Called by the coordinator, which can tell."""
    owner = load_acquire(lock) & OWNER_MASK
    if owner == 0:
        return
    pidfd = p_at(layout.p_addr(owner - 1)).pidfd
    if pidfd != 0 and is_readable(pidfd):
        _release_if_of(lock, owner)


@kernel("int64(int64)")
def release_locks_of(p: int) -> int:
    """Release every lock of the dead P at address ``p``; returns how many."""
    owner = p_at(p).idx + 1
    released = _release_if_of(MHEAP_XLOCK, owner) + _release_if_of(RT_XWBUF_LOCK, owner)
    released += _release_if_of(RT_XTABLE_LOCK, owner) + _release_if_of(LIMITER_XLOCK, owner)
    released += _release_if_of(RT_XSPECIALS_LOCK, owner) + _release_if_of(STACKPOOL_XLOCK, owner)
    released += _release_if_of(SCHED_XLOCK, owner)
    for i in range(layout.NUM_SPAN_CLASSES):
        released += _release_if_of(layout.MCENTRALS_BASE + i * _MCENTRAL_SIZE, owner)
    return released


@kernel("int64(int64)")
def release_map_locks_of(p: int) -> int:
    """Release the locks of hash maps that the dead P at address ``p`` held; returns how many. World: stopped, and its redo record applied: what it
    says of a map is as old as the lock."""
    released = 0
    for i in range(layout.MAP_LOCKS):
        released += _release_if_of(layout.MAP_LOCKS_BASE + i * layout.MAP_LOCK_SIZE, p_at(p).idx + 1)
    return released


@inline
def _release_if_of(lock: int, owner: int) -> int:
    word = load_acquire(lock)
    # Of the locks that are released before the world is stopped it is the only one with redo records under it.
    if lock == RT_XSPECIALS_LOCK and word & OWNER_MASK == owner:
        apply_redo(layout.p_addr(owner - 1))
    while word & OWNER_MASK == owner:
        if cas_acq_rel(lock, word, 0):
            futex_wake(lock)
            return 1
        word = load_acquire(lock)  # somebody went to sleep on it
    return 0
