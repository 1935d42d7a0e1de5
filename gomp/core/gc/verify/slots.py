"""What the verifier's walks are made of: spans, and which of their slots hold objects.

A P is reached through ``p_addr`` only, this process's own too: see the alias rule in :mod:`~gomp.core.shm.layout`.
"""

from __future__ import annotations

from gomp.core.heap import mspan
from gomp.core.heap.mcache import entry_addr, offered
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import load_relaxed, lsr, popcount
from gomp.core.shm.records import SPAN_IN_USE, mcache_at, mheap, nrecords, p_records, runtime, spans


@inline
def p_number(i: int) -> int:
    """Number of the i-th P record in use; the last is the coordinator's."""
    return i if i < nrecords() else layout.COORDINATOR_P


@kernel("int64(int64)")
def next_span(page: int) -> int:
    """First page of the next span at or after ``page``; the heap's end if there is none. A free page's record says that it is dead."""
    end = mheap().end_page
    while page < end and spans()[page].state != SPAN_IN_USE:
        page += 1
    return page


@inline
def after(page: int) -> int:
    """The page after the span at ``page``: the next one, if the span's length makes no sense."""
    return page + max(1, spans()[page].npages)


@inline
def is_unswept(page: int) -> bool:
    return mspan.sweepgen_of(mspan.state_of(page)) == runtime().sweepgen - 2


@kernel("int64(int64)")
def entry_of(page: int) -> int:
    """Address of the mcache entry that has this span; 0 if none has."""
    span_class = spans()[page].span_class
    for i in range(p_records()):
        entry = entry_addr(layout.p_addr(p_number(i)), span_class)
        if mcache_at(entry).page == page:
            return entry
    return 0


@inline
def slots_of_window(nelems: int, window: int) -> int:
    """A word with a bit for each slot that the window has."""
    n = min(64, nelems - 64 * window)
    return lsr(-1, 64 - n)


@kernel("int64(int64, int64, int64)")
def allocated_word(page: int, entry: int, window: int) -> int:
    """The allocated slots of a window: for a cached span up to its open window all that the window does not offer."""
    sp = spans()[page]
    slots = slots_of_window(sp.nelems, window)
    if entry != 0:
        e = mcache_at(entry)
        if window < e.window:
            return slots
        if window == e.window:
            return slots & ~offered(entry)
    word = load_relaxed(mspan.alloc_bits_addr(page) + 8 * window)
    below = sp.freeindex - 64 * window
    if below >= 64:
        return slots
    if below > 0:
        word |= lsr(-1, 64 - below)
    return word & slots


@kernel("int64(int64, int64)")
def count_allocated(page: int, entry: int) -> int:
    n = 0
    for window in range(mspan.bit_words(page)):
        n += popcount(allocated_word(page, entry, window))
    return n


@inline
def checked_span(word: int) -> int:
    if not layout.is_heap_addr(word) or layout.addr_to_page(word) >= mheap().end_page:
        return mspan.NO_SPAN
    return mspan.find_span(word)


@inline
def is_slot_allocated(page: int, idx: int) -> bool:
    if idx >= spans()[page].nelems:
        return False
    return lsr(allocated_word(page, entry_of(page), idx >> 6), idx & 63) & 1 == 1
