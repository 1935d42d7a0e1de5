"""Marking: from a pointer to a marked object, from an object to its pointers.

An object is white (not marked), grey (marked, and queued) or black (marked, its references followed). Several processes mark the same heap: the
mark bit's atomic OR decides who makes an object grey, so each object is scanned once.

Objects of 16 to 512 bytes are queued and scanned by spans (see :mod:`~gomp.core.gc.spanq`); for these, everything that marking reads is in the
table of page heads and at the end of the object's page. Others are queued one by one, and arrays of more than PIECE bytes in pieces, each of
which is work of its own: one big table keeps every marker busy.
"""

from __future__ import annotations

import numpy as np

from gomp.core.gc import spanq, work
from gomp.core.heap import mspan
from gomp.core.heap.sizeclass import DIV_MAGIC, SIZES, SPAN_NELEMS
from gomp.core.jit import inline, kernel
from gomp.core.sched.throw import THROW_BAD_POINTER, throw
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    add_relaxed,
    clear_lowest,
    clz,
    ctz,
    load64,
    load_relaxed,
    load_seq_cst,
    lsl,
    lsr,
    or_acq_rel,
    or_seq_cst,
    popcount,
    prefetch,
    store64,
)
from gomp.core.shm.records import (
    INLINE_MARKS,
    INLINE_SCANS,
    OWNED_MANY,
    OWNED_ONE,
    OWNED_WORD,
    P_PENDING,
    PACER_XHEAP_WORK,
    PENDING_ENTRIES,
    SPAN_MANUAL,
    mheap,
    p_at,
    page_heads,
    spans,
    type_at,
)

PIECE = 32 << 10  # Go's oblets are larger: who begins with a table has nothing for others until he is through with one
_NO_SLOT = -1
_SIZES = np.array(SIZES, dtype=np.int64)
_NELEMS = np.array(SPAN_NELEMS, dtype=np.int64)
_DIV_MAGIC = np.array(DIV_MAGIC, dtype=np.int64)


# --- from a pointer to a marked object --------------------------------------------------------------------------------


@inline
def grey(p: int, addr: int, holder: int) -> None:
    """Mark the object that ``addr`` points into, and queue it if it has references. ``holder`` is where the pointer was, for the report."""
    if not layout.is_heap_addr(addr):
        return
    span_class = -np.int64(page_heads()[layout.addr_to_page(addr)])
    if span_class > 0:
        _grey_small(p, addr, span_class, holder)
    else:
        _grey_other(p, addr, holder)


@inline
def grey_later(p: int, addr: int, holder: int) -> None:
    """As :func:`grey`, some pointers later: by then the line with the mark has come from memory, which is most of what marking waits for.

    Marks of one word that follow one another are set at once: neighbours are often reached together, and an atomic OR for each was a third of
    the time. Followed by :func:`grey_pending` before anybody relies on it.
    """
    if not layout.is_heap_addr(addr):
        return
    prefetch((addr & -layout.PAGE_SIZE) + layout.PAGE_SIZE - INLINE_MARKS)
    pp = p_at(p)
    cell = p + P_PENDING + 16 * (pp.pending_n & (PENDING_ENTRIES - 1))
    pp.pending_n += 1
    due, due_holder = load64(cell), load64(cell + 8)
    store64(cell, addr)
    store64(cell + 8, holder)
    if due != 0:
        _grey_gathering(p, due, due_holder)


@inline
def _grey_gathering(p: int, addr: int, holder: int) -> None:
    if not layout.is_heap_addr(addr):
        return
    span_class = -np.int64(page_heads()[layout.addr_to_page(addr)])
    if span_class <= 0:
        _grey_other(p, addr, holder)
        return
    idx = _index_in_page(addr, span_class, holder)
    if idx == _NO_SLOT:
        return
    word, bit = _mark_word(addr & -layout.PAGE_SIZE, idx), lsl(1, idx & 63)
    if load_relaxed(word) & bit:
        return
    pp = p_at(p)
    if pp.mark_word != word:
        _set_gathered(p)
        pp.mark_word = word
    pp.mark_bits |= bit


@inline
def _set_gathered(p: int) -> bool:
    """Set the marks that have been gathered, and queue their span; whether there were any."""
    pp = p_at(p)
    bits, word = pp.mark_bits, pp.mark_word
    if bits == 0:
        return False
    pp.mark_bits = 0
    new = bits & ~or_seq_cst(word, bits)  # store→load, against a scanner that gives the span up
    if new != 0:
        base = word & -layout.PAGE_SIZE
        span_class = -np.int64(page_heads()[layout.addr_to_page(base)])
        n = popcount(new)
        pp.objects_marked += n
        pp.bytes_marked += n * _SIZES[span_class >> 1]
        if not mspan.is_noscan(span_class):
            idx = ((word - _mark_word(base, 0)) << 3) + ctz(new)
            if n == 1:
                spanq.enqueue(p, base, idx)
            else:
                spanq.enqueue_many(p, base, idx)
    return True


