"""Locks and groups as programs use them that run on native stacks: in compiled code, where they wait, and from Python by slot numbers."""

from __future__ import annotations

from gomp.core.heap.mheap import NO_MEMORY
from gomp.core.jit import kernel
from gomp.core.mutator.boundary import load_handle
from gomp.core.mutator.goroutine import end_g, start_waiter
from gomp.core.mutator.sync import (
    add_locked,
    holder,
    lock_locked,
    lock_mutex,
    tell_first_locked,
    try_lock_mutex,
    unlock_locked,
    wait_group,
    wait_group_locked,
)
from gomp.core.mutator.waitcalls import begin_call, begin_waiting, end_call, joined, wait_until_done
from gomp.core.sched.status import OK, RETRY, enter, leave
from gomp.core.shm.records import CHAN_DONE, CHAN_WOULD_BLOCK

# --- in compiled code -------------------------------------------------------------------------------------------------


@kernel("int64(int64)")
def lock_waiting(m: int) -> int:
    """Lock, however long it takes: at least 0; or why not, NO_MEMORY or as await_done says."""
    if lock_mutex(m, holder(0), 0) != CHAN_WOULD_BLOCK:
        return OK
    g = start_waiter()
    if g < 0:
        return NO_MEMORY
    done = lock_mutex(m, holder(0), g)
    if done == CHAN_WOULD_BLOCK:
        done = wait_until_done(g)
    end_g(g)
    return done


@kernel("int64(int64)")
def wait_group_waiting(group: int) -> int:
    """Wait for a group, as :func:`lock_waiting`."""
    if wait_group(group, 0) != CHAN_WOULD_BLOCK:
        return OK
    g = start_waiter()
    if g < 0:
        return NO_MEMORY
    done = wait_group(group, g)
    if done == CHAN_WOULD_BLOCK:
        done = wait_until_done(g)
    end_g(g)
    return done


# --- from Python ------------------------------------------------------------------------------------------------------


@kernel("int64(int64)")
def mutex_lock(slot: int) -> int:
    """CHAN_DONE, CHAN_WOULD_BLOCK or RETRY."""
    if enter() != OK:
        return RETRY
    is_locked = try_lock_mutex(load_handle(slot), holder(0))
    leave()
    return CHAN_DONE if is_locked else CHAN_WOULD_BLOCK


@kernel("int64(int64)")
def mutex_wait_to_lock(slot: int) -> int:
    """As :func:`mutex_lock`; where that would block, address of a goroutine that waits from now on, OUT_OF_MEMORY, or RETRY."""
    g = begin_waiting(slot)
    if g < 0:
        return g
    m = load_handle(slot)
    return joined(g, m, lock_locked(m, holder(0), g))


@kernel("int64(int64)")
def mutex_unlock(slot: int) -> int:
    """CHAN_DONE, NOT_LOCKED or RETRY."""
    m = begin_call(slot)
    if m == 0:
        return RETRY
    return end_call(m, unlock_locked(m))


@kernel("int64(int64, int64)")
def group_add(slot: int, n: int) -> int:
    """MORE, NEGATIVE or RETRY; or ALL_DONE: then :func:`group_tell` whoever waits."""
    group = begin_call(slot)
    if group == 0:
        return RETRY
    return end_call(group, add_locked(group, n))


@kernel("int64(int64)")
def group_tell(slot: int) -> int:
    """Tell one who waits that all are done: 1, 0 if nobody does, or RETRY."""
    group = begin_call(slot)
    if group == 0:
        return RETRY
    return end_call(group, 1 if tell_first_locked(group) else 0)


@kernel("int64(int64)")
def group_wait(slot: int) -> int:
    """CHAN_DONE, CHAN_WOULD_BLOCK or RETRY."""
    group = begin_call(slot)
    if group == 0:
        return RETRY
    return end_call(group, wait_group_locked(group, 0))


@kernel("int64(int64)")
def group_wait_to_be_done(slot: int) -> int:
    """As :func:`group_wait`; where that would block, address of a goroutine that waits from now on, OUT_OF_MEMORY, or RETRY."""
    g = begin_waiting(slot)
    if g < 0:
        return g
    group = load_handle(slot)
    return joined(g, group, wait_group_locked(group, g))
