"""Level 2: each special record belongs to an allocated object, and is in the one list or queue where its state belongs."""

from __future__ import annotations

from gomp.core.gc.memprofile import bucket_addr
from gomp.core.gc.specials import special_addr
from gomp.core.gc.verify.problems import (
    PROFILE_BUCKET,
    PROFILE_COUNTS,
    SPECIAL_ADDRESS,
    SPECIAL_LISTED,
    SPECIAL_ORDER,
    SPECIAL_QUEUES,
    expect,
    problem,
)
from gomp.core.gc.verify.slots import after, checked_span, is_slot_allocated, next_span, p_number
from gomp.core.heap import mspan
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import load_acquire
from gomp.core.shm.records import (
    MEMPROFILE_XNBUCKETS,
    SPECIAL_ARMED,
    SPECIAL_CANCELLED,
    SPECIAL_DYING,
    SPECIAL_PROFILE,
    SPECIAL_QUEUED,
    bucket_at,
    mheap,
    p_at,
    p_records,
    runtime,
    spans,
    special_at,
)


@kernel("void(int64)")
def check_specials(out: int) -> None:
    """Level 2: each record is where its state says. World: stopped.

    A list is strictly ordered, so it has nobody twice; a queue that is too long goes in circles. So it is enough to count.
    """
    armed, due, profiled = 0, 0, 0
    for n in range(1, runtime().nspecials + 1):
        state, s = load_acquire(special_addr(n)), special_at(special_addr(n))
        if state in (SPECIAL_ARMED, SPECIAL_DYING):
            armed += 1
            page = checked_span(s.addr)
            if page == mspan.NO_SPAN or not is_slot_allocated(page, mspan.obj_idx_of(page, s.addr)):
                problem(out, SPECIAL_ADDRESS, n, s.addr, 0)
            if s.kind == SPECIAL_PROFILE:
                profiled += 1
                if not 1 <= s.value <= load_acquire(MEMPROFILE_XNBUCKETS):
                    problem(out, PROFILE_BUCKET, n, s.value, load_acquire(MEMPROFILE_XNBUCKETS))
        elif state in (SPECIAL_QUEUED, SPECIAL_CANCELLED):
            due += 1
    listed = 0
    page = next_span(0)
    while page < mheap().end_page:
        listed += _check_special_list(out, page)
        page = next_span(after(page))
    queued = 0
    for i in range(p_records()):
        pp = p_at(layout.p_addr(p_number(i)))
        queued += _count_due(pp.finalizers) + _count_due(pp.finalizer_batch) + _count_due(pp.cleanups)
    expect(out, SPECIAL_LISTED, listed, armed)
    expect(out, PROFILE_COUNTS, _count_profiled(), profiled)
    expect(out, SPECIAL_QUEUES, queued, due)


@kernel("int64()")
def _count_profiled() -> int:
    """Objects made less objects dead, of all buckets, published or not."""
    n = 0
    for bucket in range(1, load_acquire(MEMPROFILE_XNBUCKETS) + 1):
        b = bucket_at(bucket_addr(bucket))
        n += b.published_allocs - b.published_frees
        for i in range(3):
            n += b.allocs[i] - b.frees[i]
    return n


@kernel("int64(int64)")
def _count_due(n: int) -> int:
    """How many records a queue has: too many if it goes in circles, -1 if one is not due."""
    found = 0
    while n > 0 and n <= runtime().nspecials and found <= runtime().nspecials:
        if load_acquire(special_addr(n)) not in (SPECIAL_QUEUED, SPECIAL_CANCELLED):
            return -1
        found += 1
        n = special_at(special_addr(n)).next
    return found


@inline
def _follows(a: int, b: int) -> bool:
    """Whether record ``b`` stands behind ``a`` in a list: by address, kind, and the newest first."""
    if a == 0:
        return True
    sa, sb = special_at(special_addr(a)), special_at(special_addr(b))
    if sa.addr != sb.addr:
        return sa.addr < sb.addr
    return sa.kind < sb.kind or (sa.kind == sb.kind and sa.id > sb.id)


@kernel("int64(int64, int64)")
def _check_special_list(out: int, page: int) -> int:
    """How many records the span's list has, up to the first that is wrong."""
    n, before, listed = spans()[page].specials, 0, 0
    while n != 0:
        if n < 0 or n > runtime().nspecials:
            problem(out, SPECIAL_ORDER, page, n, -1)
            return listed
        state = load_acquire(special_addr(n))
        is_armed = state in (SPECIAL_ARMED, SPECIAL_DYING)
        if not is_armed or checked_span(special_at(special_addr(n)).addr) != page or not _follows(before, n):
            problem(out, SPECIAL_ORDER, page, n, state)
            return listed
        n, before, listed = special_at(special_addr(n)).next, n, listed + 1
    return listed
