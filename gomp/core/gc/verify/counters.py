"""Level 1: nothing is held or half done; the byte counts add up; allocations less frees are the objects that exist."""

from __future__ import annotations

from gomp.core.gc.verify.problems import (
    CLASS_COUNTS,
    HEAP_BYTES,
    IN_USE_BYTES,
    IN_USE_PAGES,
    LARGE_TOTAL,
    LIVE_TOO_LOW,
    LOCK_HELD,
    METADATA_BYTES,
    NO_PARK,
    OBJECT_TOTAL,
    OUT_BYTES,
    OUT_OBJECTS,
    OUT_PAGES,
    OUT_PENDING,
    OUT_SPANS,
    TABLE_BYTES,
    WBUF_BYTES,
    WORK_LEFT,
    add_word,
    expect,
    get_word,
    problem,
)
from gomp.core.gc.verify.slots import after, count_allocated, entry_of, next_span, p_number
from gomp.core.gc.verify.stacks import pages_of_stacks
from gomp.core.heap import mspan
from gomp.core.heap.accounting import metadata_bytes_stw, table_bytes_stw, wbuf_bytes_stw
from gomp.core.heap.mcache import entry_addr, offered
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import load64, load_acquire, load_relaxed, popcount, store64
from gomp.core.shm.records import (
    GC_OFF,
    MHEAP_XCOMMITTED,
    MHEAP_XINUSE,
    MHEAP_XLOCK,
    MHEAP_XMETADATA,
    MHEAP_XRELEASED,
    MHEAP_XTABLES,
    MHEAP_XWBUF,
    PACER_XLIVE,
    RT_XGCPHASE,
    RT_XSPECIALS_LOCK,
    RT_XTABLE_LOCK,
    RT_XWBUF_FULL,
    RT_XWBUF_LOCK,
    SCHED_XLOCK,
    STACKPOOL_XLOCK,
    mcache_at,
    mheap,
    p_at,
    p_records,
    pacer,
    spans,
)


@kernel("void(int64)")
def check_counters(out: int) -> None:
    """Level 1; also counts spans, objects and bytes. World: stopped."""
    _check_nothing_in_hand(out)
    _count_spans(out)
    h = mheap()
    in_use, committed, released = (
        load_relaxed(MHEAP_XINUSE),
        load_relaxed(MHEAP_XCOMMITTED),
        load_relaxed(MHEAP_XRELEASED),
    )
    pages = get_word(out, OUT_PAGES) + pages_of_stacks() + _pages_on_their_way()
    expect(out, HEAP_BYTES, committed + released, h.end_page << layout.PAGE_SHIFT)
    expect(out, IN_USE_BYTES, in_use, pages << layout.PAGE_SHIFT)
    expect(out, IN_USE_PAGES, h.pages_in_use, pages)
    expect(out, METADATA_BYTES, load_relaxed(MHEAP_XMETADATA), metadata_bytes_stw())
    expect(out, WBUF_BYTES, load_relaxed(MHEAP_XWBUF), wbuf_bytes_stw())
    expect(out, TABLE_BYTES, load_relaxed(MHEAP_XTABLES), table_bytes_stw())
    _check_totals(out)
    live = load_relaxed(PACER_XLIVE)
    if (
        live < pacer().heap_marked
    ):  # no bound above: flushing a cache and filling it again counts a span's tail twice, as in Go
        problem(out, LIVE_TOO_LOW, live, pacer().heap_marked, 0)


@inline
def _pages_on_their_way() -> int:
    """Pages that have been taken for a span that is not there yet: a P may be stopped while it commits them."""
    pages = 0
    for i in range(p_records()):
        pp = p_at(layout.p_addr(p_number(i)))
        if pp.taking_page != mspan.NO_SPAN:
            pages += pp.taking_npages
    return pages


@kernel("void(int64, int64)")
def _check_lock(out: int, lock: int) -> None:
    word = load_acquire(lock)
    if word != 0:
        problem(out, LOCK_HELD, lock, (word & 0xFFFF) - 1, 0)


@inline
def _check_nothing_in_hand(out: int) -> None:
    _check_lock(out, MHEAP_XLOCK)
    _check_lock(out, RT_XWBUF_LOCK)
    _check_lock(out, RT_XTABLE_LOCK)
    _check_lock(out, RT_XSPECIALS_LOCK)
    _check_lock(out, STACKPOOL_XLOCK)
    _check_lock(out, SCHED_XLOCK)
    for span_class in range(layout.NUM_SPAN_CLASSES):
        _check_lock(out, layout.MCENTRALS_BASE + 128 * span_class)
    for i in range(layout.MAP_LOCKS):
        _check_lock(out, layout.MAP_LOCKS_BASE + i * layout.MAP_LOCK_SIZE)
    for i in range(p_records()):
        p = p_number(i)
        in_hand = p_at(layout.p_addr(p)).no_park
        if in_hand != 0:
            problem(out, NO_PARK, p, in_hand, 0)
    if load_acquire(RT_XGCPHASE) == GC_OFF:
        expect(out, WORK_LEFT, load_acquire(RT_XWBUF_FULL), 0)


@kernel("void(int64)")
def _count_spans(out: int) -> None:
    """Spans, pages, objects and bytes; objects by size class."""
    page = next_span(0)
    while page < mheap().end_page:
        sp = spans()[page]
        n = count_allocated(page, entry_of(page))
        add_word(out, OUT_SPANS, 1)
        add_word(out, OUT_PAGES, sp.npages)
        add_word(out, OUT_OBJECTS, n)
        add_word(out, OUT_BYTES, n * sp.elem_size)
        if sp.span_class < 2:
            add_word(out, OUT_PENDING, n * sp.elem_size)
        store64(
            out + CLASS_COUNTS + 8 * (sp.span_class >> 1), load64(out + CLASS_COUNTS + 8 * (sp.span_class >> 1)) + n
        )
        page = next_span(after(page))


@kernel("int64(int64, int64)")
def _unsettled(p: int, span_class: int) -> int:
    """Objects allocated from the span that the P has cached, and not yet counted."""
    e = mcache_at(entry_addr(p, span_class))
    if e.page == mspan.NO_SPAN:
        return 0
    sp = spans()[e.page]
    return sp.alloc_count - popcount(offered(entry_addr(p, span_class))) - sp.alloc_before_cache


@kernel("void(int64)")
def _check_totals(out: int) -> None:
    for size_class in range(1, 68):
        n = 0
        for i in range(p_records()):
            p = layout.p_addr(p_number(i))
            n += p_at(p).small_alloc[size_class] - p_at(p).small_free[size_class]
            n += _unsettled(p, 2 * size_class) + _unsettled(p, 2 * size_class + 1)
        found = load64(out + CLASS_COUNTS + 8 * size_class)
        if n != found:
            problem(out, OBJECT_TOTAL, size_class, n, found)
    n, nbytes = 0, 0
    for i in range(p_records()):
        pp = p_at(layout.p_addr(p_number(i)))
        n += pp.large_alloc_count - pp.large_free_count
        nbytes += pp.large_alloc - pp.large_free
    if n != load64(out + CLASS_COUNTS):
        problem(out, OBJECT_TOTAL, 0, n, load64(out + CLASS_COUNTS))
    expect(out, LARGE_TOTAL, nbytes, get_word(out, OUT_PENDING))
