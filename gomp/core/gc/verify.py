"""The verifier: walks the heap and says what does not hold. Slow, simple, and sharing no code with what it checks but the record layouts.

Level 1, :func:`check_counters`: nothing is held or half done; the byte counts add up; allocations less frees are the objects that exist.
Level 2, :func:`check_pages`, :func:`check_spans`, :func:`check_lists`: each page belongs to one span or is free, as bits, summaries
and page caches say; each span has the shape of its class, is in the one list or mcache where its state belongs, and counts its slots right.
:func:`check_specials`: each record belongs to an allocated object, and is in the one list or queue where its state belongs.
Level 3, :func:`check_reachable`: a trace of its own from the roots, with its own bitmap and stack: each reference leads to an allocated
object, and to a marked one if its span is still to be swept.

World: stopped; or one process that stands outside every kernel. Spans may be in mcaches, and the heap may be in the middle of being marked.

GODEBUG=gccheckmark: when marking says that it is done, the trace of level 3 with OUT_IS_MARKED set: whatever the precise roots lead to must be
marked. Native stacks are left out: what a program has left in a dead slot of its stack is not kept by the barrier.

Results go to a private buffer whose address is the argument: words 0..7 as named below, 68 counts of objects by size class, then
the first problems, four words each: a code and what it is about. :data:`PROBLEMS` turns them into sentences.

A P is reached through ``p_addr`` only, this process's own too: see the alias rule in :mod:`~gomp.core.shm.layout`.
"""

from __future__ import annotations

import numpy as np

from gomp.core.gc.poolroots import pool_record
from gomp.core.heap import mspan
from gomp.core.heap.accounting import metadata_bytes_stw, table_bytes_stw, wbuf_bytes_stw
from gomp.core.heap.mcache import entry_addr
from gomp.core.heap.mcentral import EMPTY
from gomp.core.heap.mheap import span_elem_size, span_pages
from gomp.core.heap.palloc import PALLOC_OK, check_summaries_locked
from gomp.core.heap.sizeclass import DIV_MAGIC, SPAN_NELEMS
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import load64, load_acquire, load_relaxed, lsl, lsr, popcount, store64
from gomp.core.shm.records import (
    GC_OFF,
    MHEAP_XCOMMITTED,
    MHEAP_XINUSE,
    MHEAP_XLOCK,
    MHEAP_XMETADATA,
    MHEAP_XRELEASED,
    MHEAP_XTABLES,
    MHEAP_XWBUF,
    OWNED_MANY,
    OWNED_ONE,
    OWNED_WORD,
    P_XNATIVE_N,
    P_XPENDING,
    PACER_XLIVE,
    POOL_PRIVATE,
    POOL_RING,
    POOL_VICTIM_PRIVATE,
    POOL_VICTIM_RING,
    RT_XGCPHASE,
    RT_XSPECIALS_LOCK,
    RT_XTABLE_LOCK,
    RT_XWBUF_FULL,
    RT_XWBUF_LOCK,
    SET_FULL,
    SET_NONE,
    SET_PARTIAL,
    SPAN_IN_USE,
    SPECIAL_ADDR,
    SPECIAL_ARMED,
    SPECIAL_CANCELLED,
    SPECIAL_DYING,
    SPECIAL_FINALIZER,
    SPECIAL_FREE,
    SPECIAL_QUEUED,
    SPECIAL_RUNNING,
    SPECIAL_VALUE,
    SPECIAL_WEAK,
    chunks,
    mcache_at,
    mcentrals,
    mheap,
    p_at,
    pacer,
    page_heads,
    runtime,
    spans,
    special_at,
    type_at,
)

OUT_CAPACITY, OUT_PROBLEMS, OUT_SPANS, OUT_OBJECTS, OUT_BYTES, OUT_PAGES, OUT_PENDING, OUT_IS_MARKED = range(8)
_CLASS_COUNTS = 8 * 8
_FIRST_OBLET = 128 << 10  # a longer array's references to itself count beyond it, as in Go
FIRST_PROBLEM = _CLASS_COUNTS + 68 * 8
PROBLEM_WORDS = 4

