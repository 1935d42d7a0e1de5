"""What a collection does with pools: rotates them when it begins, and finds what is left in them."""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import load_relaxed, store_relaxed
from gomp.core.shm.records import (
    POOL_EVICTIONS,
    POOL_HEAD,
    POOL_PRIVATE,
    POOL_RING,
    POOL_TAIL,
    POOL_VICTIM_HEAD,
    POOL_VICTIM_PRIVATE,
    POOL_VICTIM_RING,
    POOL_VICTIM_TAIL,
    RT_XNPOOLS,
    nrecords,
)


@inline
def pool_record(pool: int, p_idx: int) -> int:
    return layout.POOLS_BASE + pool * layout.POOL_BYTES + p_idx * layout.POOL_RECORD


@kernel("void()")
def rotate_pools_stw() -> None:
    """Go's clearpools: victims are dropped, what is there becomes the victim. World: stopped, nothing marked yet."""
    for pool in range(load_relaxed(RT_XNPOOLS)):
        for i in range(nrecords()):
            _rotate(pool_record(pool, i))


@inline
def _rotate(record: int) -> None:
    left = load_relaxed(record + POOL_VICTIM_HEAD) - load_relaxed(record + POOL_VICTIM_TAIL)
    if load_relaxed(record + POOL_VICTIM_PRIVATE) != 0:
        left += 1
    store_relaxed(record + POOL_EVICTIONS, load_relaxed(record + POOL_EVICTIONS) + left)
    store_relaxed(record + POOL_VICTIM_PRIVATE, load_relaxed(record + POOL_PRIVATE))
    store_relaxed(record + POOL_VICTIM_RING, load_relaxed(record + POOL_RING))
    store_relaxed(record + POOL_VICTIM_HEAD, load_relaxed(record + POOL_HEAD))
    store_relaxed(record + POOL_VICTIM_TAIL, load_relaxed(record + POOL_TAIL))
    store_relaxed(record + POOL_PRIVATE, 0)
    store_relaxed(record + POOL_RING, 0)
    store_relaxed(record + POOL_HEAD, 0)
    store_relaxed(record + POOL_TAIL, 0)
