"""The heap of pages: growing it, taking pages for a span, giving them back.

Bytes of the pages that the heap has grown to are ``heap_committed``, in spans (``heap_inuse``) or free, or ``heap_released``: free and not
committed, new or returned to the system. Each is a counter changed by atomic addition.

Pages are taken under the heap lock and committed outside it, with ``fallocate`` and before anybody touches them: a full file system or
memory limit is an error here and never a SIGBUS. Between the two the pages stand in the P's ``taking_page``, where repair finds them.

The span record of a span is written whole before its pages' heads and its state, so a lookup sees all of it or none.
"""

from __future__ import annotations

import numpy as np

from gomp.core.heap import mspan
from gomp.core.heap.accounting import mapped_ready, metadata_bytes
from gomp.core.heap.lazyscav import NOTHING_LEFT, reclaim
from gomp.core.heap.pagecache import (
    PAGE_CACHE_LIMIT,
    alloc_cached,
    count_scavenged_above,
    fill_cache_locked,
    note_committed,
)
from gomp.core.heap.palloc import (
    find_pages_locked,
    free_at_end_locked,
    free_pages_locked,
    grow_locked,
    lock_heap,
    take_pages_locked,
    unlock_heap,
)
from gomp.core.heap.punch import punch
from gomp.core.heap.scavenge import ALWAYS, make_room, make_room_for_growth, scavenge_eagerly
from gomp.core.heap.sizeclass import DIV_MAGIC, SPAN_ELEM_SIZE, SPAN_NELEMS, SPAN_NPAGES
from gomp.core.jit import inline, kernel
from gomp.core.sched.status import park_call_while_stopped, park_while_stopped, stop_requested
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_relaxed, cas_acq_rel, load_relaxed, store_release, zero_range
from gomp.core.shm.commit import commit, commit_absent, return_budget
from gomp.core.shm.libc import ENOMEM, MOST_INCORE, resident_bytes
from gomp.core.shm.records import (
    HEAP_BITMAP,
    INLINE_MARKS,
    MHEAP_PAGES_IN_USE,
    MHEAP_XCOMMITTED,
    MHEAP_XINUSE,
    MHEAP_XMETADATA,
    MHEAP_XRELEASED,
    SET_NONE,
    SPAN_BITS,
    SPAN_DEAD,
    SPAN_IN_USE,
    SPAN_MANUAL,
    SPAN_STATE,
    STACKPOOL_XSPAN_BYTES,
    STEP_SWEPT,
    mheap,
    p_at,
    pacer,
    page_heads,
    runtime,
    self_p,
    spans,
)

NO_MEMORY = -ENOMEM
NEVER_PARKS, PROGRAM_PARKS, CALL_PARKS = 0, 1, 2
_COMMIT_STEP = MOST_INCORE
_COMMIT_AHEAD = 8  # pages: so many cost half as much each as one alone does, and no stop waits for them
_ENDLESS = 1 << 62
_OS_PAGE = 4096
_SPAN_NPAGES = np.array(SPAN_NPAGES, dtype=np.int64)
_SPAN_ELEM_SIZE = np.array(SPAN_ELEM_SIZE, dtype=np.int64)
_SPAN_NELEMS = np.array(SPAN_NELEMS, dtype=np.int64)
_DIV_MAGIC = np.array(DIV_MAGIC, dtype=np.int64)


@inline
def span_pages(span_class: int) -> int:
    return _SPAN_NPAGES[span_class]


@inline
def span_elem_size(span_class: int) -> int:
    return _SPAN_ELEM_SIZE[span_class]


# --- growth -----------------------------------------------------------------------------------------------------------


@kernel("int64(int64, int64, int64)")
def commit_growth(base: int, old_size: int, new_size: int) -> int:
    """Make the first ``new_size`` bytes of a metadata region safe to touch, of which ``old_size`` are; 0 or a negated errno."""
    lo, hi = layout.align_up(old_size, _OS_PAGE), layout.align_up(new_size, _OS_PAGE)
    if hi <= lo:
        return 0
    return commit(self_p().meta_fd, base - layout.META_BASE + lo, hi - lo)


@inline
def _growth_metadata(npages: int) -> int:
    """What growing for ``npages`` takes beside the heap: a hint, unless the lock is held."""
    end = mheap().metadata_pages
    return metadata_bytes(end + layout.align_up(npages, layout.CHUNK_PAGES)) - metadata_bytes(end)