(
    LOCK_HELD, NO_PARK, WORK_LEFT, HEAP_BYTES, IN_USE_BYTES, IN_USE_PAGES, OBJECT_TOTAL, LARGE_TOTAL, LIVE_TOO_LOW,
    PAGE_NOT_TAKEN, PAGE_SCAVENGED, PAGE_HEAD, PAGE_LOST, CACHED_PAGE, CACHED_TWICE, FREE_BYTES, RELEASED_BYTES, SUMMARY,
    SPAN_SHAPE, SPAN_PAST_END, SPAN_STATE, NOT_CACHED, IN_NO_LIST, IN_WRONG_LIST, ALLOC_COUNT, STRAY_BITS, STRAY_MARK, MARKED_FREE,
    LIST_MEMBER, LIST_COUNT, LIST_TAIL, CACHE_ENTRY, CACHE_WINDOW,
    BAD_POINTER, DANGLING, UNMARKED, METADATA_BYTES, WBUF_BYTES, TABLE_BYTES,
    SPECIAL_ADDRESS, SPECIAL_LISTED, SPECIAL_ORDER, SPECIAL_QUEUES,
) = range(1, 44)  # fmt: skip

# What each code says of its three words a, b, c.
PROBLEMS = {
    LOCK_HELD: "the lock at {a:#x} is held by P {b} while the world is stopped",
    NO_PARK: "P {a} stands outside every kernel with {b} things in hand, expected 0",
    WORK_LEFT: "{a} full work buffers while nothing is marked, expected 0",
    HEAP_BYTES: "in use + free + released is {a} bytes, expected {b}: all that the heap has grown to",
    IN_USE_BYTES: "heap_inuse is {a}, expected {b}: the bytes of the spans and of those being made",
    METADATA_BYTES: "xmetadata_bytes is {a}, expected {b}: what is committed for the pages that the heap has grown to",
    WBUF_BYTES: "xwbuf_bytes is {a}, expected {b}: the work buffers and span queues",
    TABLE_BYTES: "xtable_bytes is {a}, expected {b}: the records and tables",
    IN_USE_PAGES: "pages_in_use is {a}, expected {b}: the pages of the spans and of those being made",
    OBJECT_TOTAL: "size class {a}: {b} objects allocated and not freed, {c} found",
    LARGE_TOTAL: "{a} bytes of large objects allocated and not freed, {b} found",
    LIVE_TOO_LOW: "heap_live is {a}, expected at least heap_marked, {b}",
    PAGE_NOT_TAKEN: "page {a} of the span at page {b} is free in the bitmap, expected taken",
    PAGE_SCAVENGED: "page {a}, which is taken, is marked scavenged",
    PAGE_HEAD: "page {a}: its head entry is {c}, expected the span at page {b}",
    PAGE_LOST: "page {a} is taken and in no span and no page cache",
    CACHED_PAGE: "page {a} is in the page cache of P {b} and in the span at page {c} or free in the bitmap",
    CACHED_TWICE: "page {a} is in the page caches of P {b} and P {c}",
    FREE_BYTES: "heap_free is {a}, expected {b}: the free pages that are committed",
    RELEASED_BYTES: "heap_released is {a}, expected {b}: the free pages that are scavenged",
    SUMMARY: "page summaries: check_summaries_locked found {a}, expected {b}",
    SPAN_SHAPE: "span at page {a} of class {b}: its field {c} (npages, elem_size, nelems, div_magic) is not that of the class",
    SPAN_PAST_END: "span at page {a} has {b} pages, which end after the heap's {c}",
    SPAN_STATE: "span at page {a} has state {b:#x}, which is neither unswept, swept nor cached at sweepgen {c}",
    NOT_CACHED: "span at page {a} says that it is cached; {b} mcaches have it, expected 1",
    IN_NO_LIST: "span at page {a} of class {b} is in list {c}, expected none: it is cached",
    IN_WRONG_LIST: "span at page {a} is in list {b}, expected list {c}",
    ALLOC_COUNT: "span at page {a}: alloc_count is {b}, {c} slots are allocated",
    STRAY_BITS: "span at page {a}: bits {c:#x} are set beyond its {b} slots",
    STRAY_MARK: "span at page {a}, which is swept, has marks {c:#x} in window {b}",
    MARKED_FREE: "span at page {a}: slots {c:#x} of window {b} are marked and not allocated",
    LIST_MEMBER: "list {b} of class {a} holds the page {c}, which is no span that belongs to it",
    LIST_COUNT: "list {b} of class {a} has another length than its count and its spans say: {c}",
    LIST_TAIL: "list {b} of class {a} ends at page {c}, not at its tail",
    CACHE_ENTRY: "mcache of P {a}, class {b}: page {c} is no span that belongs there",
    CACHE_WINDOW: "mcache of P {a}, class {b}: the window of the span at page {c} offers allocated slots or another address",
    BAD_POINTER: "the reference at {b:#x} is {a:#x}, which is in no span in use",
    DANGLING: "the reference at {b:#x} is {a:#x}, a free slot of the span at page {c}",
    SPECIAL_ADDRESS: "special {a} is for {b:#x}, which is no allocated object",
    SPECIAL_LISTED: "{a} specials are in the lists of spans, expected {b}: the armed ones",
    SPECIAL_QUEUES: "{a} specials are in the queues of Ps, expected {b}: those that are due",
    SPECIAL_ORDER: "special {b} in the list of the span at page {a} is in state {c}, or not of this span, or out of order",
    UNMARKED: "the reference at {b:#x} is {a:#x}, an object of the span at page {c} that is not marked",
}


