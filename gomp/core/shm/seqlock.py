"""What one process writes and others copy without a lock.

Who writes: a counter says that the place changes, or that another place is the one to read; ``fence_release``; the stores; the counter again
(release). Who reads: ``load_acquire`` of the counter, a copy by plain loads, :func:`load_after_reads` of the counter. If both are the same, and say
that nothing is being changed, no store of the copy's place was seen in part: the fences pair, so whoever has seen one of those stores sees the
counter that was stored before it.
"""

from __future__ import annotations

from gomp.core.jit import kernel
from gomp.core.shm.atomics import fence_acquire, load_relaxed


@kernel("int64(int64)")
def load_after_reads(addr: int) -> int:
    """The word at ``addr``, loaded after all that the caller has read, in Python too."""
    fence_acquire()
    return load_relaxed(addr)
