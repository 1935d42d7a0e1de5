"""Loads and stores of reference fields: the only way a program touches one.

Both are relaxed atomics: a marker in another process may read the word at any moment. ``new`` has fenced the object that a store publishes.

The phase changes only while the world is stopped, and a P does not stop between the test and the store.
"""

from __future__ import annotations

from gomp.core.gc.wbbuf import record_write
from gomp.core.jit import inline
from gomp.core.shm.atomics import load_relaxed, store_relaxed
from gomp.core.shm.records import GC_OFF, RT_XGCPHASE


@inline
def read_pointer(slot: int) -> int:
    return load_relaxed(slot)


@inline
def write_pointer(slot: int, value: int) -> None:
    if load_relaxed(RT_XGCPHASE) != GC_OFF:
        record_write(slot, value)
    store_relaxed(slot, value)