# --- the result -------------------------------------------------------------------------------------------------------


@inline
def _get(out: int, word: int) -> int:
    return load64(out + 8 * word)


@inline
def _add(out: int, word: int, delta: int) -> None:
    store64(out + 8 * word, load64(out + 8 * word) + delta)


@kernel("void(int64, int64, int64, int64, int64)")
def problem(out: int, code: int, a: int, b: int, c: int) -> None:
    """Count a problem, and write it down if there is room."""
    n = _get(out, OUT_PROBLEMS)
    if n < _get(out, OUT_CAPACITY):
        at = out + FIRST_PROBLEM + 8 * PROBLEM_WORDS * n
        store64(at, code)
        store64(at + 8, a)
        store64(at + 16, b)
        store64(at + 24, c)
    store64(out + 8 * OUT_PROBLEMS, n + 1)


@kernel("void(int64, int64, int64, int64)")
def expect(out: int, code: int, found: int, expected: int) -> None:
    if found != expected:
        problem(out, code, found, expected, 0)


# --- what the walks are made of ---------------------------------------------------------------------------------------


@inline
def _p_number(i: int) -> int:
    """Number of the i-th P record in use; the last is the coordinator's."""
    return i if i < runtime().nrecords else layout.COORDINATOR_P


@kernel("int64(int64)")
def _next_span(page: int) -> int:
    """First page of the next span at or after ``page``; the heap's end if there is none. A free page's record says that it is dead."""
    end = mheap().end_page
    while page < end and spans()[page].state != SPAN_IN_USE:
        page += 1
    return page


@inline
def _after(page: int) -> int:
    """The page after the span at ``page``: the next one, if the span's length makes no sense."""
    return page + max(1, spans()[page].npages)


@inline
def _is_unswept(page: int) -> bool:
    return mspan.sweepgen_of(mspan.state_of(page)) == runtime().sweepgen - 2


@kernel("int64(int64)")
def _entry_of(page: int) -> int:
    """Address of the mcache entry that has this span; 0 if none has."""
    span_class = spans()[page].span_class
    for i in range(runtime().nrecords + 1):
        entry = entry_addr(layout.p_addr(_p_number(i)), span_class)
        if mcache_at(entry).page == page:
            return entry
    return 0


@inline
def _slots_of_window(nelems: int, window: int) -> int:
    """A word with a bit for each slot that the window has."""
    n = min(64, nelems - 64 * window)
    return lsr(-1, 64 - n)


@kernel("int64(int64, int64, int64)")
def _allocated_word(page: int, entry: int, window: int) -> int:
    """The allocated slots of a window: for a cached span up to its open window all that the window does not offer."""
    sp = spans()[page]
    slots = _slots_of_window(sp.nelems, window)
    if entry != 0:
        e = mcache_at(entry)
        if window < e.window:
            return slots
        if window == e.window:
            return slots & ~e.free
    word = load_relaxed(mspan.alloc_bits_addr(page) + 8 * window)
    below = sp.freeindex - 64 * window
    if below >= 64:
        return slots
    if below > 0:
        word |= lsr(-1, 64 - below)
    return word & slots


@kernel("int64(int64, int64)")
def _count_allocated(page: int, entry: int) -> int:
    n = 0
    for window in range(mspan.bit_words(page)):
        n += popcount(_allocated_word(page, entry, window))
    return n


# --- level 1 ----------------------------------------------------------------------------------------------------------


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
    pages = _get(out, OUT_PAGES) + _pages_on_their_way()
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
    for i in range(runtime().nrecords + 1):
        pp = p_at(layout.p_addr(_p_number(i)))
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
    for span_class in range(layout.NUM_SPAN_CLASSES):
        _check_lock(out, layout.MCENTRALS_BASE + 128 * span_class)
    for i in range(layout.MAP_LOCKS):
        _check_lock(out, layout.MAP_LOCKS_BASE + i * layout.MAP_LOCK_SIZE)
    for i in range(runtime().nrecords + 1):
        p = _p_number(i)
        in_hand = p_at(layout.p_addr(p)).no_park
        if in_hand != 0:
            problem(out, NO_PARK, p, in_hand, 0)
    if load_acquire(RT_XGCPHASE) == GC_OFF:
        expect(out, WORK_LEFT, load_acquire(RT_XWBUF_FULL), 0)


