"""Roots: where marking begins.

The root table is cut into shards, jobs that any marker takes by number. So are special records and the stacks of goroutines
(:mod:`~gomp.core.gc.stackscan`), and each pool is a job. What belongs to a P, its handles, its native stack and the stacks of what it runs, is
scanned once a cycle as one: by the P itself at a poll, or by whoever claims it while it is SAFE (see :mod:`~gomp.core.gc.ragged`). From then on it is
black: what the P loads from the heap is kept by the barrier, and what it allocates is born black. The last job asks for that. Stacks come last, as in
Go: what a program drops before they are scanned is garbage in this cycle already.

Handles, the root table, pools and specials are precise; native stacks, as published by their Ps, are not.

Of a special record: what an object with a finalizer leads to is live, and the object itself is not; but once its function is due, it is. The
handles of weak pointers are. What a cleanup's function holds is held by the process that registered it. A record that is armed after its shard
was taken is seen to by whoever arms it (:mod:`~gomp.core.mutator.lifetimes`, :mod:`~gomp.core.mutator.weak`).
"""

from __future__ import annotations

from gomp.core.gc import work
from gomp.core.gc.mark import grey, grey_conservative, is_reference_word
from gomp.core.gc.poolroots import pool_record
from gomp.core.gc.specials import special_addr, state_of
from gomp.core.gc.stackscan import prepare_stack_jobs_stw, run_stack_job, scan_running
from gomp.core.heap import mspan
from gomp.core.jit import inline, kernel
from gomp.core.sched.status import ask_each_p
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_relaxed, clear_lowest, ctz, load64, load_acquire, load_relaxed, store_release
from gomp.core.shm.records import (
    P_XNATIVE_N,
    P_XPENDING,
    PACER_XGLOBALS_WORK,
    PACER_XSTACK_WORK,
    POLL_RAGGED,
    POOL_PRIVATE,
    POOL_RING,
    POOL_VICTIM_PRIVATE,
    POOL_VICTIM_RING,
    RT_XCYCLES,
    RT_XNGLOBALS,
    RT_XNPOOLS,
    RT_XROOT_NEXT,
    SPECIAL_FINALIZER,
    SPECIAL_FREE,
    SPECIAL_QUEUED,
    SPECIAL_RUNNING,
    SPECIAL_WEAK,
    nrecords,
    p_at,
    runtime,
    sched,
    spans,
    special_at,
    type_at,
)

NO_JOB = -1
_GLOBALS_PER_SHARD = 32768  # 256 KiB of references, as Go cuts its data: who takes a job pays for all of it
_SPECIALS_PER_SHARD = 512
_OBLET = 128 << 10  # so much of an array does not count that holds its own address: Go's piece of work


@kernel("void()")
def prepare_root_jobs_stw() -> None:
    rt = runtime()
    rt.root_global_shards = (load_relaxed(RT_XNGLOBALS) + _GLOBALS_PER_SHARD - 1) // _GLOBALS_PER_SHARD
    rt.root_special_shards = (rt.nspecials + _SPECIALS_PER_SHARD - 1) // _SPECIALS_PER_SHARD
    rt.root_pool_shards = load_relaxed(RT_XNPOOLS)
    sched().first_stack_job = rt.root_global_shards + rt.root_special_shards + rt.root_pool_shards
    rt.root_jobs = sched().first_stack_job + prepare_stack_jobs_stw() + 1
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
    if shard == runtime().root_jobs - 1:
        # Whoever is killed before it has asked has the marking started over; and the barrier that ends the marking asks, too.
        ask_each_p(POLL_RAGGED)
        return 0
    if shard >= runtime().root_global_shards:
        return _run_other_job(p, shard - runtime().root_global_shards)
    first = shard * _GLOBALS_PER_SHARD
    last = min(first + _GLOBALS_PER_SHARD, load_acquire(RT_XNGLOBALS))
    for i in range(first, last):
        _grey_root(p, layout.GLOBALS_BASE + i * layout.GLOBAL_RECORD)
    work = 8 * (last - first)
    add_relaxed(PACER_XGLOBALS_WORK, work)
    return work


@inline
def _run_other_job(p: int, shard: int) -> int:
    """Shards of special records come first, then pools, then stacks. What is scanned of the first two counts as the heap's.

    A pool that is made while the heap is marked has no job: all that is put into it is marked, or greyed by the barrier.
    """
    pools, stacks = runtime().root_special_shards, runtime().root_special_shards + runtime().root_pool_shards
    if shard < pools:
        _run_special_job(p, shard)
        return 0
    if shard < stacks:
        _scan_pool(p, shard - pools)
        return 0
    return run_stack_job(p, shard - stacks)


