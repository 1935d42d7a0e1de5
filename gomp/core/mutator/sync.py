"""Locks and groups in the heap: Go's sync.Mutex and sync.WaitGroup, four words each. Locks and kills: see :mod:`~gomp.core.mutator.waits`.

lock    HOLDER: 0, or twice the number of who holds it, + 1 if others wait or have waited. Without others locking and unlocking is one
        compare-and-swap each; with others it is handed to who has waited longest. So nobody waits at one that is free. Handing it to one that sleeps
        takes as long as waking it: so who finds it held looks for a moment whether it becomes free, and only then waits.
group   PENDING: how many are not done. When it becomes 0 its GENERATION begins, and all wait no more that waited in an earlier one: so who
        waits again at once does not run into those that are yet to be told.

Who holds a lock is a goroutine, by its id, or the program of a P: less than 0.
"""

from __future__ import annotations

from gomp.core.heap.sizeclass import SPAN_ELEM_SIZE, span_class_for
from gomp.core.heap.waitq import GENERATION, HOLDER, LAST_WAITER, PENDING, WAITERS, claim_first_locked, wait_locked
from gomp.core.jit import inline, kernel
from gomp.core.mutator.waits import commit_woken, lock, lock_for, unlock
from gomp.core.sched import redo
from gomp.core.sched.runq import NO_G
from gomp.core.shm import layout
from gomp.core.shm.atomics import cas_acq_rel, cpu_pause, load64, load_acquire
from gomp.core.shm.records import CHAN_DONE, CHAN_WOULD_BLOCK, WAITS_FOR_GROUP, WAITS_FOR_LOCK, g_at, self_p

SYNC_BYTES = LAST_WAITER + 8
SYNC_CLASS = span_class_for(SYNC_BYTES, False)
SYNC_SLOT = SPAN_ELEM_SIZE[SYNC_CLASS]
NOT_LOCKED = NEGATIVE = -10  # what unlock_mutex and add_locked say; not RETRY
ALL_DONE, MORE = 0, 1
_WAITED = 1
_SPINS = 200  # a microsecond or two


# --- locks ------------------------------------------------------------------------------------------------------------


@inline
def holder(g: int) -> int:
    """Who the goroutine at ``g`` is as the holder of a lock; 0: the program that this P runs."""
    return g_at(g).id if g != 0 else -1 - self_p().idx


@inline
def try_lock_mutex(m: int, who: int) -> bool:
    return cas_acq_rel(m + HOLDER, 0, 2 * who)


@inline
def lock_mutex(m: int, who: int, g: int) -> int:
    """Lock the lock at ``m`` for ``who``, in KERNEL: CHAN_DONE. Or CHAN_WOULD_BLOCK, and the goroutine at ``g``, if it is one, waits from now on."""
    if try_lock_mutex(m, who):
        return CHAN_DONE
    return _lock_slow(m, who, g)


@kernel("int64(int64, int64, int64)")
def _lock_slow(m: int, who: int, g: int) -> int:
    for _ in range(_SPINS):
        word = load_acquire(m + HOLDER)
        if word & _WAITED:
            break
        if word == 0 and cas_acq_rel(m + HOLDER, 0, 2 * who):
            return CHAN_DONE
        cpu_pause()
    if g == 0:
        return CHAN_WOULD_BLOCK
    lock_for(m, g)
    done = lock_locked(m, who, g)
    unlock(m)
    return done


@inline
def lock_locked(m: int, who: int, g: int) -> int:
    """Holds: the lock of the thing at ``m``, until :func:`~gomp.core.mutator.waits.unlock`."""
    while True:
        word = load_acquire(m + HOLDER)
        if word == 0:
            if cas_acq_rel(m + HOLDER, 0, 2 * who):
                return CHAN_DONE
        elif word & _WAITED or cas_acq_rel(m + HOLDER, word, word | _WAITED):
            g_at(g).elem_is_link = 0
            g_at(g).elem = who
            wait_locked(g, m, WAITS_FOR_LOCK)
            return CHAN_WOULD_BLOCK


