"""Sweeping: what was not marked becomes free.

A span is swept by whoever owns it, in steps that its state word names, so that a successor can go on where an owner died:

1. SWEEPING   What dead objects had beside their bytes is settled (:mod:`~gomp.core.gc.specials`), which may mark some of them. Then the marks
   are copied into the spare bitmap (or are it already). May be repeated at will: nothing has changed yet.
2. One store flips the parity and says CLEARING: from here the survivors are what is allocated.
3. CLEARING   The marks for the next cycle are cleared. May be repeated.
4. SWEPT      One store. Nothing is allocated from the span before.

The count of freed objects is a total, not derivable, so it is stored together with step 2 under the redo record.

Sweeping returns which list the span belongs to; the caller pushes it. Spans are swept by the coordinator in the background, by allocation
in proportion to what it allocates, and by refills on demand, all through :func:`sweep_one` and :func:`try_own`.
"""

from __future__ import annotations

from gomp.core.gc.specials import has_specials, sweep_specials
from gomp.core.heap import mheap, mspan
from gomp.core.heap.mcentral import EMPTY, pop_span, push_span, swept_set, unswept_set
from gomp.core.jit import inline, kernel
from gomp.core.sched import redo
from gomp.core.sched.throw import THROW_SWEEP_STATE, THROW_ZOMBIE, throw
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    add_acq_rel,
    add_relaxed,
    cas_acq_rel,
    load_acquire,
    load_relaxed,
    popcount,
    store64,
    store_release,
    zero_range,
)
from gomp.core.shm.libc import nanotime
from gomp.core.shm.records import (
    DETAIL_SWEEPS,
    INLINE_MARKS,
    MHEAP_XALLOC,
    P_LARGE_FREE,
    P_LARGE_FREE_COUNT,
    P_SMALL_FREE,
    PACER_XLIVE,
    RT_XPAGES_SWEPT,
    RT_XSWEEP_CLASS,
    RT_XSWEEPERS,
    SET_FULL,
    SET_PARTIAL,
    SPAN_XSTATE,
    STEP_CLEARING,
    STEP_SWEEPING,
    SWEEP_SETS,
    TRACE_SWEPT,
    runtime,
    self_p,
    spans,
)
from gomp.core.shm.tracing import begin_detail, is_tracing, leave_out, tell_at

NOTHING_LEFT = -1
_CLOBBER = 0xDEADBEEFDEADBEEF - (1 << 64)


@inline
def is_sweep_done() -> bool:
    """Whether every span of the last cycle has been taken and nobody is still sweeping one."""
    return load_acquire(RT_XSWEEP_CLASS) >= SWEEP_SETS and load_acquire(RT_XSWEEPERS) == 0


@inline
def try_own(page: int) -> bool:
    """Take an unswept span for sweeping; false if somebody else has."""
    state = load_acquire(mspan.span_addr(page) + SPAN_XSTATE)
    h = runtime().sweepgen
    if mspan.sweepgen_of(state) != h - 2:
        return False
    mine = mspan.pack_state(h - 1, mspan.parity_of(state), STEP_SWEEPING, self_p().idx + 1)
    return cas_acq_rel(mspan.span_addr(page) + SPAN_XSTATE, state, mine)


@kernel("int64(int64)")
def sweep_span(page: int) -> int:
    """Owns: the span, by try_own. Sweep it; returns the number of objects left.

    Leaves it SWEPT with the heap's generation and in no list.
    """
    sp = spans()[page]
    alloc_count = sp.alloc_count
    if has_specials(page):
        sweep_specials(page)
    if runtime().clobberfree:
        _clobber(page)
    live = _copy_marks(page)
    if live > alloc_count:
        throw(THROW_ZOMBIE, page, live - alloc_count)
        return live
    if live < alloc_count:
        sp.needzero = 1
    _flip(page, alloc_count - live)
    clear_marks(page)
    sp.freeindex = 0
    sp.alloc_count = live
    sp.alloc_before_cache = live
    mspan.set_sweepgen(page, runtime().sweepgen)
    add_acq_rel(RT_XPAGES_SWEPT, sp.npages)
    return live


@inline
def _copy_marks(page: int) -> int:
    """Step 1. Returns the number of marked objects."""
    marks, spare = mspan.mark_bits_addr(page), mspan.spare_bits_addr(page)
    live = 0
    for i in range(0, 8 * mspan.bit_words(page), 8):
        word = load_relaxed(marks + i)
        live += popcount(word)
        store64(spare + i, word)
    return live


@inline
def _flip(page: int, nfreed: int) -> None:
    """Step 2, with the totals."""
    sp = spans()[page]
    me = self_p()
    mine = layout.p_addr(me.idx)
    state_addr = mspan.span_addr(page) + SPAN_XSTATE
    state = load_acquire(state_addr)
    size_class = sp.span_class >> 1
    n = 0
    if size_class == 0:
        redo.plan(0, mine + P_LARGE_FREE_COUNT, me.large_free_count + nfreed)
        redo.plan(1, mine + P_LARGE_FREE, me.large_free + nfreed * sp.elem_size)
        n = 2
    else:
        redo.plan(0, mine + P_SMALL_FREE + 8 * size_class, me.small_free[size_class] + nfreed)
        n = 1
    redo.plan(
        n, state_addr, mspan.pack_state(runtime().sweepgen - 1, 1 - mspan.parity_of(state), STEP_CLEARING, me.idx + 1)
    )
    redo.commit(n + 1)
    add_relaxed(MHEAP_XALLOC, -nfreed * sp.elem_size)