@kernel("void(int64, int64)")
def _scan_pool(p: int, pool: int) -> None:
    """Private words and rings, and those of the victims."""
    for i in range(nrecords()):
        record = pool_record(pool, i)
        _grey_root(p, record + POOL_PRIVATE)
        _grey_root(p, record + POOL_RING)
        _grey_root(p, record + POOL_VICTIM_PRIVATE)
        _grey_root(p, record + POOL_VICTIM_RING)


@inline
def _grey_root(p: int, slot: int) -> None:
    word = load_relaxed(slot)
    if word != 0:
        grey(p, word, slot)


# --- specials ---------------------------------------------------------------------------------------------------------


@kernel("void(int64, int64)")
def _run_special_job(p: int, shard: int) -> None:
    """Records are freed and used anew meanwhile: what is read of one may then be of two. Each word of it leads to an object that is allocated while
    the heap is marked, or is no address at all; so at worst something lives a cycle longer."""
    first = shard * _SPECIALS_PER_SHARD + 1
    for n in range(first, min(first + _SPECIALS_PER_SHARD, runtime().nspecials + 1)):
        grey_special(p, n)


@inline
def grey_special(p: int, n: int) -> None:
    """What a record keeps alive."""
    state = state_of(n)
    s = special_at(special_addr(n))
    if state == SPECIAL_FREE:
        return
    if s.kind == SPECIAL_WEAK:
        grey(p, s.value, special_addr(n))
    elif s.kind == SPECIAL_FINALIZER:
        if state in (SPECIAL_QUEUED, SPECIAL_RUNNING):
            grey(p, s.addr, special_addr(n))
        else:
            grey_fields(p, s.addr)


@kernel("void(int64, int64)")
def grey_fields(p: int, addr: int) -> None:
    """Grey what the object that ``addr`` leads to refers to, but not the object: its references to itself do not count (mgcmark.go, scanObject)."""
    page = mspan.span_of(addr)
    sp = spans()[page]
    if mspan.is_noscan(sp.span_class):
        return
    base = mspan.obj_addr(page, mspan.obj_idx_of(page, addr))
    if sp.elem_size > mspan.MAX_INLINE:
        _grey_typed(p, page, base)
    else:
        mask = 1 if sp.span_class == mspan.SCAN8 else mspan.read_pointer_mask(base, sp.elem_size >> 3)
        _grey_words(p, base, mask, base, base + sp.elem_size)


@inline
def _grey_words(p: int, addr: int, mask: int, base: int, limit: int) -> None:
    while mask != 0:
        _grey_outside(p, addr + 8 * ctz(mask), base, limit)
        mask = clear_lowest(mask)


@inline
def _grey_outside(p: int, slot: int, base: int, limit: int) -> None:
    word = load_relaxed(slot)
    p_at(p).heap_scan_work += 8
    if word != 0 and not base <= word < limit:
        grey(p, word, slot)


@inline
def _grey_typed(p: int, page: int, base: int) -> None:
    sp = spans()[page]
    type_addr, obj = sp.large_type, base
    if sp.span_class > 1:
        type_addr, obj = load64(base), base + 8
    if type_addr == 0:
        return
    t = type_at(type_addr)
    limit = base + sp.elem_size
    if t.elem_size == 0:
        for i in range((t.ptr_bytes + 511) >> 9):
            _grey_words(p, obj + 512 * i, load64(t.mask + 8 * i), base, limit)
    elif t.ptr_bytes != 0:
        end = obj + 8 + load64(obj) * t.elem_size
        if end > base + _OBLET:
            work.put(p, base + _OBLET)  # the rest is work for anybody
        for slot in range(obj + 8, min(end, base + _OBLET), 8):
            if t.elem_size == 8 or is_reference_word(type_addr, slot - obj):
                _grey_outside(p, slot, base, limit)


# --- a P --------------------------------------------------------------------------------------------------------------


@inline
def is_scanned(p: int) -> bool:
    """Whether handles and stack of the P at ``p`` are black in this cycle."""
    return p_at(p).scanned_cycle == load_relaxed(RT_XCYCLES)


@kernel("void(int64)")
def scan_p(p: int) -> None:
    """Grey what handles, native stack and goroutine of the P at ``p`` lead to, into its own buffers. Called as an action of a ragged barrier is."""
    pp = p_at(p)
    scan_running(p, pp.curg)
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