@kernel("void(int64)")
def _count_spans(out: int) -> None:
    """Spans, pages, objects and bytes; objects by size class."""
    page = _next_span(0)
    while page < mheap().end_page:
        sp = spans()[page]
        n = _count_allocated(page, _entry_of(page))
        _add(out, OUT_SPANS, 1)
        _add(out, OUT_PAGES, sp.npages)
        _add(out, OUT_OBJECTS, n)
        _add(out, OUT_BYTES, n * sp.elem_size)
        if sp.span_class < 2:
            _add(out, OUT_PENDING, n * sp.elem_size)
        store64(
            out + _CLASS_COUNTS + 8 * (sp.span_class >> 1), load64(out + _CLASS_COUNTS + 8 * (sp.span_class >> 1)) + n
        )
        page = _next_span(_after(page))


@kernel("int64(int64, int64)")
def _unsettled(p: int, span_class: int) -> int:
    """Objects allocated from the span that the P has cached, and not yet counted."""
    e = mcache_at(entry_addr(p, span_class))
    if e.page == mspan.NO_SPAN:
        return 0
    sp = spans()[e.page]
    return sp.alloc_count - popcount(e.free) - sp.alloc_before_cache


@kernel("void(int64)")
def _check_totals(out: int) -> None:
    nrecords = runtime().nrecords
    for size_class in range(1, 68):
        n = 0
        for i in range(nrecords + 1):
            p = layout.p_addr(_p_number(i))
            n += p_at(p).small_alloc[size_class] - p_at(p).small_free[size_class]
            n += _unsettled(p, 2 * size_class) + _unsettled(p, 2 * size_class + 1)
        found = load64(out + _CLASS_COUNTS + 8 * size_class)
        if n != found:
            problem(out, OBJECT_TOTAL, size_class, n, found)
    n, nbytes = 0, 0
    for i in range(nrecords + 1):
        pp = p_at(layout.p_addr(_p_number(i)))
        n += pp.large_alloc_count - pp.large_free_count
        nbytes += pp.large_alloc - pp.large_free
    if n != load64(out + _CLASS_COUNTS):
        problem(out, OBJECT_TOTAL, 0, n, load64(out + _CLASS_COUNTS))
    expect(out, LARGE_TOTAL, nbytes, _get(out, OUT_PENDING))


# --- level 2: pages ---------------------------------------------------------------------------------------------------


@inline
def _alloc_bit(page: int) -> int:
    return lsr(chunks()[page >> layout.CHUNK_SHIFT].alloc[(page & (layout.CHUNK_PAGES - 1)) >> 6], page & 63) & 1


@inline
def _scav_bit(page: int) -> int:
    return lsr(chunks()[page >> layout.CHUNK_SHIFT].scav[(page & (layout.CHUNK_PAGES - 1)) >> 6], page & 63) & 1


@inline
def _is_in_cache(p: int, page: int) -> bool:
    pp = p_at(layout.p_addr(p))
    at = page - pp.cache_page
    return pp.cache_free != 0 and 0 <= at < 64 and lsr(pp.cache_free, at) & 1 == 1


@kernel("void(int64)")
def check_pages(out: int) -> None:
    """Level 2: each page is in one span, or in one page cache, or free. World: stopped."""
    end = mheap().end_page
    free, released = 0, 0
    page = 0
    while page < end:
        if spans()[page].state == SPAN_IN_USE:
            after = min(_after(page), end)
            for at in range(page, after):
                _check_span_page(out, page, at)
            page = after
            continue
        if _alloc_bit(page) == 0:
            released += _scav_bit(page)
            free += 1 - _scav_bit(page)
        elif _is_cached_or_taking(page) == 0:
            problem(out, PAGE_LOST, page, 0, 0)
        page += 1
    for i in range(runtime().nrecords + 1):
        pp = p_at(layout.p_addr(_p_number(i)))
        released += popcount(pp.cache_scav)
        free += popcount(pp.cache_free) - popcount(pp.cache_scav)
        _check_page_cache(out, i)
    expect(out, FREE_BYTES, load_relaxed(MHEAP_XCOMMITTED) - load_relaxed(MHEAP_XINUSE), free << layout.PAGE_SHIFT)
    expect(out, RELEASED_BYTES, load_relaxed(MHEAP_XRELEASED), released << layout.PAGE_SHIFT)
    expect(out, SUMMARY, check_summaries_locked(), PALLOC_OK)


