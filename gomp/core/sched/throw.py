"""``throw``: a kernel found what cannot be. It records what and where; the coordinator prints both and ends the runtime.

The first throw wins. Where it was found is in the thrower's own record before one compare-and-swap tells of it, so who is killed in the middle has
told all or nothing. The thrower goes on, in a heap that is lost: nothing is saved from it, and the coordinator kills the Ps as soon as it has said
why.

``tell_of_lost_lock``: somebody does not release a lock. The coordinator can do something about that, so it has a word of its own: neither keeps the
other from being told.
"""

from __future__ import annotations

from gomp.core.jit import kernel
from gomp.core.shm.atomics import cas_acq_rel, load_acquire
from gomp.core.shm.libc import eventfd_signal
from gomp.core.shm.records import RT_XLOST_LOCK, RT_XTHROW, self_p

(
    THROW_BAD_POINTER,
    THROW_ZOMBIE,
    THROW_SWEEP_STATE,
    THROW_BAD_FREE,
    THROW_UNFINISHED_MARK,
    THROW_LOST_LOCK,
    THROW_PUNCH,
) = range(1, 8)
THROW_CODES = 16  # xthrow is a code and as many times the number of the P that threw
LOCK_BITS = 47  # of the address of a lock; xlost_lock has the number of its owner above them

MESSAGES = {
    THROW_BAD_POINTER: "found bad pointer in the heap: {a:#x}, in the object at {b:#x}",
    THROW_ZOMBIE: "marked a free object: the span at page {a} has {b} more marks than objects",
    THROW_SWEEP_STATE: "the span at page {a} has state {b:#x}, not that of an unswept span",
    THROW_BAD_FREE: "page {a} of {b} was freed twice",
    THROW_UNFINISHED_MARK: "marking ended with {a} buffers of work left",
    THROW_LOST_LOCK: "the lock at {a:#x} was not released by P{b}",
    THROW_PUNCH: "the system does not take back the memory of page {a}: errno {b}",
}


@kernel("void(int64, int64, int64)")
def throw(code: int, a: int, b: int) -> None:
    me = self_p()
    if load_acquire(RT_XTHROW) == 0:
        me.throw_a = a
        me.throw_b = b
        cas_acq_rel(RT_XTHROW, 0, code + me.idx * THROW_CODES)
    eventfd_signal(me.wake_fd)


@kernel("void(int64, int64)")
def tell_of_lost_lock(lock: int, owner: int) -> None:
    """P ``owner`` has had the lock at ``lock`` for too long. One such lock is told of at a time: who waits for another tells again later."""
    cas_acq_rel(RT_XLOST_LOCK, 0, lock + (owner << LOCK_BITS))
    eventfd_signal(self_p().wake_fd)
