"""Roots: where marking begins.

The root table is cut into shards, jobs that any marker takes by number. What belongs to a P, its handles and its native stack, is scanned once
a cycle as one: by the P itself at a poll, or by whoever claims it while it is SAFE (see :mod:`~gomp.core.gc.ragged`). From then on it is
black: what the P loads from the heap is kept by the barrier, and what it allocates is born black.

Handles and the root table are precise; native stacks, as published by their Ps, are not.
"""

from __future__ import annotations

from gomp.core.gc.mark import grey, grey_conservative
from gomp.core.gc.poolroots import pool_record
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_relaxed, load64, load_acquire, load_relaxed, store_release
from gomp.core.shm.records import (
    P_XNATIVE_N,
    P_XPENDING,
    PACER_XGLOBALS_WORK,
    PACER_XSTACK_WORK,
    POOL_PRIVATE,
    POOL_RING,
    POOL_VICTIM_PRIVATE,
    POOL_VICTIM_RING,
    RT_XCYCLES,
    RT_XROOT_NEXT,
    p_at,
    runtime,
)

NO_JOB = -1
_GLOBALS_PER_SHARD = 512
_GLOBAL_RECORD = 64


@kernel("void()")
def prepare_root_jobs_stw() -> None:
    rt = runtime()
    rt.root_global_shards = (rt.nglobals + _GLOBALS_PER_SHARD - 1) // _GLOBALS_PER_SHARD
    rt.root_jobs = rt.root_global_shards + rt.npools
    store_release(RT_XROOT_NEXT, 0)


@inline
def has_root_jobs() -> bool:
    return load_relaxed(RT_XROOT_NEXT) < runtime().root_jobs


@kernel("int64(int64)")
def run_root_job(p: int) -> int:
    """Take the next root job and grey what it finds: the bytes scanned, or NO_JOB."""
    if not has_root_jobs():
        return NO_JOB
    shard = add_relaxed(RT_XROOT_NEXT, 1)
    if shard >= runtime().root_jobs:
        return NO_JOB
    if shard >= runtime().root_global_shards:
        return _scan_pool(p, shard - runtime().root_global_shards)
    first = shard * _GLOBALS_PER_SHARD
    last = min(first + _GLOBALS_PER_SHARD, runtime().nglobals)
    for i in range(first, last):
        _grey_root(p, layout.GLOBALS_BASE + i * _GLOBAL_RECORD)
    work = 8 * (last - first)
    add_relaxed(PACER_XGLOBALS_WORK, work)
    return work


@inline
def _scan_pool(p: int, pool: int) -> int:
    """Private words and rings, and those of the victims. They count as no work, as in Go."""
    for i in range(runtime().nrecords):
        record = pool_record(pool, i)
        _grey_root(p, record + POOL_PRIVATE)
        _grey_root(p, record + POOL_RING)
        _grey_root(p, record + POOL_VICTIM_PRIVATE)
        _grey_root(p, record + POOL_VICTIM_RING)
    return 0


@inline
def _grey_root(p: int, slot: int) -> None:
    word = load_relaxed(slot)
    if word != 0:
        grey(p, word, slot)


@inline
def is_scanned(p: int) -> bool:
    """Whether handles and stack of the P at ``p`` are black in this cycle."""
    return p_at(p).scanned_cycle == load_relaxed(RT_XCYCLES)


@kernel("void(int64)")
def scan_p(p: int) -> None:
    """Grey what handles and native stack of the P at ``p`` lead to, into its own buffers. Called as an action of a ragged barrier is."""
    pp = p_at(p)
    handles = layout.handles_addr(pp.idx)
    for slot in range(handles, handles + 8 * pp.handles, 8):
        _grey_root(p, slot)
    grey_conservative(p, load_relaxed(p + P_XPENDING))
    native = layout.native_roots_addr(pp.idx)
    n = load_acquire(p + P_XNATIVE_N)
    for slot in range(native, native + 8 * n, 8):
        grey_conservative(p, load64(slot))
    add_relaxed(PACER_XSTACK_WORK, 8 * (pp.handles + n))
    pp.scanned_cycle = load_relaxed(RT_XCYCLES)
    pp.scans += 1
