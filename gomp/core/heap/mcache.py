"""A P's mcache: for each span class one span and a window of 64 of its slots, so that the fast path is a bit operation.

What a window still offers is in two words, ``free`` and ``held``; the fast path knows the first (:mod:`~gomp.core.heap.sampling`).

The span's ``alloc_count`` counts a whole window when it is opened and is corrected when the window is given back: the fast path counts
nothing. ``freeindex`` is right only while no window is open.

A P may be killed here, so the stores have an order. A window is open from the store of its number to that of -1; before the first of them
its free bits are in place, before the second ``freeindex`` says that it is used up. A slot is taken once the object in it is zero and typed
(:mod:`~gomp.core.mutator.malloc`). So what repair finds is a whole object or a free slot.

Allocate-black works in the same way. While the heap is marked, opening a window marks all its free slots, and giving it back unmarks those
that were not handed out; so an object is black before anybody can know its address, and the fast path does nothing for it. No window
outlives a change of the phase: every mcache is emptied at the stop that begins marking and at the one that ends it.
"""

from __future__ import annotations

from gomp.core.heap import mspan
from gomp.core.heap.mcentral import push_span, swept_set
from gomp.core.heap.sampling import UNDRAWN
from gomp.core.heap.sizeclass import TINY_SPAN_CLASS
from gomp.core.jit import inline, kernel
from gomp.core.sched import redo
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_relaxed, ctz, load64, load_relaxed, lsl, lsr, popcount, store_release
from gomp.core.shm.records import (
    GC_OFF,
    MCACHE_ENTRY,
    MCACHE_HELD,
    MCACHE_PAGE,
    MCACHE_WINDOW,
    MHEAP_XALLOC,
    P_MCACHE,
    P_SMALL_ALLOC,
    P_TINY_ALLOC_COUNT,
    P_TINY_ALLOCS,
    PACER_XLIVE,
    PACER_XSCAN,
    RT_XGCPHASE,
    SET_FULL,
    SET_PARTIAL,
    SPAN_ALLOC_BEFORE_CACHE,
    mcache_at,
    p_at,
    runtime,
    self_p,
    spans,
)


@inline
def entry_addr(p: int, span_class: int) -> int:
    return p + P_MCACHE + span_class * MCACHE_ENTRY


@inline
def offered(entry: int) -> int:
    """The slots of the open window that were not taken yet."""
    e = mcache_at(entry)
    return e.free | e.held


@inline
def next_window(entry: int) -> bool:
    """Open the next window that has a free slot in the span of this mcache entry, one of this P's; false if there is none. They are all held."""
    e = mcache_at(entry)
    if e.page == mspan.NO_SPAN:
        return False
    page = e.page
    sp = spans()[page]
    if e.window >= 0:  # used up
        sp.freeindex = min(sp.nelems, 64 * (e.window + 1))
        store_release(entry + MCACHE_WINDOW, -1)
    for window in range(sp.freeindex >> 6, mspan.bit_words(page)):
        free = _free_slots(page, window)
        if free != 0:
            e.base_addr = mspan.obj_addr(page, 64 * window)
            sp.alloc_count += popcount(free)
            if load_relaxed(RT_XGCPHASE) != GC_OFF:
                mspan.blacken_free(page, window, free)
                self_p().bytes_marked += popcount(free) * sp.elem_size
            store_release(entry + MCACHE_HELD, free)
            store_release(entry + MCACHE_WINDOW, window)
            return True
    return False


@inline
def _free_slots(page: int, window: int) -> int:
    """The slots of a window, at freeindex or above, that are free."""
    sp = spans()[page]
    free = ~load64(mspan.alloc_bits_addr(page) + 8 * window)
    first = sp.freeindex - 64 * window
    if first > 0:
        free &= lsl(-1, first)
    beyond = 64 * (window + 1) - sp.nelems
    return free & lsr(-1, beyond) if beyond > 0 else free


@kernel("void(int64, int64)")
def uncache_span(p: int, span_class: int) -> None:
    """Take the span of this class out of the mcache of the P at ``p``, settle what was allocated from it, and push it."""
    e = mcache_at(entry_addr(p, span_class))
    page = e.page
    if page == mspan.NO_SPAN:
        return
    sp = spans()[page]
    if e.window >= 0:
        free = offered(entry_addr(p, span_class))
        sp.alloc_count -= popcount(free)
        if free != 0 and load_relaxed(RT_XGCPHASE) != GC_OFF:
            mspan.whiten_free(page, e.window, free)
            p_at(p).bytes_marked -= popcount(free) * sp.elem_size
        sp.freeindex = min(sp.nelems, 64 * e.window + ctz(free))
    used, allocated = p + P_SMALL_ALLOC + 8 * (span_class >> 1), sp.alloc_count - sp.alloc_before_cache
    redo.plan(0, used, load64(used) + allocated)
    redo.plan(1, mspan.span_addr(page) + SPAN_ALLOC_BEFORE_CACHE, sp.alloc_count)
    redo.commit(2)
    add_relaxed(MHEAP_XALLOC, allocated * sp.elem_size)
    if span_class == TINY_SPAN_CLASS:
        flush_tiny_count(p)
    store_release(entry_addr(p, span_class) + MCACHE_PAGE, mspan.NO_SPAN)
    e.window = -1
    e.free = 0
    e.held = 0
    e.until_sample = UNDRAWN  # what it had allowed for was not all taken
    mspan.set_sweepgen(page, runtime().sweepgen)
    push_span(span_class, swept_set(SET_PARTIAL if sp.alloc_count < sp.nelems else SET_FULL), page)


@inline
def flush_tiny_count(p: int) -> None:
    redo.plan(0, p + P_TINY_ALLOC_COUNT, load64(p + P_TINY_ALLOC_COUNT) + load64(p + P_TINY_ALLOCS))
    redo.plan(1, p + P_TINY_ALLOCS, 0)
    redo.commit(2)


@kernel("void(int64)")
def release_all_stw(p: int) -> None:
    """Empty the mcache of the P at ``p``, so that every span is in a list and says exactly what is allocated. World: stopped."""
    pp = p_at(p)
    for span_class in range(layout.NUM_SPAN_CLASSES):
        page = mcache_at(entry_addr(p, span_class)).page
        if page != mspan.NO_SPAN:
            uncache_span(p, span_class)
            sp = spans()[page]
            add_relaxed(PACER_XLIVE, (sp.alloc_count - sp.nelems) * sp.elem_size)
    pp.tiny = 0
    pp.tiny_offset = 0
    flush_tiny_count(p)
    add_relaxed(PACER_XSCAN, pp.scan_alloc)
    pp.scan_alloc = 0


@kernel("void(int64)")
def reset_mcache(p: int) -> None:
    """An empty mcache for the P at ``p``."""
    for span_class in range(layout.NUM_SPAN_CLASSES):
        e = mcache_at(entry_addr(p, span_class))
        e.free = 0
        e.held = 0
        e.until_sample = UNDRAWN
        e.base_addr = 0
        e.window = -1
        e.page = mspan.NO_SPAN
