"""Committing memory of the segments: before anybody touches it, so that too little memory is an error we get and never a SIGBUS.

Under a cgroup's limit ``fallocate`` does not fail, it wakes the kernel's OOM killer. So each commit first takes its bytes from a budget, which
the coordinator sets from the cgroup's headroom, now and then and whenever a commit has failed. Without a limit the budget is endless.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.shm.atomics import add_acq_rel, add_relaxed, cas_acq_rel, load_acquire, load_relaxed, store_release
from gomp.core.shm.libc import EINTR, ENOMEM, fallocate
from gomp.core.shm.records import MHEAP_XBUDGET, MHEAP_XDONE, MHEAP_XTABLES, MHEAP_XTAKEN

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
    add_acq_rel(MHEAP_XDONE, absent)
    if code != 0:
        return_budget(absent)
    return code


@kernel("int64(int64, int64, int64)")
def commit_table(fd: int, offset: int, size: int) -> int:
    """As :func:`commit`, for more of a table of the metadata segment."""
    code = commit(fd, offset, size)
    if code == 0:
        add_relaxed(MHEAP_XTABLES, size)
    return code


@kernel("int64(int64, int64, int64)")
def commit_table_beyond(fd: int, offset: int, size: int) -> int:
    """As :func:`commit_table`, where the budget does not count: for little, without which no collection can make room."""
    code = fallocate_all(fd, offset, size)
    if code == 0:
        add_relaxed(MHEAP_XTABLES, size)
    return code


@kernel("int64(int64)")
def take_budget(size: int) -> int:
    """For private memory of the coordinator, which the same limit counts: 1, or 0 if so much must not be touched now."""
    if not _try_take_budget(size):
        return 0
    add_acq_rel(MHEAP_XDONE, size)  # by the coordinator alone, which is not looking meanwhile
    return 1


@kernel("int64()")
def budget_left() -> int:
    return load_relaxed(MHEAP_XBUDGET)


@kernel("int64()")
def committed_so_far() -> int:
    """Bytes that were taken from the budget and are in memory by now, or never will be: what a count of the memory, begun now, will find."""
    return load_acquire(MHEAP_XDONE)


@kernel("void(int64, int64)")
def renew_budget(before: int, room: int) -> None:
    """Let ``room`` bytes be committed, as they were counted after ``before`` was :func:`committed_so_far`, less what was not found by that count.

    A byte may be missing until the next time, and is never there twice:

    taken     is counted before it leaves the budget, and done when it is in memory: so what the count did not find is among taken less ``before``.
    returned  comes to the budget before it leaves the memory: so it is in the count only if it was in the budget that is read here.

    The budget is read before what was taken, and the difference is added: who takes or returns in between does so to the sum.
    """
    budget = load_acquire(MHEAP_XBUDGET)
    taken = load_acquire(MHEAP_XTAKEN)
    add_acq_rel(MHEAP_XBUDGET, max(room - (taken - before), 0) - budget)


@kernel("void()")
def forget_takers_stw() -> None:
    """Those who had taken and not done are dead, or will try again. World: stopped."""
    store_release(MHEAP_XDONE, load_acquire(MHEAP_XTAKEN))


@inline
def return_budget(size: int) -> None:
    """Before so many bytes are returned: else what is returned and wanted again would be missing until the coordinator renews the budget."""
    add_acq_rel(MHEAP_XBUDGET, size)


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
    if budget < size:
        return False
    add_acq_rel(MHEAP_XTAKEN, size)
    while budget >= size and not cas_acq_rel(MHEAP_XBUDGET, budget, budget - size):
        budget = load_relaxed(MHEAP_XBUDGET)
    if budget < size:
        add_acq_rel(MHEAP_XDONE, size)
    return budget >= size