@inline
def unlock_mutex(m: int) -> int:
    """Unlock the lock at ``m``, in KERNEL: CHAN_DONE or NOT_LOCKED."""
    word = load_acquire(m + HOLDER)
    if word == 0:
        return NOT_LOCKED
    if word & _WAITED == 0 and cas_acq_rel(m + HOLDER, word, 0):
        return CHAN_DONE
    return _unlock_slow(m)


@kernel("int64(int64)")
def _unlock_slow(m: int) -> int:
    lock(m)
    done = unlock_locked(m)
    unlock(m)
    return done


@inline
def unlock_locked(m: int) -> int:
    """Holds: the lock of the thing at ``m``, until :func:`~gomp.core.mutator.waits.unlock`."""
    while True:
        word = load_acquire(m + HOLDER)
        if word == 0:
            return NOT_LOCKED
        first = claim_first_locked(m + WAITERS)
        if first != NO_G:  # so others have waited, and nobody but the holder of this lock changes the word
            redo.plan(0, m + HOLDER, 2 * g_at(layout.g_addr(first)).elem | _WAITED)
            commit_woken(1, first, CHAN_DONE)
            return CHAN_DONE
        if cas_acq_rel(m + HOLDER, word, 0):
            return CHAN_DONE


# --- groups -----------------------------------------------------------------------------------------------------------


@kernel("int64(int64, int64)")
def add_group(group: int, n: int) -> int:
    """So many more are not done in the group at ``group``, in KERNEL: MORE; ALL_DONE, and who waits is woken; or NEGATIVE, and they are as before."""
    lock(group)
    left = add_locked(group, n)
    unlock(group)
    while left == ALL_DONE and _wake_first(group):
        pass
    return left


@inline
def add_locked(group: int, n: int) -> int:
    """Holds: the lock of the thing at ``group``, until :func:`~gomp.core.mutator.waits.unlock`."""
    pending = load64(group + PENDING) + n
    if pending < 0:
        return NEGATIVE
    redo.plan(0, group + PENDING, pending)
    if pending == 0:
        redo.plan(1, group + GENERATION, load64(group + GENERATION) + 1)
    redo.commit(2 if pending == 0 else 1)
    return ALL_DONE if pending == 0 else MORE


@inline
def _wake_first(group: int) -> bool:
    lock(group)
    is_woken = tell_first_locked(group)
    unlock(group)
    return is_woken


@inline
def tell_first_locked(group: int) -> bool:
    """Holds: the lock of the thing at ``group``, until :func:`~gomp.core.mutator.waits.unlock`. Tell the first who has waited for an earlier
    generation; whether there was one."""
    first = claim_first_locked(group + WAITERS)
    if first == NO_G or g_at(layout.g_addr(first)).elem == load64(group + GENERATION):
        return False
    commit_woken(0, first, CHAN_DONE)
    return True


@kernel("int64(int64, int64)")
def wait_group(group: int, g: int) -> int:
    """CHAN_DONE if all are done in the group at ``group``, in KERNEL. Or CHAN_WOULD_BLOCK, and the goroutine at ``g``, if it is one, waits from
    now on."""
    lock_for(group, g)
    done = wait_group_locked(group, g)
    unlock(group)
    return done


@inline
def wait_group_locked(group: int, g: int) -> int:
    """Holds: the lock of the thing at ``group``, until :func:`~gomp.core.mutator.waits.unlock`."""
    if load64(group + PENDING) == 0:
        return CHAN_DONE
    if g != 0:
        g_at(g).elem_is_link = 0
        g_at(g).elem = load64(group + GENERATION)
        wait_locked(g, group, WAITS_FOR_GROUP)
    return CHAN_WOULD_BLOCK
