"""After a process was killed: everything derived is thrown away and made again from what is not.

Not derived, and trusted: each span's record but its counts and links, the P records, roots, types, which free pages are scavenged. Derived, and
made here: which pages are free, summaries and heads, the lists of the mcentrals, counts of spans and pages, the stacks of work buffers.

1. Empty every mcache and page cache into the records. What a P had in its window and had not handed out becomes free.
2. Span by span: redo the sweep step that its state names, or undo it; count what is allocated; drop spans that hold nothing.
3. Pages: those of spans are taken, and those that a living P is taking; what was in a page cache is as its P knew it, and what was free as its
   scav bit says. The rest was on its way from one owner to another: nobody knows whether it is committed or what it holds, so it is
   punched out and counts as released.
4. Lists, heads, summaries, counters, work buffers. The lists and queues of specials.

A span is known to hold something counted by its record: small ones by their bits; a large one once ``alloc_before_cache`` is 1, stored
together with the totals. So the totals of allocations and frees stay right.

May be repeated: a second run finds what the first left. If marking was on, the caller starts it over, as grey objects are dropped here
(:func:`~gomp.core.gc.cycle.restart_marking_stw`).
"""

from __future__ import annotations

from gomp.core.gc import work
from gomp.core.gc.specials import rebuild_specials_stw
from gomp.core.gc.stackrebuild import forget_free_stacks_stw, rebuild_gs_stw, settle_stacks_stw
from gomp.core.gc.sweep import clear_marks
from gomp.core.heap import mspan
from gomp.core.heap.accounting import metadata_bytes_stw, table_bytes_stw, wbuf_bytes_stw
from gomp.core.heap.lazyscav import forget_lazy_locked
from gomp.core.heap.mcache import entry_addr, offered, release_all_stw
from gomp.core.heap.mcentral import push_span_locked, reset_mcentrals_stw, swept_set, unswept_set
from gomp.core.heap.mheap import span_elem_size
from gomp.core.heap.palloc import CHUNK_WORDS, rebuild_summaries_locked, set_alloc_range_locked
from gomp.core.heap.punch import punch
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    ctz,
    load64,
    load_relaxed,
    lsr,
    popcount,
    store_relaxed,
    store_release,
    zero_range,
)
from gomp.core.shm.commit import forget_takers_stw
from gomp.core.shm.records import (
    MHEAP_HELD,
    MHEAP_PAGES_IN_USE,
    MHEAP_XALLOC,
    MHEAP_XCOMMITTED,
    MHEAP_XINUSE,
    MHEAP_XLOCK,
    MHEAP_XMETADATA,
    MHEAP_XRELEASED,
    MHEAP_XTABLES,
    MHEAP_XWBUF,
    PACER_XLIVE,
    RT_XSWEEP_CLASS,
    RT_XSWEEPERS,
    RT_XWBUF_FULL,
    RT_XWBUF_LOCK,
    SET_FULL,
    SET_NONE,
    SET_PARTIAL,
    SPAN_DEAD,
    SPAN_IN_USE,
    SPAN_MANUAL,
    STEP_CLEARING,
    SWEEP_SETS,
    chunks,
    gcstats,
    mcache_at,
    mheap,
    nth_p,
    p_at,
    p_records,
    pacer,
    page_heads,
    runtime,
    spans,
    wbuf_stacks,
)


@kernel("void()")
def rebuild_derived_stw() -> None:
    """Make everything derived again. World: stopped; dead Ps' redo records are applied, and no dead P has ``taking_page``."""
    reset_mcentrals_stw()  # flushing pushes spans: into lists that are sound, and made again below
    store_release(MHEAP_XLOCK, 0)
    store_release(MHEAP_HELD, 0)
    store_release(RT_XWBUF_LOCK, 0)
    for i in range(p_records()):
        _flush_mcache(nth_p(i))
    forget_free_stacks_stw()
    _forget_pages()
    for i in range(p_records()):
        _return_cached_pages(nth_p(i))
    reset_mcentrals_stw()
    _rebuild_spans()
    for i in range(p_records()):
        _keep_taken_pages(nth_p(i))
    rebuild_specials_stw()
    rebuild_gs_stw()
    _punch_unknown_pages()
    forget_lazy_locked()
    rebuild_summaries_locked()
    _rebuild_counters()
    _rebuild_work_buffers()


