"""Refilling an mcache: from the swept spans, by sweeping, or from the heap.

While a P has a span in hand, in no list and in no mcache, it does not park: collections find every span in one or the other.
"""

from __future__ import annotations

from gomp.core.gc import pacer, sweep
from gomp.core.heap import mheap, mspan
from gomp.core.heap.mcache import entry_addr, uncache_span
from gomp.core.heap.mcentral import EMPTY, pop_span, push_span, swept_set, unswept_set
from gomp.core.jit import inline, kernel
from gomp.core.sched.locks import begin_critical, end_critical
from gomp.core.sched.status import SELF_POLL
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    add_acq_rel,
    add_relaxed,
    load64,
    load_relaxed,
    lsl,
    or_acq_rel,
    store64,
    store_release,
)
from gomp.core.shm.libc import nanotime
from gomp.core.shm.records import (
    GC_OFF,
    MCACHE_PAGE,
    P_NEEDZERO,
    PACER_XLIVE,
    PACER_XSCAN,
    POLL_CLEAR,
    RT_XGCPHASE,
    RT_XSWEEPERS,
    SET_FULL,
    SET_PARTIAL,
    runtime,
    self_p,
    spans,
)

_SWEEP_BUDGET = 100
_REFILLS_PER_CLEARING = (
    8  # of small spans, 64 KiB: less than that may be kept alive by what is left on the native stack
)


@kernel("int64(int64)")
def refill(span_class: int) -> int:
    """Give this P a span of the class with a free slot; OK or a negated errno. Its window is not open yet."""
    me = self_p()
    begin_critical()
    mine = layout.p_addr(me.idx)
    uncache_span(mine, span_class)
    page = _cache_span(span_class)
    if page >= 0:
        sp = spans()[page]
        mspan.set_sweepgen(page, runtime().sweepgen + 3)
        sp.alloc_before_cache = sp.alloc_count
        publish_live(sp.npages * layout.PAGE_SIZE - sp.alloc_count * sp.elem_size)
        _note_needzero(mine, span_class, sp.needzero)
        store_release(entry_addr(mine, span_class) + MCACHE_PAGE, page)  # uncaching has left no window open
        me.refills += 1
        if me.refills % _REFILLS_PER_CLEARING == 0:
            or_acq_rel(SELF_POLL, POLL_CLEAR)
        page = 0
    end_critical()
    return page


@inline
def _note_needzero(p: int, span_class: int, needzero: int) -> None:
    """Where the fast path sees it (:mod:`~gomp.core.mutator.malloc`). Nobody sweeps the span while it is cached."""
    word, bit = p + P_NEEDZERO + ((span_class >> 6) << 3), lsl(1, span_class & 63)
    store64(word, load64(word) | bit if needzero else load64(word) & ~bit)


@inline
def publish_live(delta: int) -> None:
    """Where heapLive and heapScan move (mgcpacer.go, update): at refills and large allocations; and at flushes."""
    me = self_p()
    add_relaxed(PACER_XLIVE, delta)
    if load_relaxed(RT_XGCPHASE) == GC_OFF:
        add_relaxed(PACER_XSCAN, me.scan_alloc)
    else:
        pacer.revise()
    me.scan_alloc = 0


@inline
def _cache_span(span_class: int) -> int:
    """A swept span with a free slot, in hand; or a negated errno."""
    sweep.deduct_sweep_credit(mheap.span_pages(span_class) * layout.PAGE_SIZE, 0)
    page = pop_span(span_class, swept_set(SET_PARTIAL))
    if page == EMPTY and not sweep.is_sweep_done():
        page = _sweep_for_span(span_class)
    if page == EMPTY:
        page = mheap.alloc_span(mheap.span_pages(span_class), span_class)
    return page


@inline
def _sweep_for_span(span_class: int) -> int:
    """Sweep spans of the class, at most 101 as Go does, until one has a free slot."""
    began, swept = nanotime(), 0
    add_acq_rel(RT_XSWEEPERS, 1)
    found = EMPTY
    for _ in range(_SWEEP_BUDGET + 1):
        page = pop_span(span_class, unswept_set(SET_PARTIAL))
        if page == EMPTY:
            page = pop_span(span_class, unswept_set(SET_FULL))
        if page == EMPTY:
            break
        if not sweep.try_own(page):
            continue
        swept += 1
        if sweep.sweep_span(page) < spans()[page].nelems:
            found = page
            break
        push_span(span_class, swept_set(SET_FULL), page)
    add_acq_rel(RT_XSWEEPERS, -1)
    sweep.note_sweep(began, swept)
    return found