@inline
def clear_marks(page: int) -> None:
    """Step 3."""
    sp = spans()[page]
    if mspan.has_inline_marks(sp.elem_size):
        zero_range(layout.page_to_addr(page + sp.npages) - INLINE_MARKS, INLINE_MARKS)
    else:
        zero_range(mspan.spare_bits_addr(page), 8 * mspan.bit_words(page))


@inline
def _clobber(page: int) -> None:
    """GODEBUG=clobberfree=1: fill what dies with a pattern that no pointer has."""
    sp = spans()[page]
    for idx in range(sp.nelems):
        if mspan.is_allocated(page, idx) and not mspan.is_marked(page, idx):
            addr = mspan.obj_addr(page, idx)
            for at in range(addr, addr + sp.elem_size, 8):
                store64(at, _CLOBBER)


@kernel("void(int64, int64)")
def place_swept(page: int, live: int) -> None:
    """Put a span that was just swept where it belongs: back to the heap if nothing lives, else in the full or partial swept list."""
    sp = spans()[page]
    if live == 0:
        mheap.free_span(page)
    elif live == sp.nelems:
        push_span(sp.span_class, swept_set(SET_FULL), page)
    else:
        push_span(sp.span_class, swept_set(SET_PARTIAL), page)


@kernel("int64()")
def sweep_one() -> int:
    """Sweep the next unswept span: the pages this freed (0 or more), or NOTHING_LEFT."""
    add_acq_rel(RT_XSWEEPERS, 1)
    page = _take_unswept()
    freed = NOTHING_LEFT
    if page != EMPTY:
        npages = spans()[page].npages
        live = sweep_span(page)
        place_swept(page, live)
        freed = npages if live == 0 else 0
    add_acq_rel(RT_XSWEEPERS, -1)
    return freed


@inline
def _take_unswept() -> int:
    """The next unswept span in the order of classes, full ones first, owned; EMPTY if there is none."""
    while True:
        position = load_acquire(RT_XSWEEP_CLASS)
        if position >= SWEEP_SETS:
            return EMPTY
        page = pop_span(position >> 1, unswept_set(SET_FULL if position & 1 == 0 else SET_PARTIAL))
        if page == EMPTY:
            cas_acq_rel(RT_XSWEEP_CLASS, position, position + 1)
        elif try_own(page):
            return page
        else:
            throw(THROW_SWEEP_STATE, page, mspan.state_of(page))
            return EMPTY


@kernel("int64(int64)")
def sweep_step(nspans: int) -> int:
    """Sweep at most ``nspans`` spans; 1 if there may be more."""
    began, more, swept = nanotime(), 1, 0
    for _ in range(nspans):
        if sweep_one() == NOTHING_LEFT:
            more = 0
            break
        swept += 1
    note_sweep(began, swept)
    return more


@inline
def note_sweep(began: int, nspans: int) -> None:
    """Account for a sweep of so many spans that has just ended."""
    now = nanotime()
    self_p().sweep_ns += now - began
    if nspans > 0 and is_tracing():
        _tell_sweep(began, now, nspans)


@kernel("void(int64, int64, int64)")
def _tell_sweep(began: int, now: int, nspans: int) -> None:
    """Only while tracing."""
    if begin_detail(DETAIL_SWEEPS, now) != 0:
        tell_at(now, TRACE_SWEPT, began, nspans)
    else:
        leave_out(DETAIL_SWEEPS, now - began)


@kernel("void(int64, int64)")
def deduct_sweep_credit(span_bytes: int, caller_pages: int) -> None:
    """Before ``span_bytes`` are allocated: sweep until the sweep is as far as the allocation is (mgcsweep.go, deductSweepCredit)."""
    rt = runtime()
    if rt.sweep_ratio == 0.0:
        return
    new = span_bytes + max(0, load_relaxed(PACER_XLIVE) - rt.sweep_basis_live)
    target = int(rt.sweep_ratio * float(new)) - caller_pages
    began, swept = nanotime(), 0
    while target > load_relaxed(RT_XPAGES_SWEPT) - rt.sweep_basis_pages:
        if sweep_one() == NOTHING_LEFT:
            rt.sweep_ratio = 0.0
            break
        swept += 1
    note_sweep(began, swept)


@kernel("void(int64)")
def reclaim(npages: int) -> None:
    """Before a large allocation: sweep until that many pages came free or nothing is left, so that the heap does not grow past its garbage."""
    began, swept, freed = nanotime(), 0, 0
    while freed < npages:
        n = sweep_one()
        if n == NOTHING_LEFT:
            break
        swept += 1
        freed += n
    note_sweep(began, swept)


@kernel("void()")
def begin_sweep_stw() -> None:
    """A new generation: what was swept is unswept now. World: stopped, no span cached."""
    rt = runtime()
    rt.sweepgen += 2
    store_release(RT_XPAGES_SWEPT, 0)
    store_release(RT_XSWEEPERS, 0)
    store_release(RT_XSWEEP_CLASS, 0)
