"""The redo record: a few stores that happen all or, for a process killed in between, all once repair has run.

Values are absolute, so repair may store them any number of times: ``xredo_n`` says that the record is complete, and is cleared after the
stores. Order: the record, then n (release), then the stores, then n = 0 (release).
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import load64, load_acquire, load_relaxed, store_release
from gomp.core.shm.records import P_REDO_ADDR, P_REDO_VALUE, P_XREDO_N, gcstats

_N = layout.SELF_BASE + P_XREDO_N
_ADDR = layout.SELF_BASE + P_REDO_ADDR
_VALUE = layout.SELF_BASE + P_REDO_VALUE
REDO_MAX = 8


@inline
def plan(i: int, addr: int, value: int) -> None:
    """The i-th store of the next :func:`commit`; ``addr`` is not in this process's alias of its P.

    Release, so that it does not move up before the ``n = 0`` of the last commit: that record would be done again with this one's stores.
    """
    store_release(_ADDR + 8 * i, addr)
    store_release(_VALUE + 8 * i, value)


@inline
def commit(n: int) -> None:
    """Do the ``n`` <= REDO_MAX planned stores, in order."""
    store_release(_N, n)
    for i in range(n):
        store_release(load_relaxed(_ADDR + 8 * i), load_relaxed(_VALUE + 8 * i))
    store_release(_N, 0)


@kernel("int64(int64)")
def apply_redo(p: int) -> int:
    """Finish what the dead P at address ``p`` had begun, and count it; returns the number of stores. May be repeated.

    Called by the coordinator, while nobody else changes those words: with the world stopped, or before the lock that they are under is released.
    """
    n = load_acquire(p + P_XREDO_N)
    for i in range(n):
        store_release(load64(p + P_REDO_ADDR + 8 * i), load64(p + P_REDO_VALUE + 8 * i))
    if n > 0:
        gcstats().repaired_redos += 1
        store_release(p + P_XREDO_N, 0)
    return n
