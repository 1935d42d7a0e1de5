"""Committing memory of the segments: before anybody touches it, so that too little memory is an error we get and never a SIGBUS.

Under a cgroup's limit ``fallocate`` does not fail, it wakes the kernel's OOM killer. So each commit first takes its bytes from a budget, which
the coordinator sets from the cgroup's headroom, now and then and whenever a commit has failed. Without a limit the budget is endless.
"""

from __future__ import annotations

from gomp.core.jit import kernel
from gomp.core.shm.atomics import add_relaxed
from gomp.core.shm.libc import ENOMEM, fallocate
from gomp.core.shm.records import MHEAP_XBUDGET

ENDLESS = 1 << 62


@kernel("int64(int64, int64, int64)")
def commit(fd: int, offset: int, size: int) -> int:
    """Make ``size`` bytes of a segment safe to touch: 0 or a negated errno. Bytes that are committed already cost budget too."""
    if add_relaxed(MHEAP_XBUDGET, -size) < size:
        add_relaxed(MHEAP_XBUDGET, size)
        return -ENOMEM
    code = fallocate(fd, offset, size)
    if code != 0:
        add_relaxed(MHEAP_XBUDGET, size)
    return code
