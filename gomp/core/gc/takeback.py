"""Taking a P back from a process that has left: it has said so, has nothing mapped any more, and died in the middle of nothing.

So nothing is half done, and what is derived is right: no walk through the heap, as a repair is. Only where something outside the P's own record still
names that process, a wait at a channel, a parcel under way, a finalizer of its own, is it as if it had died (:mod:`~gomp.core.gc.repair`).
"""

from __future__ import annotations

from gomp.core.gc import work
from gomp.core.gc.repair import forget_process_stw
from gomp.core.gc.specials import has_specials_stw
from gomp.core.heap.mcache import release_all_stw
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import load64, load_acquire, store64
from gomp.core.shm.records import G_DEAD, g_at, p_at, sched


@kernel("int64(int64)")
def take_back_stw(p: int) -> int:
    """Make the P at ``p`` one that nobody has, as it was before it was lent: 1, or 0 if something else names its process. World: stopped."""
    if _is_awaited_stw(p) or has_specials_stw(p) or not _drop_handles_stw(p):
        return 0
    release_all_stw(p)
    work.dispose(p)
    forget_process_stw(p)
    return 1


@inline
def _is_awaited_stw(p: int) -> bool:
    """Whether a goroutine waits for which somebody there waited."""
    home = p_at(p).idx + 1
    for g in range(1, sched().ngs + 1):
        if g_at(layout.g_addr(g)).home == home and load_acquire(layout.g_addr(g)) != G_DEAD:
            return True
    return False


@inline
def _drop_handles_stw(p: int) -> bool:
    """Clear its references; false, and nothing is changed, if one is in transit, whose ticket is below 0."""
    pp = p_at(p)
    first = layout.handles_addr(pp.idx)
    for slot in range(first, first + 8 * pp.handles, 8):
        if load64(slot) < 0:
            return False
    for slot in range(first, first + 8 * pp.handles, 8):
        store64(slot, 0)
    pp.handles = 0
    return True
