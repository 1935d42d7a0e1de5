"""A span: a run of pages that holds slots of one size, or one large object. Where its bits are, and what they say.

The record of a span is found from any address inside it: ``page_heads`` gives, for each page in use, how many pages back its span
starts, plus one. The entry of a free page may be stale, so a lookup that does not trust its address checks the record too. For a span of
slots of 16 to 512 bytes, which is one page, it gives the negated span class instead, and is 0 once the page is free: marking needs nothing
else, and the table of a heap of a GiB fits in a processor's cache, as the records do not.

Three layouts of bits (see ``span_dtype``): in-span marks for slots of 16 to 512 bytes, where marking touches the cache line of the page and not
a table; the span's end for the second bitmap of the 8-byte class; the record for the rest, which has at most 16 slots.
"""

from __future__ import annotations

import numpy as np

from gomp.core.jit import inline
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    and_acq_rel,
    load64,
    load_acquire,
    load_relaxed,
    lsl,
    lsr,
    or_acq_rel,
    or_relaxed,
    store64,
    store_release,
)
from gomp.core.shm.records import (
    HEAP_BITMAP,
    INLINE_MARKS,
    INLINE_SCANS,
    SPAN_BITS,
    SPAN_IN_USE,
    SPAN_STATE,
    SPAN_XSTATE,
    STATE_OWNER_SHIFT,
    STATE_PARITY_SHIFT,
    STATE_STEP_SHIFT,
    STEP_SWEPT,
    page_heads,
    spans,
)

SPAN_RECORD = 256
NO_SPAN = -1
MAX_INLINE = 512  # bytes: slots up to this size have their bits in the span
SCAN8 = 2  # the span class of 8-byte objects that are one reference
_GEN_MASK = 0xFFFFFFFF


@inline
def span_addr(page: int) -> int:
    """Address of the record of the span that starts at ``page``."""
    return layout.SPANS_BASE + page * SPAN_RECORD


@inline
def is_noscan(span_class: int) -> bool:
    return span_class & 1 == 1


@inline
def has_inline_marks(elem_size: int) -> bool:
    return 16 <= elem_size <= MAX_INLINE


# --- from an address to a slot ----------------------------------------------------------------------------------------


@inline
def head_entry(span_class: int, elem_size: int, i: int) -> int:
    """The entry in page_heads for page ``i`` of a span."""
    return -span_class if has_inline_marks(elem_size) else i + 1


@inline
def span_of(addr: int) -> int:
    """First page of the span in use that holds ``addr``. Trusts that ``addr`` is inside one."""
    page = layout.addr_to_page(addr)
    return page - max(np.int64(page_heads()[page]), 1) + 1


@inline
def find_span(addr: int) -> int:
    """First page of the span in use that holds ``addr``, a word that may be anything; NO_SPAN if there is none."""
    page = layout.addr_to_page(addr)
    back = np.int64(page_heads()[page])
    if back == 0:
        return NO_SPAN
    head = page - max(back, 1) + 1
    # Acquire: a word that may be anything may lead to a span that another P is making. It sees all of it or none.
    if load_acquire(span_addr(head) + SPAN_STATE) != SPAN_IN_USE or page - head >= spans()[head].npages:
        return NO_SPAN
    return head


@inline
def obj_idx_of(page: int, addr: int) -> int:
    """Number of the slot that holds ``addr``; at least nelems if ``addr`` is in the span's tail."""
    return ((addr - layout.page_to_addr(page)) * spans()[page].div_magic) >> 32


@inline
def obj_addr(page: int, idx: int) -> int:
    return layout.page_to_addr(page) + idx * spans()[page].elem_size


# --- the state word ---------------------------------------------------------------------------------------------------


@inline
def state_of(page: int) -> int:
    return load_acquire(span_addr(page) + SPAN_XSTATE)


@inline
def set_state(page: int, state: int) -> None:
    store_release(span_addr(page) + SPAN_XSTATE, state)


@inline
def pack_state(sweepgen: int, parity: int, step: int, owner: int) -> int:
    return sweepgen | (parity << STATE_PARITY_SHIFT) | (step << STATE_STEP_SHIFT) | (owner << STATE_OWNER_SHIFT)


@inline
def sweepgen_of(state: int) -> int:
    return state & _GEN_MASK


@inline
def parity_of(state: int) -> int:
    return (state >> STATE_PARITY_SHIFT) & 1


@inline
def step_of(state: int) -> int:
    return (state >> STATE_STEP_SHIFT) & 3


@inline
def set_sweepgen(page: int, sweepgen: int) -> None:
    """Holds: the span, swept. Changes only its generation."""
    set_state(page, pack_state(sweepgen, parity_of(state_of(page)), STEP_SWEPT, 0))


# --- bits -------------------------------------------------------------------------------------------------------------


