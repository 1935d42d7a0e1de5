"""Committing memory of the segments: before anybody touches it, so that too little memory is an error we get and never a SIGBUS.

Under a cgroup's limit ``fallocate`` does not fail, it wakes the kernel's OOM killer. So each commit first takes its bytes from a budget, which
the coordinator sets from the cgroup's headroom, now and then and whenever a commit has failed. Without a limit the budget is endless.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.shm.atomics import add_relaxed, cas_acq_rel, load_relaxed
from gomp.core.shm.libc import EINTR, ENOMEM, fallocate
from gomp.core.shm.records import MHEAP_XBUDGET, MHEAP_XTABLES

ENDLESS = 1 << 62


@kernel("int64(int64, int64, int64)")
def commit(fd: int, offset: int, size: int) -> int:
    """Make ``size`` bytes of a segment safe to touch: 0 or a negated errno. Bytes that are committed already cost budget too."""
    return commit_absent(fd, offset, size, size)


@kernel("int64(int64, int64, int64, int64)")
def commit_absent(fd: int, offset: int, size: int, absent: int) -> int:
    """As :func:`commit`, where all but ``absent`` of the bytes are known to be in memory, and stay there: only those cost budget."""
    if not _try_take_budget(absent):
        return -ENOMEM
    code = fallocate_all(fd, offset, size)
    if code != 0:
        add_relaxed(MHEAP_XBUDGET, absent)
    return code


@kernel("int64(int64, int64, int64)")
def commit_table(fd: int, offset: int, size: int) -> int:
    """As :func:`commit`, for more of a table of the metadata segment."""
    code = commit(fd, offset, size)
    if code == 0:
        add_relaxed(MHEAP_XTABLES, size)
    return code


@kernel("int64(int64)")
def take_budget(size: int) -> int:
    """For private memory of the coordinator, which the same limit counts: 1, or 0 if so much must not be touched now."""
    return 1 if _try_take_budget(size) else 0


@kernel("int64()")
def budget_left() -> int:
    return load_relaxed(MHEAP_XBUDGET)


@kernel("void(int64, int64)")
def renew_budget(before: int, room: int) -> None:
    """Let ``room`` bytes be committed, as they were counted since the budget was ``before``, less what others have taken meanwhile.

    They may have committed it before the counting or after: at worst it is missing until the next time, and never there twice.
    """
    budget = load_relaxed(MHEAP_XBUDGET)
    while not cas_acq_rel(MHEAP_XBUDGET, budget, max(room - max(before - budget, 0), 0)):
        budget = load_relaxed(MHEAP_XBUDGET)


@inline
def fallocate_all(fd: int, offset: int, size: int) -> int:
    """``fallocate`` that no signal cuts short: older kernels undo it and return EINTR as soon as one is pending."""
    code = fallocate(fd, offset, size)
    while code == -EINTR:
        code = fallocate(fd, offset, size)
    return code


@inline
def _try_take_budget(size: int) -> bool:
    """Take ``size`` bytes if they are there; a subtraction that is taken back would fail the commits of others in between."""
    budget = load_relaxed(MHEAP_XBUDGET)
    while budget >= size and not cas_acq_rel(MHEAP_XBUDGET, budget, budget - size):
        budget = load_relaxed(MHEAP_XBUDGET)
    return budget >= size
