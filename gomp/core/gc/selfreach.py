"""GODEBUG=checkfinalizers: objects with a finalizer that lead back to themselves, through another object. They are never finalized.

A trace for each. World: stopped.
"""

from __future__ import annotations

from gomp.core.gc.verify.trace import T_FOUND, T_TARGET, follow, visit_object
from gomp.core.heap import mspan
from gomp.core.jit import kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import load64, load_acquire, store64
from gomp.core.shm.records import (
    SPECIAL_ARMED,
    SPECIAL_CLEANUP,
    SPECIAL_FINALIZER,
    SPECIAL_QUEUED,
    runtime,
    special_at,
)

NOT_ARMED, LEADS_ELSEWHERE, LEADS_BACK = 0, 1, 2
_RECORD = 64


@kernel("int64(int64, int64)")
def count_queued(finalizers: int, cleanups: int) -> int:
    """How many finalizers, or cleanups, are due and not begun; both if both are asked for."""
    found = 0
    for n in range(runtime().nspecials):
        at = layout.SPECIALS_BASE + _RECORD * n
        kind = special_at(at).kind
        if load_acquire(at) == SPECIAL_QUEUED:
            found += 1 if (finalizers and kind == SPECIAL_FINALIZER) or (cleanups and kind == SPECIAL_CLEANUP) else 0
    return found


@kernel("int64(int64, int64)")
def leads_back(t: int, n: int) -> int:
    """Whether the object of the n-th record has a finalizer and leads back to itself. ``t`` is a fresh trace."""
    at = layout.SPECIALS_BASE + _RECORD * n
    s = special_at(at)
    if load_acquire(at) != SPECIAL_ARMED or s.kind != SPECIAL_FINALIZER:
        return NOT_ARMED
    page = mspan.find_span(s.addr)
    obj = mspan.obj_addr(page, mspan.obj_idx_of(page, s.addr))
    store64(t + T_TARGET, obj)
    visit_object(t, obj, 1)
    follow(t)
    return LEADS_BACK if load64(t + T_FOUND) != 0 else LEADS_ELSEWHERE