@inline
def forget_pending(p: int) -> None:
    p_at(p).mark_bits = 0
    for cell in range(p + P_PENDING, p + P_PENDING + 16 * PENDING_ENTRIES, 16):
        store64(cell, 0)


@kernel("int64(int64)")
def grey_pending(p: int) -> int:
    """Do what :func:`grey_later` has put off; 1 if there was anything."""
    any_left = 0
    for cell in range(p + P_PENDING, p + P_PENDING + 16 * PENDING_ENTRIES, 16):
        due = load64(cell)
        if due != 0:
            store64(cell, 0)
            _grey_gathering(p, due, load64(cell + 8))
            any_left = 1
    return 1 if _set_gathered(p) else any_left


@inline
def _grey_small(p: int, addr: int, span_class: int, holder: int) -> None:
    idx = _index_in_page(addr, span_class, holder)
    if idx != _NO_SLOT:
        _grey_small_slot(p, addr & -layout.PAGE_SIZE, idx, span_class)


@inline
def _index_in_page(addr: int, span_class: int, holder: int) -> int:
    """Of the slot that ``addr`` points into, in its span of one page; NO_SLOT, after a throw, if it is behind the last."""
    idx = ((addr & (layout.PAGE_SIZE - 1)) * _DIV_MAGIC[span_class >> 1]) >> 32
    if idx >= _NELEMS[span_class]:
        throw(THROW_BAD_POINTER, addr, holder)
        return _NO_SLOT
    return idx


@inline
def _mark_word(base: int, idx: int) -> int:
    return base + layout.PAGE_SIZE - INLINE_MARKS + ((idx >> 6) << 3)


@inline
def _grey_small_slot(p: int, base: int, idx: int, span_class: int) -> None:
    word, bit = _mark_word(base, idx), lsl(1, idx & 63)
    if load_relaxed(word) & bit or or_seq_cst(word, bit) & bit:  # as in _set_gathered
        return
    pp = p_at(p)
    pp.objects_marked += 1
    pp.bytes_marked += _SIZES[span_class >> 1]
    if not mspan.is_noscan(span_class):
        spanq.enqueue(p, base, idx)


@kernel("void(int64, int64, int64)")
def _grey_other(p: int, addr: int, holder: int) -> None:
    page = mspan.find_span(addr)
    if page == mspan.NO_SPAN:
        report_bad_pointer(addr, holder)
        return
    idx = mspan.obj_idx_of(page, addr)
    if idx >= spans()[page].nelems:
        throw(THROW_BAD_POINTER, addr, holder)
        return
    _grey_slot(p, page, idx)


@kernel("void(int64, int64)")
def report_bad_pointer(addr: int, holder: int) -> None:
    if spans()[mspan.span_of(addr)].state != SPAN_MANUAL:
        throw(THROW_BAD_POINTER, addr, holder)


@inline
def _grey_slot(p: int, page: int, idx: int) -> None:
    """As for any span; those of small slots have a shorter way."""
    if not mspan.try_mark(page, idx):
        return
    sp = spans()[page]
    pp = p_at(p)
    pp.objects_marked += 1
    pp.bytes_marked += sp.elem_size
    if not mspan.is_noscan(sp.span_class):
        work.put(p, mspan.obj_addr(page, idx))


@kernel("void(int64, int64)")
def grey_conservative(p: int, word: int) -> None:
    """As :func:`grey`, for a word that may be anything: it counts only if it leads to an allocated object of a span in use."""
    if not layout.is_heap_addr(word) or layout.addr_to_page(word) >= mheap().end_page:
        return
    page = mspan.find_span(word)
    if page == mspan.NO_SPAN:
        return
    idx = mspan.obj_idx_of(page, word)
    if idx < spans()[page].nelems and mspan.is_allocated(page, idx):
        if mspan.has_inline_marks(spans()[page].elem_size):
            _grey_small_slot(p, layout.page_to_addr(page), idx, spans()[page].span_class)
        else:
            _grey_slot(p, page, idx)


# --- from an object to its pointers -----------------------------------------------------------------------------------


@kernel("void(int64, int64)")
def scan(p: int, entry: int) -> None:
    """Follow the references of what was queued: a span's grey objects, an object, or one piece of it."""
    if work.is_span_entry(entry):
        _scan_span(p, entry)
        return
    page = mspan.span_of(entry)
    if spans()[page].span_class == mspan.SCAN8:
        p_at(p).heap_scan_work += 8
        scan_words(p, entry, 1)
    else:
        scan_typed(p, page, entry)


@inline
def scan_small(p: int, addr: int, elem_size: int) -> int:
    """Follow the references of an object of at most 512 bytes in a span that has pointer bits; the scan work, in bytes."""
    mask = mspan.read_pointer_mask(addr, elem_size >> 3)
    scan_words(p, addr, mask)
    return 8 * (64 - clz(mask))