@kernel("void(int64, int64, int64)")
def _check_span_page(out: int, page: int, at: int) -> None:
    if _alloc_bit(at) == 0:
        problem(out, PAGE_NOT_TAKEN, at, page, 0)
    if _scav_bit(at) == 1:
        problem(out, PAGE_SCAVENGED, at, 0, 0)
    head = np.int64(page_heads()[at])
    if head != mspan.head_entry(spans()[page].span_class, spans()[page].elem_size, at - page):
        problem(out, PAGE_HEAD, at, page, head)


@kernel("int64(int64)")
def _is_cached_or_taking(page: int) -> int:
    """1 if the page is in a page cache, or on its way into a span."""
    for i in range(runtime().nrecords + 1):
        p = _p_number(i)
        pp = p_at(layout.p_addr(p))
        if _is_in_cache(p, page):
            return 1
        if pp.taking_page != mspan.NO_SPAN and pp.taking_page <= page < pp.taking_page + pp.taking_npages:
            return 1
    return 0


@kernel("void(int64, int64)")
def _check_page_cache(out: int, i: int) -> None:
    """Each page of the i-th P's cache is taken, in no span and in no other cache."""
    p = _p_number(i)
    pp = p_at(layout.p_addr(p))
    for k in range(64):
        if lsr(pp.cache_free, k) & 1 == 0:
            continue
        page = pp.cache_page + k
        span = mspan.find_span(layout.page_to_addr(page))  # the heads of spans' pages have been checked
        if span != mspan.NO_SPAN or _alloc_bit(page) == 0 or _scav_bit(page) == 1:
            problem(out, CACHED_PAGE, page, p, span)
        for j in range(i):
            if _is_in_cache(_p_number(j), page):
                problem(out, CACHED_TWICE, page, p, _p_number(j))


# --- level 2: spans ---------------------------------------------------------------------------------------------------


@kernel("void(int64)")
def check_spans(out: int) -> None:
    """Level 2: each span has its class's shape, a legal state, its place, and right counts and bits. World: stopped."""
    page = _next_span(0)
    while page < mheap().end_page:
        if _check_shape(out, page):
            entry = _entry_of(page)
            _check_place(out, page)
            _check_count(out, page, entry)
            _check_bits(out, page, entry)
        page = _next_span(_after(page))


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
    for i in range(runtime().nrecords + 1):
        entry = entry_addr(layout.p_addr(_p_number(i)), spans()[page].span_class)
        n += 1 if mcache_at(entry).page == page else 0
    return n


@kernel("void(int64, int64, int64)")
def _check_count(out: int, page: int, entry: int) -> None:
    sp = spans()[page]
    offered = popcount(mcache_at(entry).free) if entry != 0 else 0
    allocated = _count_allocated(page, entry)
    if sp.alloc_count - offered != allocated:
        problem(out, ALLOC_COUNT, page, sp.alloc_count - offered, allocated)


@kernel("void(int64, int64, int64)")
def _check_bits(out: int, page: int, entry: int) -> None:
    """No bits beyond the slots; no marks in a swept span; in one that is to be swept only allocated slots are marked."""
    sp = spans()[page]
    unswept = _is_unswept(page)
    for window in range(mspan.bit_words(page)):
        slots = _slots_of_window(sp.nelems, window)
        marks = load_relaxed(mspan.mark_bits_addr(page) + 8 * window)
        if load_acquire(RT_XGCPHASE) != GC_OFF and 8 * window == OWNED_WORD:
            marks &= ~(OWNED_ONE | OWNED_MANY)
        stray = (load_relaxed(mspan.alloc_bits_addr(page) + 8 * window) | marks) & ~slots
        if stray != 0:
            problem(out, STRAY_BITS, page, sp.nelems, stray)
        if not unswept and marks != 0 and load_acquire(RT_XGCPHASE) == GC_OFF:
            problem(out, STRAY_MARK, page, window, marks)
        zombies = marks & slots & ~_allocated_word(page, entry, window)
        if unswept and zombies != 0:
            problem(out, MARKED_FREE, page, window, zombies)


# --- level 2: lists and mcaches ---------------------------------------------------------------------------------------


