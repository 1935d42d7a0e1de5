"""A compiled program that waits for Python: it has Python do something, and goes on.

Python may do anything meanwhile: collect, wait, call other programs on this stack, let other threads run programs on theirs. So the P is SAFE, and
what the program's frames hold stays in the native-roots buffer, as a *region* that is never overwritten:

1. :func:`begin_call`: publish this thread's native stack behind the regions that are there, close the region with its length, go SAFE. From here on
   the P's native roots begin behind it: a program that is called now, which publishes its own and forgets them, leaves it alone.
2. Python is called, with the interpreter's lock, which this thread has. It is given addresses as numbers. They are no more in flight than in a
   program that is parked: the frames hold them, and the region shows them to the collector until step 3.
3. :func:`end_call`: enter, and only then give the region up: whoever finds the P SAFE finds the roots.

Programs of several threads may wait at once, and need not end in the order in which they began. A region that is given up is zeroed, and marked as
dead; the P's kept words shrink by all dead regions at their end. A length has no bits of a heap address, and so is no root.

Room in the buffer. While a program waits, another may begin a region behind its own; when the first goes on, its stack comes behind that. So whoever
begins a region has room committed behind it for the deepest stack of all that ever waited: :func:`end_call` cannot fail for want of it.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.mutator.boundary import fill_handle
from gomp.core.sched.status import (
    OK,
    RETRY,
    commit_native_roots,
    enter,
    enter_waiting,
    forget_native_roots,
    guard_native_stack,
    leave,
    native_bytes,
    publish_native_roots,
)
from gomp.core.shm import layout
from gomp.core.shm.atomics import load64, load_acquire, load_relaxed, lsr, store64, store_relaxed
from gomp.core.shm.libc import stack_pointer
from gomp.core.shm.records import P_XNATIVE_KEPT, P_XNATIVE_N, RT_XSHUTDOWN, self_p

_DEAD = 1  # in a region's last word, beside twice its length
_KEPT = layout.SELF_BASE + P_XNATIVE_KEPT


@inline
def _word_addr(n: int) -> int:
    return layout.native_roots_addr(self_p().idx) + 8 * n


@kernel("int64()")
def begin_call() -> int:
    """KERNEL → SAFE, the native stack kept: the region's number. -1 if there is no memory for it: the program runs on."""
    me = self_p()
    deepest = max(me.native_deepest, native_bytes(stack_pointer()))
    first = load_relaxed(_KEPT)
    publish_native_roots()
    n = load_relaxed(layout.SELF_BASE + P_XNATIVE_N)
    if commit_native_roots(8 * (n + 1) + deepest) != OK:
        forget_native_roots()
        return -1
    me.native_deepest = deepest
    store64(_word_addr(n), 2 * (n - first))
    store_relaxed(_KEPT, n + 1)
    forget_native_roots()
    leave()
    return n


@kernel("int64(int64, int64, int64, int64)")
def end_call(region: int, native_base: int, stack_low: int, stack_thread: int) -> int:
    """SAFE → KERNEL, in the program that began the region, whose stack the rest describes: OK, or RETRY, and still SAFE, if the runtime has ended."""
    if load_acquire(RT_XSHUTDOWN) != 0 or enter_waiting() != OK:
        return RETRY
    _give_up(region)
    me = self_p()
    me.native_base = native_base
    me.stack_low = stack_low
    me.stack_thread = stack_thread
    guard_native_stack()
    return OK


@inline
def _give_up(region: int) -> None:
    length = lsr(load64(_word_addr(region)), 1)
    for n in range(region - length, region):
        store64(_word_addr(n), 0)
    store64(_word_addr(region), 2 * length + _DEAD)
    kept = load_relaxed(_KEPT)
    while kept > 0 and load64(_word_addr(kept - 1)) & _DEAD:
        kept -= lsr(load64(_word_addr(kept - 1)), 1) + 1
    store_relaxed(_KEPT, kept)
    forget_native_roots()


@kernel("int64(int64, int64)")
def root_address(addr: int, into: int) -> int:
    """Root what a program that waits has given Python in the empty slot ``into``: OK or RETRY."""
    if enter() != OK:
        return RETRY
    fill_handle(into, addr)
    leave()
    return OK
