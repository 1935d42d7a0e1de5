"""Loads and stores of reference fields: the only way a program touches one.

Both are relaxed atomics: a marker in another process may read the word at any moment. ``new`` has fenced the object that a store publishes.
"""

from __future__ import annotations

from gomp.core.jit import inline
from gomp.core.shm.atomics import load_relaxed, store_relaxed


@inline
def read_pointer(slot: int) -> int:
    return load_relaxed(slot)


@inline
def write_pointer(slot: int, value: int) -> None:
    store_relaxed(slot, value)