@kernel("void(int64)")
def check_lists(out: int) -> None:
    """Level 2: each list holds the spans that say so, each once; each mcache entry has a span that says it is cached. World: stopped."""
    for span_class in range(layout.NUM_SPAN_CLASSES):
        for which in range(4):
            _check_list(out, span_class, which)
    _check_list_membership(out)
    for i in range(runtime().nrecords + 1):
        for span_class in range(layout.NUM_SPAN_CLASSES):
            _check_cache_entry(out, _p_number(i), span_class)


@inline
def _is_member(page: int, span_class: int, which: int) -> bool:
    if page < 0 or page >= mheap().end_page:
        return False
    sp = spans()[page]
    return sp.state == SPAN_IN_USE and sp.span_class == span_class and sp.set == which


@kernel("void(int64, int64, int64)")
def _check_list(out: int, span_class: int, which: int) -> None:
    c = mcentrals()[span_class]
    page, last, n = c.head[which], EMPTY, 0
    while page != EMPTY and n <= c.count[which]:
        if not _is_member(page, span_class, which):
            problem(out, LIST_MEMBER, span_class, which, page)
            return
        n += 1
        last = page
        page = spans()[page].next
    if n != c.count[which]:
        problem(out, LIST_COUNT, span_class, which, c.count[which])
    elif last != EMPTY and c.tail[which] != last:  # the tail of an empty list means nothing
        problem(out, LIST_TAIL, span_class, which, last)


@kernel("void(int64)")
def _check_list_membership(out: int) -> None:
    """As many spans say that they are in a list as the list has: with :func:`_check_list`, the same ones."""
    counted = 0
    page = _next_span(0)
    while page < mheap().end_page:
        counted += 1 if spans()[page].set != SET_NONE else 0
        page = _next_span(_after(page))
    listed = 0
    for span_class in range(layout.NUM_SPAN_CLASSES):
        for which in range(4):
            listed += mcentrals()[span_class].count[which]
    if counted != listed:
        problem(out, LIST_COUNT, -1, -1, counted - listed)


@kernel("void(int64, int64, int64)")
def _check_cache_entry(out: int, p: int, span_class: int) -> None:
    e = mcache_at(entry_addr(layout.p_addr(p), span_class))
    page = e.page
    if page == mspan.NO_SPAN:
        if e.free != 0:
            problem(out, CACHE_ENTRY, p, span_class, page)
        return
    gen = mspan.sweepgen_of(mspan.state_of(page))
    if not _is_member(page, span_class, SET_NONE) or gen != runtime().sweepgen + 3:
        problem(out, CACHE_ENTRY, p, span_class, page)
    elif e.free != 0 and not _is_window_free(page, e.window, e.base_addr, e.free):
        problem(out, CACHE_WINDOW, p, span_class, page)


@inline
def _is_window_free(page: int, window: int, base: int, free: int) -> bool:
    if window < 0 or window >= mspan.bit_words(page) or base != mspan.obj_addr(page, 64 * window):
        return False
    return free & ~_slots_of_window(spans()[page].nelems, window) == 0 and free & _allocated_word(page, 0, window) == 0


# --- level 2: specials ------------------------------------------------------------------------------------------------


@kernel("void(int64)")
def check_specials(out: int) -> None:
    """Level 2: each record is where its state says. World: stopped.

    A list is strictly ordered, so it has nobody twice; a queue that is too long goes in circles. So it is enough to count.
    """
    armed, due = 0, 0
    for n in range(1, runtime().nspecials + 1):
        state, s = load_acquire(special_addr(n)), special_at(special_addr(n))
        if state in (SPECIAL_ARMED, SPECIAL_DYING):
            armed += 1
            page = _checked_span(s.addr)
            if page == mspan.NO_SPAN or not _is_slot_allocated(page, mspan.obj_idx_of(page, s.addr)):
                problem(out, SPECIAL_ADDRESS, n, s.addr, 0)
        elif state in (SPECIAL_QUEUED, SPECIAL_CANCELLED):
            due += 1
    listed = 0
    page = _next_span(0)
    while page < mheap().end_page:
        listed += _check_special_list(out, page)
        page = _next_span(_after(page))
    queued = 0
    for i in range(runtime().nrecords + 1):
        pp = p_at(layout.p_addr(_p_number(i)))
        queued += _count_due(pp.finalizers) + _count_due(pp.finalizer_batch) + _count_due(pp.cleanups)
    expect(out, SPECIAL_LISTED, listed, armed)
    expect(out, SPECIAL_QUEUES, queued, due)


