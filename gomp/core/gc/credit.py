"""Credit: what marking in the background earns for allocations to come, in bytes of scan work, and who waits for it.

As in mgcmark.go, bgScanCredit and assistQueue.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.shm.atomics import add_acq_rel, add_relaxed, load_relaxed
from gomp.core.shm.libc import futex_wake
from gomp.core.shm.records import PACER_XCREDIT, PACER_XCREDIT_GIVEN, PACER_XWAITERS


@kernel("void(int64)")
def give(scanned: int) -> None:
    if scanned == 0:
        return
    add_relaxed(PACER_XCREDIT, scanned)
    call_waiters()


@inline
def steal(need: int) -> int:
    """Take up to ``need`` of the credit; how much it was."""
    credit = load_relaxed(PACER_XCREDIT)
    if credit <= 0:
        return 0
    stolen = min(credit, need)
    add_relaxed(PACER_XCREDIT, -stolen)  # two may take the same: it goes below zero then, and is missing later
    return stolen


@inline
def call_waiters() -> None:
    """Have assists that wait go on: there is credit, or something to mark (enlistWorker), or nobody has to assist now."""
    if load_relaxed(PACER_XWAITERS) > 0:
        call_all()


@inline
def call_all() -> None:
    add_acq_rel(PACER_XCREDIT_GIVEN, 1)
    futex_wake(PACER_XCREDIT_GIVEN)
