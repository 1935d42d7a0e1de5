"""Level 3: what is not zeroed when it is allocated is zero. Of large objects, which are never free slots, this says nothing."""

from __future__ import annotations

from gomp.core.gc.verify.problems import CACHE_NEEDZERO, NOT_ZERO, problem
from gomp.core.gc.verify.slots import after, allocated_word, entry_of, next_span, p_number, slots_of_window
from gomp.core.heap import mspan
from gomp.core.heap.mcache import entry_addr
from gomp.core.jit import kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import clear_lowest, ctz, load64, lsr
from gomp.core.shm.records import mcache_at, mheap, p_at, p_records, spans


@kernel("void(int64)")
def check_zero(out: int) -> None:
    """Level 3: the free slots of spans that say so are zero, and mcaches zero the slots of those that do not. World: stopped."""
    page = next_span(0)
    while page < mheap().end_page:
        if spans()[page].needzero == 0:
            _check_free_slots(out, page)
        page = next_span(after(page))
    for i in range(p_records()):
        _check_mcache(out, p_number(i))


@kernel("void(int64, int64)")
def _check_free_slots(out: int, page: int) -> None:
    """Up to the first that is not zero."""
    sp, entry = spans()[page], entry_of(page)
    for window in range(mspan.bit_words(page)):
        free = slots_of_window(sp.nelems, window) & ~allocated_word(page, entry, window)
        while free != 0:
            slot = mspan.obj_addr(page, 64 * window + ctz(free))
            free = clear_lowest(free)
            for addr in range(slot, slot + sp.elem_size, 8):
                if load64(addr) != 0:
                    problem(out, NOT_ZERO, page, addr, load64(addr))
                    return


@kernel("void(int64, int64)")
def _check_mcache(out: int, p: int) -> None:
    pp = p_at(layout.p_addr(p))
    for span_class in range(layout.NUM_SPAN_CLASSES):
        page = mcache_at(entry_addr(layout.p_addr(p), span_class)).page
        says = lsr(pp.needzero[span_class >> 6], span_class & 63) & 1
        if page != mspan.NO_SPAN and says != spans()[page].needzero:
            problem(out, CACHE_NEEDZERO, p, span_class, page)