@inline
def special_addr(n: int) -> int:
    return layout.SPECIALS_BASE + 64 * (n - 1)


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
        if not is_armed or _checked_span(special_at(special_addr(n)).addr) != page or not _follows(before, n):
            problem(out, SPECIAL_ORDER, page, n, state)
            return listed
        n, before, listed = special_at(special_addr(n)).next, n, listed + 1
    return listed


# --- level 3 ----------------------------------------------------------------------------------------------------------


@kernel("int64(int64, int64, int64)")
def check_reachable(out: int, visited: int, stack: int) -> int:
    """Level 3, after the others found nothing: trace from the roots; returns the number of objects reached. World: stopped.

    ``visited``: zeroed words with a bit for each 8 bytes that the heap has grown to. ``stack``: a word for each object there is.
    """
    depth = _visit_globals(out, visited, stack)
    depth = _visit_specials(out, visited, stack, depth)
    for i in range(runtime().nrecords + 1):
        depth = _visit_handles(out, visited, stack, depth, _p_number(i))
        if not _get(out, OUT_IS_MARKED):
            depth = _visit_native(visited, stack, depth, _p_number(i))
    reached = 0
    while depth > 0:
        depth -= 1
        reached += 1
        depth = visit_object(out, visited, stack, depth, load64(stack + 8 * depth), 0)
    return reached


@inline
def _visit_globals(out: int, visited: int, stack: int) -> int:
    depth = 0
    for slot in range(layout.GLOBALS_BASE, layout.GLOBALS_BASE + 64 * runtime().nglobals, 64):
        depth = _visit(out, visited, stack, depth, slot)
    for pool in range(runtime().npools):
        for i in range(runtime().nrecords):
            record = pool_record(pool, i)
            depth = _visit(out, visited, stack, depth, record + POOL_PRIVATE)
            depth = _visit(out, visited, stack, depth, record + POOL_RING)
            depth = _visit(out, visited, stack, depth, record + POOL_VICTIM_PRIVATE)
            depth = _visit(out, visited, stack, depth, record + POOL_VICTIM_RING)
    return depth


@kernel("int64(int64, int64, int64, int64)")
def _visit_specials(out: int, visited: int, stack: int, depth: int) -> int:
    """Handles of weak pointers; objects whose finalizers are due; what those lead to that have one, but not they themselves."""
    for n in range(1, runtime().nspecials + 1):
        at = special_addr(n)
        s, state = special_at(at), load_acquire(at)
        if state == SPECIAL_FREE:
            continue
        if s.kind == SPECIAL_WEAK:
            depth = _visit(out, visited, stack, depth, at + SPECIAL_VALUE)
        elif s.kind == SPECIAL_FINALIZER and state in (SPECIAL_QUEUED, SPECIAL_RUNNING):
            depth = _visit(out, visited, stack, depth, at + SPECIAL_ADDR)
        elif s.kind == SPECIAL_FINALIZER:
            page = mspan.find_span(s.addr)
            depth = visit_object(out, visited, stack, depth, mspan.obj_addr(page, mspan.obj_idx_of(page, s.addr)), 1)
    return depth


@inline
def _visit_handles(out: int, visited: int, stack: int, depth: int, p: int) -> int:
    base = layout.handles_addr(p)
    for slot in range(base, base + 8 * p_at(layout.p_addr(p)).handles, 8):
        depth = _visit(out, visited, stack, depth, slot)
    return depth


@inline
def _visit_native(visited: int, stack: int, depth: int, p: int) -> int:
    """Words that may be anything: those that lead to objects, in a span that is to be swept to marked ones."""
    base = layout.native_roots_addr(p)
    for slot in range(base, base + 8 * load_acquire(layout.p_addr(p) + P_XNATIVE_N), 8):
        depth = _visit_word(visited, stack, depth, load64(slot))
    return _visit_word(visited, stack, depth, load_relaxed(layout.p_addr(p) + P_XPENDING))


@inline
def _visit_word(visited: int, stack: int, depth: int, word: int) -> int:
    page = _checked_span(word)
    if page == mspan.NO_SPAN or not _is_slot_allocated(page, mspan.obj_idx_of(page, word)):
        return depth
    idx = mspan.obj_idx_of(page, word)
    if _is_unswept(page) and not mspan.is_marked(page, idx):
        return depth
    return _push_once(visited, stack, depth, mspan.obj_addr(page, idx))


