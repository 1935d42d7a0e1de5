"""The write barrier's buffers: one a P, of the references that its programs overwrote and stored while the heap was marked.

Both are shaded when the buffer is flushed, whatever their colours and that of the stack (mwbbuf.go). The overwritten one keeps every object
markable that was reachable when the marking began (deletion, Yuasa); the stored one those that only a stack knew which was scanned later
(insertion, Dijkstra). So a stack is scanned once and never again.

A buffer is flushed by its P when it is full, and in the ragged barrier and the stop that end the marking.
"""

from __future__ import annotations

from gomp.core.gc.mark import grey_later, grey_pending
from gomp.core.jit import kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import load64, load_relaxed, store64
from gomp.core.shm.records import P_WBBUF, WB_ENTRIES, p_at, self_p

_BUFFER = layout.SELF_BASE + P_WBBUF


@kernel("int64(int64)")
def flush(p: int) -> int:
    """Shade what is in the buffer of the P at ``p``; how many words that were. Called by that P in KERNEL, its claimer, or with the world stopped."""
    pp = p_at(p)
    n = pp.wb_n
    for i in range(n):
        grey_later(p, load64(p + P_WBBUF + 8 * i), 0)
    grey_pending(p)
    pp.wb_n = 0
    pp.barrier_flushes += n > 0
    return n


@kernel("void()")
def flush_own() -> None:
    flush(layout.p_addr(self_p().idx))


@kernel("void(int64, int64)")
def record_write(slot: int, value: int) -> None:
    """Before ``value`` is stored to ``slot`` by this P, in KERNEL.

    Most of what it costs is the load of what is overwritten, where a store alone would not have waited for memory.
    """
    me = self_p()
    if me.wb_n > WB_ENTRIES - 2:
        flush_own()
    n = me.wb_n
    old = load_relaxed(slot)
    if old != 0:
        store64(_BUFFER + 8 * n, old)
        n += 1
    if value != 0:
        store64(_BUFFER + 8 * n, value)
        n += 1
    me.wb_n = n