@kernel("int64(int64)")
def _grow_for_locked(npages: int) -> int:
    """Holds: mheap.lock. Grow by whole chunks that together hold ``npages``; 0 or a negated errno."""
    h = mheap()
    first = h.end_page
    grown = layout.align_up(npages, layout.CHUNK_PAGES)
    if first + grown > runtime().max_pages:  # then what is free at the end already must be part of it
        grown = layout.align_up(npages - free_at_end_locked(), layout.CHUNK_PAGES)
    if first + grown > runtime().max_pages:
        return NO_MEMORY
    if _commit_page_metadata(first, grown) != 0:
        return NO_MEMORY
    h.metadata_pages = first + grown
    grow_locked(grown >> layout.CHUNK_SHIFT)
    add_relaxed(MHEAP_XRELEASED, grown << layout.PAGE_SHIFT)
    return 0


@inline
def _commit_page_metadata(first: int, npages: int) -> int:
    """Everything that is indexed by page or chunk: span records, heads, bitmaps, summaries."""
    end = first + npages
    failed = commit_growth(layout.SPANS_BASE, first * mspan.SPAN_RECORD, end * mspan.SPAN_RECORD)
    failed |= commit_growth(layout.PAGE_HEADS_BASE, 4 * first, 4 * end)
    arena = (1 << layout.ARENA_PAGE_SHIFT) - 1
    arenas_before, arenas_after = (first + arena) >> layout.ARENA_PAGE_SHIFT, (end + arena) >> layout.ARENA_PAGE_SHIFT
    failed |= commit_growth(layout.ARENAS_BASE, 64 * arenas_before, 64 * arenas_after)
    failed |= commit_growth(layout.CHUNKS_BASE, 128 * (first >> layout.CHUNK_SHIFT), 128 * (end >> layout.CHUNK_SHIFT))
    failed |= commit_growth(layout.DENSITIES_BASE, 32 * (first >> layout.CHUNK_SHIFT), 32 * (end >> layout.CHUNK_SHIFT))
    for level in range(layout.SUMMARY_LEVELS):
        shift = layout.CHUNK_SHIFT + 3 * (layout.SUMMARY_LEVELS - 1 - level)
        old, new = (first + (1 << shift) - 1) >> shift, (end + (1 << shift) - 1) >> shift
        failed |= commit_growth(layout.SUMMARY_BASES[0] + 8 * layout.SUMMARY_START[level], 8 * old, 8 * new)
    if failed:
        return NO_MEMORY
    add_relaxed(MHEAP_XMETADATA, metadata_bytes(end) - metadata_bytes(mheap().metadata_pages))
    return 0


# --- pages ------------------------------------------------------------------------------------------------------------


@kernel("int64(int64, int64)")
def take_pages(npages: int, may_park: int) -> int:
    """Pages for a span, committed and counted as in use, standing in ``taking_page``; the first of them, or NO_MEMORY.

    ``may_park``: the caller is a compiled program with nothing in hand (PROGRAM_PARKS), or a call from Python (CALL_PARKS), so a stop need not wait
    for the commit of many pages.
    """
    me = self_p()
    mine = layout.p_addr(me.idx)
    page, nscav, nzero, grown = -1, 0, 0, 0
    if npages < PAGE_CACHE_LIMIT:
        page, nscav, nzero = alloc_cached(mine, npages)
    if page < 0:
        lock_heap()
        page, nscav, nzero = _take_locked(mine, npages)
        unlock_heap()
    if page < 0:
        make_room(_growth_metadata(npages))
        end = mheap().end_page
        lock_heap()
        page, nscav, nzero = _grow_and_take_locked(mine, npages)
        unlock_heap()
        if page < 0:
            return NO_MEMORY
        grown = (mheap().end_page - end) << layout.PAGE_SHIFT  # with what others have grown it by meanwhile: a hint
    me.taking_page = page
    me.taking_npages = npages
    if grown != 0:
        make_room_for_growth(grown)
    nbytes, scav_bytes = npages << layout.PAGE_SHIFT, nscav << layout.PAGE_SHIFT
    make_room(scav_bytes)
    add_relaxed(MHEAP_PAGES_IN_USE, npages)
    if scav_bytes != 0:
        add_relaxed(MHEAP_XCOMMITTED, scav_bytes)
        add_relaxed(MHEAP_XRELEASED, -scav_bytes)
    add_relaxed(MHEAP_XINUSE, nbytes)
    me.taking_zero = nscav + nzero
    if nscav != 0 and not _commit_with_next(mine, page, npages) and _commit_pages(page, npages, may_park) != 0:
        _give_back(page, npages)
        return NO_MEMORY
    return page


