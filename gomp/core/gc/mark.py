"""Marking: from a pointer to a marked object, from an object to its pointers.

An object is white (not marked), grey (marked, and in a work buffer) or black (marked, its references followed). Several processes mark the same
heap: the mark bit's atomic OR decides who makes an object grey, so each object is scanned once.

Arrays of more than OBLET bytes are scanned in pieces, each of which is work of its own: one big table keeps every marker busy.
"""

from __future__ import annotations

from gomp.core.gc import work
from gomp.core.heap import mspan
from gomp.core.jit import inline, kernel
from gomp.core.sched.throw import THROW_BAD_POINTER, throw
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_relaxed, clear_lowest, clz, ctz, load64, load_relaxed
from gomp.core.shm.records import PACER_XHEAP_WORK, SPAN_MANUAL, mheap, p_at, spans, type_at

OBLET = 128 << 10


@inline
def grey(p: int, addr: int, holder: int) -> None:
    """Mark the object that ``addr`` points into, and queue it if it has references. ``holder`` is where the pointer was, for the report."""
    if not layout.is_heap_addr(addr):
        return
    page = mspan.find_span(addr)
    if page == mspan.NO_SPAN:
        report_bad_pointer(addr, holder)
        return
    idx = mspan.obj_idx_of(page, addr)
    if idx >= spans()[page].nelems:
        throw(THROW_BAD_POINTER, addr, holder)
        return
    grey_slot(p, page, idx)


@kernel("void(int64, int64)")
def report_bad_pointer(addr: int, holder: int) -> None:
    if spans()[mspan.span_of(addr)].state != SPAN_MANUAL:
        throw(THROW_BAD_POINTER, addr, holder)


@inline
def grey_slot(p: int, page: int, idx: int) -> None:
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
        grey_slot(p, page, idx)


@inline
def scan(p: int, addr: int) -> None:
    """Follow the references of a grey object, or of one oblet of it."""
    page = mspan.span_of(addr)
    sp = spans()[page]
    size = sp.elem_size
    if size <= mspan.MAX_INLINE:
        if sp.span_class == mspan.SCAN8:
            mask = 1
        else:
            mask = mspan.read_pointer_mask(addr, size >> 3)
        p_at(p).heap_scan_work += 8 * (64 - clz(mask))
        scan_words(p, addr, mask)
    else:
        scan_typed(p, page, addr)


@inline
def scan_words(p: int, addr: int, mask: int) -> None:
    """Grey what the words of ``addr`` whose bits are set in ``mask`` point to."""
    while mask != 0:
        word = load_relaxed(addr + 8 * ctz(mask))
        mask = clear_lowest(mask)
        if word != 0:
            grey(p, word, addr)


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
        if sp.elem_size > OBLET:
            if addr == base:
                for oblet in range(base + OBLET, end, OBLET):
                    work.put(p, oblet)
            end = min(end, addr + OBLET)
        lo = max(addr, obj + 8)
        hi = min(end, obj + 8 + load64(obj) * t.elem_size)
        p_at(p).heap_scan_work += max(hi - lo, 0)
        for slot in range(lo, hi, 8):
            word = load_relaxed(slot)
            if word != 0:
                grey(p, word, base)


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