@inline
def _span_end(page: int) -> int:
    return layout.page_to_addr(page + spans()[page].npages)


@inline
def alloc_bits_addr(page: int) -> int:
    """Address of the bitmap that says which slots are allocated (beside those below freeindex)."""
    return _bitmap(page, parity_of(state_of(page)))


@inline
def spare_bits_addr(page: int) -> int:
    """Address of the other bitmap: where the next sweep puts what survives."""
    return _bitmap(page, 1 - parity_of(state_of(page)))


@inline
def _bitmap(page: int, parity: int) -> int:
    if spans()[page].span_class == SCAN8:
        return span_addr(page) + SPAN_BITS if parity == 0 else _span_end(page) - HEAP_BITMAP
    return span_addr(page) + SPAN_BITS + 64 * parity


@inline
def mark_bits_addr(page: int) -> int:
    """Address of the mark bits: in the span, or the spare bitmap itself."""
    if has_inline_marks(spans()[page].elem_size):
        return _span_end(page) - INLINE_MARKS
    return spare_bits_addr(page)


@inline
def bit_words(page: int) -> int:
    """Words of each of the span's bitmaps."""
    return (spans()[page].nelems + 63) >> 6


@inline
def get_bit(bits: int, idx: int) -> int:
    return lsr(load_relaxed(bits + ((idx >> 6) << 3)), idx & 63) & 1


@inline
def is_marked(page: int, idx: int) -> bool:
    return get_bit(mark_bits_addr(page), idx) == 1


@inline
def try_mark(page: int, idx: int) -> bool:
    """Set the mark of a slot; whether it was this call that set it. Marks are only ever added while marking, so the order is nobody's concern."""
    word = mark_bits_addr(page) + ((idx >> 6) << 3)
    bit = lsl(1, idx & 63)
    if load_relaxed(word) & bit:
        return False
    return or_relaxed(word, bit) & bit == 0


@inline
def blacken_free(page: int, window: int, free: int) -> None:
    """Mark the free slots of a window that is opened while the heap is marked: what is allocated from it is born black."""
    marks = mark_bits_addr(page) + 8 * window
    if has_inline_marks(spans()[page].elem_size):
        or_acq_rel(marks + INLINE_SCANS, free)  # before the marks: a scanner looks for what is marked and not scanned
    or_acq_rel(marks, free)


@inline
def whiten_free(page: int, window: int, free: int) -> None:
    """Take the marks back from the slots that were not handed out. World: stopped, so nobody is between looking at the one and the other.

    (Otherwise a window is given back only when it is used up.)
    """
    marks = mark_bits_addr(page) + 8 * window
    and_acq_rel(marks, ~free)
    if has_inline_marks(spans()[page].elem_size):
        and_acq_rel(marks + INLINE_SCANS, ~free)


@inline
def is_allocated(page: int, idx: int) -> bool:
    """Whether the slot holds an object. Precondition: no window of this span is in use, or it was opened since the marking began.

    Then the answer may be no for an object that was born black, and for no other: freeindex only grows while the heap is marked.
    """
    return idx < spans()[page].freeindex or get_bit(alloc_bits_addr(page), idx) == 1


# --- which words of a slot are references -----------------------------------------------------------------------------


@inline
def heap_bitmap_addr(page_base: int) -> int:
    """Pointer bits of a scan span of slots up to 512 bytes: one bit a word of the page."""
    return page_base + layout.PAGE_SIZE - INLINE_MARKS - HEAP_BITMAP


@inline
def read_pointer_mask(addr: int, nwords: int) -> int:
    """The pointer bits of the ``nwords`` <= 64 words at ``addr``, a slot of at most 512 bytes."""
    page_base = addr & -layout.PAGE_SIZE
    first = (addr & (layout.PAGE_SIZE - 1)) >> 3
    word = heap_bitmap_addr(page_base) + ((first >> 6) << 3)
    shift = first & 63
    mask = lsr(load64(word), shift)
    if shift + nwords > 64:
        mask |= lsl(load64(word + 8), 64 - shift)
    return mask & lsr(-1, 64 - nwords)


@inline
def write_pointer_mask(addr: int, nwords: int, mask: int) -> None:
    """Set the pointer bits of a fresh slot. The words are this P's: all objects they cover come from its cached span."""
    page_base = addr & -layout.PAGE_SIZE
    first = (addr & (layout.PAGE_SIZE - 1)) >> 3
    word = heap_bitmap_addr(page_base) + ((first >> 6) << 3)
    shift = first & 63
    all_ones = lsr(-1, 64 - nwords)
    store64(word, load64(word) & ~lsl(all_ones, shift) | lsl(mask, shift))
    if shift + nwords > 64:
        rest = 64 - shift
        store64(word + 8, load64(word + 8) & ~lsr(all_ones, rest) | lsr(mask, rest))