@inline
def _checked_span(word: int) -> int:
    if not layout.is_heap_addr(word) or layout.addr_to_page(word) >= mheap().end_page:
        return mspan.NO_SPAN
    return mspan.find_span(word)


@inline
def _is_slot_allocated(page: int, idx: int) -> bool:
    if idx >= spans()[page].nelems:
        return False
    return lsr(_allocated_word(page, _entry_of(page), idx >> 6), idx & 63) & 1 == 1


@inline
def _push_once(visited: int, stack: int, depth: int, addr: int) -> int:
    word_idx = (addr - layout.HEAP_BASE) >> 3
    word = visited + ((word_idx >> 6) << 3)
    bit = lsl(1, word_idx & 63)
    if load64(word) & bit:
        return depth
    store64(word, load64(word) | bit)
    store64(stack + 8 * depth, addr)
    return depth + 1


@kernel("int64(int64, int64, int64, int64, int64)")
def _visit(out: int, visited: int, stack: int, depth: int, slot: int) -> int:
    """Follow the reference in ``slot``; returns the stack's new depth. A word that is no heap address refers to nothing, as for marking."""
    word = load_relaxed(slot)
    if not layout.is_heap_addr(word):
        return depth
    page = _checked_span(word)
    if page == mspan.NO_SPAN:
        problem(out, BAD_POINTER, word, slot, 0)
        return depth
    idx = mspan.obj_idx_of(page, word)
    if not _is_slot_allocated(page, idx):
        problem(out, DANGLING, word, slot, page)
        return depth
    if (_is_unswept(page) or _get(out, OUT_IS_MARKED)) and not mspan.is_marked(page, idx):
        problem(out, UNMARKED, word, slot, page)
    return _push_once(visited, stack, depth, mspan.obj_addr(page, idx))


@inline
def _is_pointer_word(addr: int) -> bool:
    """By the pointer bits at the end of the page."""
    page_base = addr & -layout.PAGE_SIZE
    word_idx = (addr - page_base) >> 3
    return lsr(load64(page_base + layout.PAGE_SIZE - 256 + ((word_idx >> 6) << 3)), word_idx & 63) & 1 == 1


@kernel("int64(int64, int64, int64, int64, int64, int64)")
def visit_object(out: int, visited: int, stack: int, depth: int, addr: int, only_others: int) -> int:
    """Follow the references of the object in the slot at ``addr``, with ``only_others`` but those to itself; returns the stack's new depth."""
    page = mspan.find_span(addr)
    sp = spans()[page]
    if mspan.is_noscan(sp.span_class):
        return depth
    if sp.elem_size > mspan.MAX_INLINE:
        return _visit_typed(out, visited, stack, depth, addr, only_others)
    for slot in range(addr, addr + sp.elem_size, 8):
        if (sp.span_class == mspan.SCAN8 or _is_pointer_word(slot)) and not (only_others and _leads_to(slot, addr)):
            depth = _visit(out, visited, stack, depth, slot)
    return depth


@inline
def _leads_to(slot: int, addr: int) -> bool:
    """Whether the reference leads into the object in the slot at ``addr``."""
    return addr <= load_relaxed(slot) < addr + spans()[mspan.find_span(addr)].elem_size


@kernel("int64(int64, int64, int64, int64, int64, int64)")
def _visit_typed(out: int, visited: int, stack: int, depth: int, addr: int, only_others: int) -> int:
    """An object above 512 bytes: its type's record is named by its first word or, for a large one, by its span."""
    sp = spans()[mspan.find_span(addr)]
    type_addr, obj = sp.large_type, addr
    if sp.span_class > 1:
        type_addr, obj = load64(addr), addr + 8
    if type_addr == 0:  # large, and not zeroed yet
        return depth
    t = type_at(type_addr)
    if t.elem_size == 0:
        for i in range(t.ptr_bytes >> 3):
            is_reference = lsr(load64(t.mask + ((i >> 6) << 3)), i & 63) & 1
            if is_reference and not (only_others and _leads_to(obj + 8 * i, addr)):
                depth = _visit(out, visited, stack, depth, obj + 8 * i)
    elif t.ptr_bytes != 0:
        for slot in range(obj + 8, obj + 8 + load64(obj) * t.elem_size, 8):
            if only_others and slot < addr + _FIRST_OBLET and _leads_to(slot, addr):
                continue
            i = (slot - obj - 8) % t.elem_size >> 3
            if 8 * i < t.ptr_bytes and lsr(load64(t.mask + ((i >> 6) << 3)), i & 63) & 1:
                depth = _visit(out, visited, stack, depth, slot)
    return depth