@inline
def fetch_span(entry: int) -> None:
    """Have the lines fetched that scanning this entry of a span queue begins with: bits at the end of the page, and the object."""
    base = work.entry_base(entry)
    span_class = -np.int64(page_heads()[layout.addr_to_page(base)])
    obj = base + work.entry_idx(entry) * _SIZES[span_class >> 1]
    prefetch(obj)
    prefetch(base + layout.PAGE_SIZE - INLINE_MARKS)
    prefetch(mspan.heap_bitmap_addr(base) + ((obj - base) >> 6))


@inline
def _scan_span(p: int, entry: int) -> None:
    owned = work.release_span(entry)
    base = work.entry_base(entry)
    span_class = -np.int64(page_heads()[layout.addr_to_page(base)])
    elem_size = _SIZES[span_class >> 1]
    marks = base + layout.PAGE_SIZE - INLINE_MARKS
    if owned == OWNED_ONE:
        idx = work.entry_idx(entry)
        bit = lsl(1, idx & 63)
        if or_acq_rel(marks + INLINE_SCANS + ((idx >> 6) << 3), bit) & bit == 0:
            p_at(p).heap_scan_work += scan_small(p, base + idx * elem_size, elem_size)
        return
    done = 0
    for at in range(0, ((_NELEMS[span_class] + 63) >> 6) << 3, 8):
        found = load_seq_cst(marks + at) & ~load_relaxed(marks + INLINE_SCANS + at)
        if at == OWNED_WORD:
            found &= ~(OWNED_ONE | OWNED_MANY)  # it may be in another queue already
        if found == 0:
            continue
        found &= ~or_acq_rel(marks + INLINE_SCANS + at, found)
        ahead = found
        while ahead != 0:
            prefetch(base + (8 * at + ctz(ahead)) * elem_size)
            ahead = clear_lowest(ahead)
        while found != 0:
            done += scan_small(p, base + (8 * at + ctz(found)) * elem_size, elem_size)
            found = clear_lowest(found)
    p_at(p).heap_scan_work += done


@inline
def scan_words(p: int, addr: int, mask: int) -> None:
    """Grey what the words of ``addr`` whose bits are set in ``mask`` point to."""
    while mask != 0:
        word = load_relaxed(addr + 8 * ctz(mask))
        mask = clear_lowest(mask)
        if word != 0:
            grey_later(p, word, addr)


@kernel("void(int64, int64, int64)")
def scan_typed(p: int, page: int, addr: int) -> None:
    """Scan an object of more than 512 bytes: its type is in the header word, or for a large one in the span."""
    sp = spans()[page]
    base = mspan.obj_addr(page, mspan.obj_idx_of(page, addr))
    if sp.span_class > 1:
        type_addr = load64(base)
        obj = base + 8
    else:
        type_addr = sp.large_type
        obj = base
    if type_addr == 0:  # large and still being zeroed: nothing in it yet
        return
    t = type_at(type_addr)
    if t.elem_size == 0:
        _scan_struct(p, obj, type_addr)
    elif t.ptr_bytes != 0:
        end = base + sp.elem_size
        if sp.elem_size > PIECE:
            # Each makes the next one work: a table of any length takes one entry, which somebody else may take.
            if addr + PIECE < end:
                work.put(p, addr + PIECE)
            end = min(end, addr + PIECE)
        lo = max(addr, obj + 8)
        hi = min(end, obj + 8 + load64(obj) * t.elem_size)
        p_at(p).heap_scan_work += max(hi - lo, 0)
        if t.elem_size == 8:
            for slot in range(lo, hi, 8):
                word = load_relaxed(slot)
                if word != 0:
                    grey_later(p, word, base)
        else:
            offset = (lo - obj - 8) % t.elem_size
            for slot in range(lo, hi, 8):
                word = load_relaxed(slot) if _is_reference(type_addr, offset) else 0
                if word != 0:
                    grey_later(p, word, base)
                offset += 8
                if offset == t.elem_size:
                    offset = 0


@inline
def _is_reference(type_addr: int, offset: int) -> bool:
    """Whether the word ``offset`` bytes into an element is a reference. The mask ends with the last one."""
    t = type_at(type_addr)
    return offset < t.ptr_bytes and lsr(load64(t.mask + ((offset >> 9) << 3)), (offset >> 3) & 63) & 1 == 1


@inline
def is_reference_word(type_addr: int, offset: int) -> bool:
    """Whether the word ``offset`` bytes into an array, behind its length, is a reference."""
    return _is_reference(type_addr, (offset - 8) % type_at(type_addr).elem_size)


@inline
def _scan_struct(p: int, obj: int, type_addr: int) -> None:
    t = type_at(type_addr)
    p_at(p).heap_scan_work += t.ptr_bytes
    for i in range((t.ptr_bytes + 511) >> 9):
        scan_words(p, obj + 512 * i, load64(t.mask + 8 * i))


@inline
def publish_scan_work(p: int) -> int:
    """Add what the P at ``p`` has scanned to the pacer's; how many bytes that were."""
    done = p_at(p).heap_scan_work
    p_at(p).heap_scan_work = 0
    add_relaxed(PACER_XHEAP_WORK, done)
    return done
