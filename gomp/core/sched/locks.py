"""Locks in shared memory that a dead owner cannot hold for ever.

A lock word is 0, or its owner's P index + 1, with CONTENDED if somebody sleeps on it. Because it names its owner, repair can release the
locks of a dead P. A waiter that has nothing else in hand parks when a stop is requested; holders never park or poll, and hold a lock for a
few instructions. Hence with the world stopped no living P holds a lock.

Ranks: a P holds one lock at a time. Whoever needs a second takes it by :func:`try_lock` and backs out if it is taken.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.sched.status import park_while_stopped, stop_requested
from gomp.core.shm.atomics import cas_acq_rel, cpu_pause, load_acquire, xchg_acq_rel
from gomp.core.shm.libc import futex_wait, futex_wake, sched_yield
from gomp.core.shm.records import self_p

CONTENDED = 1 << 16  # in the low half of the word, which is what a futex compares
OWNER_MASK = CONTENDED - 1
_SPINS = 100
_NAP_NS = 1_000_000


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
    me = self_p()
    me.waiting_for = lock
    mine = me.idx + 1
    tries = 0
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
            park_while_stopped()
        elif tries < 2 * _SPINS:
            sched_yield()
        elif word & CONTENDED or cas_acq_rel(lock, word, word | CONTENDED):
            futex_wait(lock, word | CONTENDED, _NAP_NS)
    me.no_park += 1
    me.waiting_for = 0


@inline
def assert_held(lock: int) -> bool:
    """Whether this P holds the lock: for checks."""
    return (load_acquire(lock) & OWNER_MASK) == self_p().idx + 1
