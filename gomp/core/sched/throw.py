"""``throw``: a kernel found what cannot be. It records what and where; the coordinator prints both and ends the runtime.

The first throw wins: it takes the word with the negated code, writes the rest, and then the code, which is when the coordinator sees it. The
thrower goes on, in a heap that is lost: nothing is saved from it, and the coordinator kills the Ps as soon as it has said why.
"""

from __future__ import annotations

from gomp.core.jit import kernel
from gomp.core.shm.atomics import cas_acq_rel, store_release
from gomp.core.shm.libc import eventfd_signal
from gomp.core.shm.records import RT_XTHROW, runtime, self_p

(
    THROW_BAD_POINTER,
    THROW_ZOMBIE,
    THROW_SWEEP_STATE,
    THROW_BAD_FREE,
    THROW_UNFINISHED_MARK,
    THROW_LOST_LOCK,
) = range(1, 7)

MESSAGES = {
    THROW_BAD_POINTER: "found bad pointer in the heap: {a:#x}, in the object at {b:#x}",
    THROW_ZOMBIE: "marked a free object: the span at page {a} has {b} more marks than objects",
    THROW_SWEEP_STATE: "the span at page {a} has state {b:#x}, not that of an unswept span",
    THROW_BAD_FREE: "page {a} of {b} was freed twice",
    THROW_UNFINISHED_MARK: "marking ended with {a} buffers of work left",
    THROW_LOST_LOCK: "the lock at {a:#x} was not released by P{b}",
}


@kernel("void(int64, int64, int64)")
def throw(code: int, a: int, b: int) -> None:
    rt = runtime()
    if cas_acq_rel(RT_XTHROW, 0, -code):
        rt.throw_a = a
        rt.throw_b = b
        store_release(RT_XTHROW, code)
    eventfd_signal(self_p().wake_fd)
