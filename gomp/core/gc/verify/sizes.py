"""Before all else: no table has more entries than there is room for. The other checks go through them, and would come to no end; so would the
coordinator, which therefore looks each time before it does anything: of memory that nobody has written, too, a page is committed by reading it."""

from __future__ import annotations

from gomp.core.gc.verify.problems import TABLE_SIZE, problem
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import load_acquire
from gomp.core.shm.records import MEMPROFILE_XNBUCKETS, mheap, runtime, sched


@kernel("int64(int64)")
def check_sizes(out: int) -> int:
    """Whether each number of entries can be. ``out`` is 0 if nobody wants to know which; then also in a running world, as each number is within its
    bound at all times."""
    ok = _fits(out, layout.HEAP_BASE, runtime().max_pages, layout.HEAP_PAGES)
    ok &= _fits(out, layout.SPANS_BASE, mheap().end_page, runtime().max_pages)
    ok &= _fits(out, layout.PS_BASE, runtime().nrecords, layout.COORDINATOR_P)
    ok &= _fits(out, layout.SPECIALS_BASE, runtime().nspecials, layout.MAX_SPECIALS)
    ok &= _fits(out, layout.GS_BASE, sched().ngs, layout.MAX_GS)
    ok &= _fits(out, layout.PROFILE_BUCKETS_BASE, load_acquire(MEMPROFILE_XNBUCKETS), layout.MAX_BUCKETS)
    ok &= _fits(out, layout.TYPES_BASE, runtime().ntypes, layout.MAX_TYPES)
    return 1 if ok else 0


@inline
def _fits(out: int, table: int, entries: int, room: int) -> bool:
    if 0 <= entries <= room:
        return True
    if out != 0:
        problem(out, TABLE_SIZE, table, entries, room)
    return False
