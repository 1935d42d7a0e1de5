"""Root jobs: where marking begins, cut into pieces that any marker takes by number.

In order: the shards of the root table, then for each P its handles and its native stack. Handles and the root table are precise; native
stacks, as published by their Ps before they became SAFE, are not.
"""

from __future__ import annotations

from gomp.core.gc.mark import grey, grey_conservative
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_relaxed, load64, load_acquire, load_relaxed, store_release
from gomp.core.shm.records import (
    P_XNATIVE_N,
    P_XPENDING,
    RT_XROOT_NEXT,
    p_at,
    runtime,
)

_GLOBALS_PER_SHARD = 512
_GLOBAL_RECORD = 64
_JOBS_PER_P = 2


@kernel("void()")
def prepare_root_jobs_stw() -> None:
    rt = runtime()
    rt.root_global_shards = (rt.nglobals + _GLOBALS_PER_SHARD - 1) // _GLOBALS_PER_SHARD
    rt.root_jobs = rt.root_global_shards + _JOBS_PER_P * rt.nrecords
    store_release(RT_XROOT_NEXT, 0)


@inline
def has_root_jobs() -> bool:
    return load_relaxed(RT_XROOT_NEXT) < runtime().root_jobs


@kernel("int64(int64)")
def run_root_job(p: int) -> int:
    """Take the next root job and grey what it finds; 1 if there was one."""
    rt = runtime()
    job = add_relaxed(RT_XROOT_NEXT, 1)
    if job >= rt.root_jobs:
        return 0
    if job < rt.root_global_shards:
        _mark_globals(p, job)
    else:
        job -= rt.root_global_shards
        if job % _JOBS_PER_P == 0:
            _mark_handles(p, job // _JOBS_PER_P)
        else:
            _mark_native_stack(p, job // _JOBS_PER_P)
    return 1


@inline
def _mark_globals(p: int, shard: int) -> None:
    first = shard * _GLOBALS_PER_SHARD
    last = min(first + _GLOBALS_PER_SHARD, runtime().nglobals)
    for i in range(first, last):
        slot = layout.GLOBALS_BASE + i * _GLOBAL_RECORD
        word = load_relaxed(slot)
        if word != 0:
            grey(p, word, slot)


@inline
def _mark_handles(p: int, owner: int) -> None:
    base = layout.handles_addr(owner)
    for slot in range(base, base + 8 * p_at(layout.p_addr(owner)).handles, 8):
        word = load_relaxed(slot)
        if word != 0:
            grey(p, word, slot)


@inline
def _mark_native_stack(p: int, owner: int) -> None:
    grey_conservative(p, load_relaxed(layout.p_addr(owner) + P_XPENDING))
    base = layout.native_roots_addr(owner)
    n = load_acquire(layout.p_addr(owner) + P_XNATIVE_N)
    for slot in range(base, base + 8 * n, 8):
        grey_conservative(p, load64(slot))