@inline
def _take_locked(mine: int, npages: int) -> tuple[int, int, int]:
    """Holds: mheap.lock. As :func:`~gomp.core.heap.pagecache.alloc_cached`; no page if the heap has to grow for them."""
    if npages < PAGE_CACHE_LIMIT and p_at(mine).cache_free == 0 and fill_cache_locked(mine) > 0:
        page, nscav, nzero = alloc_cached(mine, npages)
        if page >= 0:
            return page, nscav, nzero
    page = find_pages_locked(npages)
    if page < 0:
        return -1, 0, 0
    return page, take_pages_locked(page, npages), 0


@inline
def _grow_and_take_locked(mine: int, npages: int) -> tuple[int, int, int]:
    """Holds: mheap.lock. As :func:`_take_locked`, of a heap that grows if it has to; no page when it may not grow enough."""
    page, nscav, nzero = _take_locked(mine, npages)
    if page < 0 and _grow_for_locked(npages) == 0:
        page, nscav, nzero = _take_locked(mine, npages)
    return page, nscav, nzero


@inline
def _commit_with_next(mine: int, page: int, npages: int) -> bool:
    """Commit the pages together with some above them that the P's cache has, if there are any and room for them: whether it did.

    Nobody else sees pages of the cache. Who is killed before he has noted what he committed leaves them scavenged, and repair punches them out.
    """
    ahead = count_scavenged_above(mine, page + npages - 1, _COMMIT_AHEAD - npages)
    nbytes = ahead << layout.PAGE_SHIFT
    if ahead <= 0 or runtime().scavenge_lazily != 0 or mapped_ready() + nbytes > pacer().memory_limit:
        return False
    if commit(self_p().heap_fd, page << layout.PAGE_SHIFT, (npages << layout.PAGE_SHIFT) + nbytes) != 0:
        return False
    note_committed(mine, page + npages, ahead)
    add_relaxed(MHEAP_XCOMMITTED, nbytes)
    add_relaxed(MHEAP_XRELEASED, -nbytes)
    return True


@inline
def _commit_pages(page: int, npages: int, may_park: int) -> int:
    """Commit the pages' bytes in steps, so that one huge request cannot keep the file system's lock for long.

    What was released lazily makes room for them, and where they were so themselves they need none; then what is free elsewhere, which an allocation
    that takes the lowest address may have passed over. On failure nothing of them is in memory.
    """
    fd, is_lazy = self_p().heap_fd, runtime().scavenge_lazily != 0
    lo = page << layout.PAGE_SHIFT
    hi = lo + (npages << layout.PAGE_SHIFT)
    taken = 0
    for at in range(lo, hi, _COMMIT_STEP):
        size = min(_COMMIT_STEP, hi - at)
        absent = size - resident_bytes(layout.HEAP_BASE + at, size) if is_lazy else size
        while commit_absent(fd, at, size, absent) != 0:
            if reclaim(_COMMIT_STEP, _ENDLESS) == NOTHING_LEFT and scavenge_eagerly(size, size, 1, ALWAYS) == 0:
                return_budget(taken)
                punch(page, npages)
                return NO_MEMORY
        taken += absent
        if may_park != NEVER_PARKS and stop_requested():
            if may_park == PROGRAM_PARKS:
                park_while_stopped()
            else:
                park_call_while_stopped()
    return 0


@inline
def _give_back(page: int, npages: int) -> None:
    """Return pages that could not be committed, none of which is in memory."""
    me = self_p()
    nbytes = npages << layout.PAGE_SHIFT
    lock_heap()
    free_pages_locked(page, npages, 1)
    unlock_heap()
    me.taking_page = mspan.NO_SPAN
    add_relaxed(MHEAP_PAGES_IN_USE, -npages)
    add_relaxed(MHEAP_XINUSE, -nbytes)
    add_relaxed(MHEAP_XCOMMITTED, -nbytes)
    add_relaxed(MHEAP_XRELEASED, nbytes)


# --- spans ------------------------------------------------------------------------------------------------------------


@kernel("int64(int64, int64)")
def alloc_span(npages: int, span_class: int) -> int:
    """A fresh span in use, in no list, empty: its first page, or NO_MEMORY."""
    page = take_pages(npages, NEVER_PARKS)
    if page >= 0:
        make_span(page, npages, span_class)
    return page


@kernel("void(int64, int64, int64)")
def make_span(page: int, npages: int, span_class: int) -> None:
    """Make a span, in no list and empty, of the pages that were taken last."""
    me = self_p()
    are_zero = me.taking_zero == npages and runtime().scavenge_lazily == 0
    needzero = 1 if _pages_need_zero(page, npages) and not are_zero else 0
    _init_span(page, npages, span_class, needzero)
    me.taking_page = mspan.NO_SPAN


