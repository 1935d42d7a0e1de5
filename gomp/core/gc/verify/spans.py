"""Level 2: each span has the shape of its class, a legal state, and counts its slots right."""

from __future__ import annotations

from gomp.core.gc.verify.problems import (
    ALLOC_COUNT,
    IN_NO_LIST,
    IN_WRONG_LIST,
    MARKED_FREE,
    NOT_CACHED,
    SPAN_PAST_END,
    SPAN_SHAPE,
    SPAN_STATE,
    STRAY_BITS,
    STRAY_MARK,
    problem,
)
from gomp.core.gc.verify.slots import (
    after,
    allocated_word,
    count_allocated,
    entry_of,
    is_unswept,
    next_span,
    p_number,
    slots_of_window,
)
from gomp.core.heap import mspan
from gomp.core.heap.mcache import entry_addr, offered
from gomp.core.heap.mheap import span_elem_size, span_pages
from gomp.core.heap.sizeclass import DIV_MAGIC, SPAN_NELEMS
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import load_acquire, load_relaxed, popcount
from gomp.core.shm.records import (
    GC_OFF,
    OWNED_MANY,
    OWNED_ONE,
    OWNED_WORD,
    RT_XGCPHASE,
    SET_FULL,
    SET_NONE,
    SET_PARTIAL,
    mcache_at,
    mheap,
    p_records,
    runtime,
    spans,
)


@kernel("void(int64)")
def check_spans(out: int) -> None:
    """Level 2: each span has its class's shape, a legal state, its place, and right counts and bits. World: stopped."""
    page = next_span(0)
    while page < mheap().end_page:
        if _check_shape(out, page):
            entry = entry_of(page)
            _check_place(out, page)
            _check_count(out, page, entry)
            _check_bits(out, page, entry)
        page = next_span(after(page))


@kernel("int64(int64, int64)")
def _check_shape(out: int, page: int) -> int:
    """1 if the span's constant fields are those of its class, so that the other checks may trust them."""
    sp = spans()[page]
    span_class = sp.span_class
    if sp.npages < 1 or page + sp.npages > mheap().end_page:
        problem(out, SPAN_PAST_END, page, sp.npages, mheap().end_page)
        return 0
    if span_class < 0 or span_class >= layout.NUM_SPAN_CLASSES:
        problem(out, SPAN_SHAPE, page, span_class, 0)
        return 0
    npages, elem_size, nelems, magic = sp.npages, sp.npages << layout.PAGE_SHIFT, 1, 0
    if span_class > 1:
        npages, elem_size = span_pages(span_class), span_elem_size(span_class)
        nelems, magic = SPAN_NELEMS[span_class], DIV_MAGIC[span_class >> 1]
    field = 0
    if sp.npages != npages:
        field = 1
    elif sp.elem_size != elem_size:
        field = 2
    elif sp.nelems != nelems:
        field = 3
    elif sp.div_magic != magic:
        field = 4
    if field != 0:
        problem(out, SPAN_SHAPE, page, span_class, field)
        return 0
    return 1


@kernel("void(int64, int64)")
def _check_place(out: int, page: int) -> None:
    """The span's state is legal while nothing moves, and it is where a span of that state belongs."""
    sp = spans()[page]
    h = runtime().sweepgen
    state = mspan.state_of(page)
    gen = mspan.sweepgen_of(state)
    plain = mspan.pack_state(gen, mspan.parity_of(state), 0, 0)
    if state != plain or (gen != h and gen != h - 2 and gen != h + 3):
        problem(out, SPAN_STATE, page, state, h)
        return
    if gen == h + 3:
        ncached = _count_caches(page)
        if ncached != 1:
            problem(out, NOT_CACHED, page, ncached, 0)
        if sp.set != SET_NONE:
            problem(out, IN_NO_LIST, page, sp.span_class, sp.set)
        return
    kind = SET_FULL if sp.alloc_count == sp.nelems else SET_PARTIAL
    swept = (h >> 1) & 1
    expected = kind + (swept if gen == h else 1 - swept)
    if sp.set != expected:
        problem(out, IN_WRONG_LIST, page, sp.set, expected)


@inline
def _count_caches(page: int) -> int:
    n = 0
    for i in range(p_records()):
        entry = entry_addr(layout.p_addr(p_number(i)), spans()[page].span_class)
        n += 1 if mcache_at(entry).page == page else 0
    return n


@kernel("void(int64, int64, int64)")
def _check_count(out: int, page: int, entry: int) -> None:
    sp = spans()[page]
    nfree = popcount(offered(entry)) if entry != 0 else 0
    allocated = count_allocated(page, entry)
    if sp.alloc_count - nfree != allocated:
        problem(out, ALLOC_COUNT, page, sp.alloc_count - nfree, allocated)


@kernel("void(int64, int64, int64)")
def _check_bits(out: int, page: int, entry: int) -> None:
    """No bits beyond the slots; no marks in a swept span; in one that is to be swept only allocated slots are marked."""
    sp = spans()[page]
    unswept = is_unswept(page)
    for window in range(mspan.bit_words(page)):
        slots = slots_of_window(sp.nelems, window)
        marks = load_relaxed(mspan.mark_bits_addr(page) + 8 * window)
        if load_acquire(RT_XGCPHASE) != GC_OFF and 8 * window == OWNED_WORD:
            marks &= ~(OWNED_ONE | OWNED_MANY)
        stray = (load_relaxed(mspan.alloc_bits_addr(page) + 8 * window) | marks) & ~slots
        if stray != 0:
            problem(out, STRAY_BITS, page, sp.nelems, stray)
        if not unswept and marks != 0 and load_acquire(RT_XGCPHASE) == GC_OFF:
            problem(out, STRAY_MARK, page, window, marks)
        zombies = marks & slots & ~allocated_word(page, entry, window)
        if unswept and zombies != 0:
            problem(out, MARKED_FREE, page, window, zombies)
