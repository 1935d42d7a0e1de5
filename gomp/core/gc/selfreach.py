"""GODEBUG=checkfinalizers: objects with a finalizer that lead back to themselves, through another object. They are never finalized.

A trace for each, with the verifier's own steps. World: stopped.
"""

from __future__ import annotations

from gomp.core.gc.verify import visit_object
from gomp.core.heap import mspan
from gomp.core.jit import kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import load64, load_acquire, lsr
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


@kernel("int64(int64, int64, int64, int64)")
def leads_back(out: int, visited: int, stack: int, n: int) -> int:
    """Whether the object of the n-th record has a finalizer and leads back to itself. ``visited`` is zeroed; see check_reachable."""
    at = layout.SPECIALS_BASE + _RECORD * n
    s = special_at(at)
    if load_acquire(at) != SPECIAL_ARMED or s.kind != SPECIAL_FINALIZER:
        return NOT_ARMED
    page = mspan.find_span(s.addr)
    obj = mspan.obj_addr(page, mspan.obj_idx_of(page, s.addr))
    word_idx = (obj - layout.HEAP_BASE) >> 3
    depth = visit_object(out, visited, stack, 0, obj, 1)
    while depth > 0:
        depth = visit_object(out, visited, stack, depth - 1, load64(stack + 8 * (depth - 1)), 0)
        if lsr(load64(visited + ((word_idx >> 6) << 3)), word_idx & 63) & 1:
            return LEADS_BACK
    return LEADS_ELSEWHERE