# --- spans ------------------------------------------------------------------------------------------------------------


@inline
def _count_allocated(page: int) -> int:
    """Slots below freeindex or with their bit set. The span is not cached, or its freeindex has been set."""
    sp = spans()[page]
    bits = mspan.alloc_bits_addr(page)
    n = 0
    for window in range(mspan.bit_words(page)):
        word = load64(bits + 8 * window)
        below = min(64, sp.freeindex - 64 * window)
        if below > 0:
            word |= lsr(-1, 64 - below)
        n += popcount(word & lsr(-1, 64 - min(64, sp.nelems - 64 * window)))
    return n


@inline
def _flush_mcache(p: int) -> None:
    """Set what flushing trusts, the span's count, as the window says; then flush."""
    for span_class in range(layout.NUM_SPAN_CLASSES):
        e = mcache_at(entry_addr(p, span_class))
        if e.page != mspan.NO_SPAN:
            sp = spans()[e.page]
            sp.needzero = 1  # who was killed may have begun with the next object
            nfree = 0
            if e.window >= 0:
                free = offered(entry_addr(p, span_class))
                sp.freeindex = min(sp.nelems, 64 * e.window + ctz(free))
                nfree = popcount(free)
            sp.alloc_count = _count_allocated(e.page) + nfree
    release_all_stw(p)


@inline
def _rebuild_spans() -> None:
    """Settle each span, and put it into its list and its pages' heads: in the order of pages."""
    end = mheap().end_page
    zero_range(layout.PAGE_HEADS_BASE, 4 * end)
    unswept = 0
    page = 0
    while page < end:
        sp = spans()[page]
        if sp.state == SPAN_IN_USE:
            unswept += _settle_span(page)
        elif sp.state == SPAN_MANUAL:
            settle_stacks_stw(page)
        if sp.state == SPAN_DEAD:
            page += 1
            continue
        for i in range(sp.npages):
            page_heads()[page + i] = mspan.head_entry(sp.span_class, sp.elem_size, i)
        set_alloc_range_locked(page, sp.npages)
        page += sp.npages
    store_release(RT_XSWEEPERS, 0)
    store_release(RT_XSWEEP_CLASS, 0 if unswept else SWEEP_SETS)


@kernel("int64(int64)")
def _settle_span(page: int) -> int:
    """Finish or undo a sweep, count, and push the span into its list, or declare it dead; 1 if it is to be swept still."""
    sp = spans()[page]
    h = runtime().sweepgen
    state = mspan.state_of(page)
    gcstats().repaired_spans += sp.set == SET_NONE
    if mspan.step_of(state) == STEP_CLEARING:
        clear_marks(page)
        sp.freeindex = 0
        sp.needzero = 1
        sp.alloc_count = _count_allocated(page)
        sp.alloc_before_cache = sp.alloc_count
        mspan.set_sweepgen(page, h)
    elif mspan.sweepgen_of(state) in (h - 1, h - 2):
        mspan.set_sweepgen(page, h - 2)
        sp.alloc_count = _count_allocated(page)
        push_span_locked(sp.span_class, unswept_set(_kind_of(page)), page)
        return 1
    else:
        mspan.set_sweepgen(page, h)
        sp.alloc_count = _count_allocated(page)
    if sp.alloc_count == 0 or (sp.span_class < 2 and sp.alloc_before_cache == 0):
        sp.state = SPAN_DEAD
    else:
        push_span_locked(sp.span_class, swept_set(_kind_of(page)), page)
    return 0


@inline
def _kind_of(page: int) -> int:
    return SET_FULL if spans()[page].alloc_count == spans()[page].nelems else SET_PARTIAL


# --- pages ------------------------------------------------------------------------------------------------------------