@inline
def _init_span(page: int, npages: int, span_class: int, needzero: int) -> None:
    sp = spans()[page]
    large = span_class < 2
    sp.npages = npages
    sp.span_class = span_class
    sp.elem_size = npages << layout.PAGE_SHIFT if large else _SPAN_ELEM_SIZE[span_class]
    sp.nelems = 1 if large else _SPAN_NELEMS[span_class]
    sp.div_magic = 0 if large else _DIV_MAGIC[span_class >> 1]
    sp.limit = layout.page_to_addr(page) + sp.elem_size * sp.nelems
    sp.large_type = 0
    sp.needzero = needzero
    sp.freeindex = 0
    sp.alloc_count = 0
    sp.alloc_before_cache = 0
    sp.next = mspan.NO_SPAN
    sp.set = SET_NONE
    sp.specials = 0
    zero_range(mspan.span_addr(page) + SPAN_BITS, 128)
    if needzero and not large and sp.elem_size <= mspan.MAX_INLINE:
        zero_range(layout.page_to_addr(page + npages) - INLINE_MARKS - HEAP_BITMAP, INLINE_MARKS + HEAP_BITMAP)
    heads = page_heads()
    for i in range(npages):
        heads[page + i] = mspan.head_entry(span_class, sp.elem_size, i)
    mspan.set_state(page, mspan.pack_state(runtime().sweepgen, 0, STEP_SWEPT, 0))
    store_release(mspan.span_addr(page) + SPAN_STATE, SPAN_IN_USE)  # pairs with find_span


@inline
def _pages_need_zero(page: int, npages: int) -> bool:
    """Whether any of the pages has been in a span before; raises the arena's high-water mark (mheap.go, allocNeedsZero)."""
    need = False
    at = page
    while at < page + npages:
        arena = at >> layout.ARENA_PAGE_SHIFT
        end = min(page + npages, (arena + 1) << layout.ARENA_PAGE_SHIFT)
        mark = layout.ARENAS_BASE + 64 * arena
        before = load_relaxed(mark)
        need |= before > at
        while before < end and not cas_acq_rel(mark, before, end):
            before = load_relaxed(mark)
        at = end
    return need


@kernel("void(int64)")
def free_span(page: int) -> None:
    """Give a span's pages back. The caller owns the span, and it is in no list."""
    sp = spans()[page]
    npages = sp.npages
    sp.state = SPAN_DEAD
    if mspan.has_inline_marks(sp.elem_size):
        page_heads()[page] = 0
    nbytes = npages << layout.PAGE_SHIFT
    lock_heap()
    free_pages_locked(page, npages, 0)
    unlock_heap()
    add_relaxed(MHEAP_PAGES_IN_USE, -npages)
    add_relaxed(MHEAP_XINUSE, -nbytes)


@kernel("int64(int64, int64)")
def alloc_manual(npages: int, elem_size: int) -> int:
    """A span that the collector leaves alone, of stacks of ``elem_size`` bytes, in no list: its first page, or NO_MEMORY (allocManual)."""
    page = take_pages(npages, NEVER_PARKS)
    if page < 0:
        return page
    sp = spans()[page]
    nbytes = npages << layout.PAGE_SHIFT
    sp.npages = npages
    sp.elem_size = elem_size
    sp.nelems = nbytes // elem_size
    sp.span_class = 0
    sp.limit = layout.page_to_addr(page) + nbytes
    sp.large_type = 0
    sp.alloc_count = 0
    sp.next = mspan.NO_SPAN
    sp.set = SET_NONE
    sp.specials = 0
    zero_range(mspan.span_addr(page) + SPAN_BITS, 128)
    _pages_need_zero(page, npages)  # they will, once they are an object's
    heads = page_heads()
    for i in range(npages):
        heads[page + i] = i + 1
    add_relaxed(STACKPOOL_XSPAN_BYTES, nbytes)
    store_release(mspan.span_addr(page) + SPAN_STATE, SPAN_MANUAL)
    self_p().taking_page = mspan.NO_SPAN
    return page


@kernel("void(int64)")
def free_manual(page: int) -> None:
    """Give the pages of a span of stacks back. The caller has the span, and it is in no list."""
    add_relaxed(STACKPOOL_XSPAN_BYTES, -(spans()[page].npages << layout.PAGE_SHIFT))
    free_span(page)
