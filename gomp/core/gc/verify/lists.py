"""Level 2: each span is in the one list or mcache where its state belongs."""

from __future__ import annotations

from gomp.core.gc.verify.problems import CACHE_ENTRY, CACHE_WINDOW, LIST_COUNT, LIST_MEMBER, LIST_TAIL, problem
from gomp.core.gc.verify.slots import after, allocated_word, next_span, p_number, slots_of_window
from gomp.core.heap import mspan
from gomp.core.heap.mcache import entry_addr, offered
from gomp.core.heap.mcentral import EMPTY
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.records import SET_NONE, SPAN_IN_USE, mcache_at, mcentrals, mheap, p_records, runtime, spans


@kernel("void(int64)")
def check_lists(out: int) -> None:
    """Level 2: each list holds the spans that say so, each once; each mcache entry has a span that says it is cached. World: stopped."""
    for span_class in range(layout.NUM_SPAN_CLASSES):
        for which in range(4):
            _check_list(out, span_class, which)
    _check_list_membership(out)
    for i in range(p_records()):
        for span_class in range(layout.NUM_SPAN_CLASSES):
            _check_cache_entry(out, p_number(i), span_class)


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
    page = next_span(0)
    while page < mheap().end_page:
        counted += 1 if spans()[page].set != SET_NONE else 0
        page = next_span(after(page))
    listed = 0
    for span_class in range(layout.NUM_SPAN_CLASSES):
        for which in range(4):
            listed += mcentrals()[span_class].count[which]
    if counted != listed:
        problem(out, LIST_COUNT, -1, -1, counted - listed)


@kernel("void(int64, int64, int64)")
def _check_cache_entry(out: int, p: int, span_class: int) -> None:
    e = mcache_at(entry_addr(layout.p_addr(p), span_class))
    page, free = e.page, offered(entry_addr(layout.p_addr(p), span_class))
    if page == mspan.NO_SPAN:
        if free != 0:
            problem(out, CACHE_ENTRY, p, span_class, page)
        return
    gen = mspan.sweepgen_of(mspan.state_of(page))
    if not _is_member(page, span_class, SET_NONE) or gen != runtime().sweepgen + 3:
        problem(out, CACHE_ENTRY, p, span_class, page)
    elif free != 0 and not _is_window_free(page, e.window, e.base_addr, free):
        problem(out, CACHE_WINDOW, p, span_class, page)


@inline
def _is_window_free(page: int, window: int, base: int, free: int) -> bool:
    if window < 0 or window >= mspan.bit_words(page) or base != mspan.obj_addr(page, 64 * window):
        return False
    return free & ~slots_of_window(spans()[page].nelems, window) == 0 and free & allocated_word(page, 0, window) == 0