@inline
def _forget_pages() -> None:
    """Every page free, and those that were taken released."""
    for chunk_idx in range(mheap().end_page >> layout.CHUNK_SHIFT):
        for i in range(CHUNK_WORDS):
            chunks()[chunk_idx].scav[i] |= chunks()[chunk_idx].alloc[i]
            chunks()[chunk_idx].alloc[i] = 0


@inline
def _return_cached_pages(p: int) -> None:
    """What the P's page cache knows to be committed is."""
    pp = p_at(p)
    word_idx = pp.cache_page >> 6
    if pp.cache_free != 0:
        chunk = chunks()[word_idx // CHUNK_WORDS]
        chunk.scav[word_idx % CHUNK_WORDS] &= ~pp.cache_free | pp.cache_scav
    pp.cache_free = 0
    pp.cache_scav = 0
    pp.cache_zero = 0


@inline
def _keep_taken_pages(p: int) -> None:
    pp = p_at(p)
    if pp.taking_page != mspan.NO_SPAN:
        set_alloc_range_locked(pp.taking_page, pp.taking_npages)


@inline
def _punch_unknown_pages() -> None:
    """Make the released pages what released pages are: zero, and not committed. Unless they are released lazily, nobody zeroes them again.

    Most of them are already, and cost nothing.
    """
    end = mheap().end_page
    first = 0
    for page in range(end + 1):
        if page == end or not _is_released(page):
            if page > first:
                punch(first, page - first)
            first = page + 1


@inline
def _is_released(page: int) -> bool:
    chunk = chunks()[page >> layout.CHUNK_SHIFT]
    return lsr(chunk.scav[(page & (layout.CHUNK_PAGES - 1)) >> 6], page & 63) & 1 == 1


# --- counters and work ------------------------------------------------------------------------------------------------


@inline
def _rebuild_counters() -> None:
    taken, released = 0, 0
    for chunk_idx in range(mheap().end_page >> layout.CHUNK_SHIFT):
        for i in range(CHUNK_WORDS):
            taken += popcount(chunks()[chunk_idx].alloc[i])
            released += popcount(chunks()[chunk_idx].scav[i])
    store_relaxed(MHEAP_PAGES_IN_USE, taken)
    store_relaxed(MHEAP_XINUSE, taken << layout.PAGE_SHIFT)
    store_relaxed(MHEAP_XRELEASED, released << layout.PAGE_SHIFT)
    store_relaxed(MHEAP_XCOMMITTED, (mheap().end_page - released) << layout.PAGE_SHIFT)
    allocated = 0
    for i in range(p_records()):
        allocated += _allocated_by(nth_p(i))
    store_relaxed(MHEAP_XALLOC, allocated)
    store_relaxed(PACER_XLIVE, max(load_relaxed(PACER_XLIVE), pacer().heap_marked))
    store_relaxed(MHEAP_XMETADATA, metadata_bytes_stw())
    store_relaxed(MHEAP_XWBUF, wbuf_bytes_stw())
    store_relaxed(MHEAP_XTABLES, table_bytes_stw())
    forget_takers_stw()


@inline
def _allocated_by(p: int) -> int:
    """Bytes that the P has allocated, less those that it has freed."""
    pp = p_at(p)
    n = pp.large_alloc - pp.large_free
    for size_class in range(1, layout.NUM_SPAN_CLASSES // 2):
        n += (pp.small_alloc[size_class] - pp.small_free[size_class]) * span_elem_size(2 * size_class)
    return n


@inline
def _rebuild_work_buffers() -> None:
    rt = runtime()
    for i in range(p_records()):
        p_at(nth_p(i)).wbuf1 = 0
        p_at(nth_p(i)).wbuf2 = 0
        p_at(nth_p(i)).spanq_head = p_at(nth_p(i)).spanq_tail
    for number in range(rt.wbuf_made):
        wbuf_stacks()[layout.MAX_WBUFS + number] = number
    rt.wbuf_empty = rt.wbuf_made
    store_relaxed(RT_XWBUF_FULL, 0)
    for i in range(p_records()):
        work.init_buffers(nth_p(i))
