"""After a process was killed: which stacks and goroutine records are free, made again from the table of goroutines.

A record says which stack it has, its own status says whether it is free. Everything else about them is derived: the P caches, the pool, the
counts and lists of free records. World: stopped; nobody has a stack or a record in hand, as who does neither polls nor parks.
"""

from __future__ import annotations

from gomp.core.heap.gs import give_free_locked
from gomp.core.heap.mspan import span_addr
from gomp.core.heap.stack import stack_lo
from gomp.core.heap.stackalloc import insert_locked, order_of, reset_stackpool
from gomp.core.heap.waitq import CLAIMED, CLAIMER_SHIFT, OPEN, is_in_queue, is_over_stw, list_ended, unlink_locked
from gomp.core.jit import inline, kernel
from gomp.core.sched.parking import count_parked_stw, wake_all_stw
from gomp.core.sched.runq import forget_ring_stw, put_chain_locked
from gomp.core.shm import layout
from gomp.core.shm.atomics import load64, load_acquire, lsr, popcount, store64, store_relaxed, store_release
from gomp.core.shm.records import (
    AGAIN,
    CHAN_CLOSED,
    CHAN_DONE,
    G_CASE,
    G_DEAD,
    G_IDLE,
    G_RUNNABLE,
    G_RUNNING,
    G_STATUS_MASK,
    G_WAITING,
    G_XCLAIM,
    P_XDEAD,
    P_XENDED_WAITS,
    SCHED_XLOCK,
    SCHED_XRUNQ_SIZE,
    SPAN_DEAD,
    SPAN_MANUAL,
    SPAN_STACK_FREE,
    SPAN_STACK_USED,
    STACKPOOL_XLOCK,
    STACKPOOL_XSPAN_BYTES,
    WAITS_FOR_GROUP,
    WAITS_FOR_STEP,
    WAITS_IN_SELECT,
    WAITS_TO_RECEIVE,
    g_at,
    mheap,
    nth_p,
    p_at,
    p_records,
    sched,
    spans,
)

_SHARED_PAGES = layout.STACK_SPAN >> layout.PAGE_SHIFT


@kernel("void()")
def forget_free_stacks_stw() -> None:
    """No stack is free, none is cached, and each span of stacks knows which of them goroutines have."""
    store_release(STACKPOOL_XLOCK, 0)
    store_release(SCHED_XLOCK, 0)
    store_relaxed(STACKPOOL_XSPAN_BYTES, 0)
    reset_stackpool()
    for i in range(p_records()):
        for order in range(layout.STACK_ORDERS):
            p_at(nth_p(i)).stack_free[order] = 0
            p_at(nth_p(i)).stack_bytes[order] = 0
    mark_used_stw()


@kernel("void()")
def mark_used_stw() -> None:
    """Have the bits of each span of stacks say which of them goroutines have."""
    for page in range(mheap().end_page):
        if spans()[page].state == SPAN_MANUAL:
            store64(span_addr(page) + SPAN_STACK_USED, 0)
    for g in range(1, sched().ngs + 1):
        lo = stack_lo(layout.g_addr(g))
        if lo != 0:
            mark_used(lo)


@inline
def mark_used(stack: int) -> None:
    page = manual_span_of(stack)
    word = span_addr(page) + SPAN_STACK_USED
    store64(word, load64(word) | 1 << (stack - layout.page_to_addr(page)) // spans()[page].elem_size)


@inline
def manual_span_of(stack: int) -> int:
    """First page of the span of stacks in which one begins: the table of heads is not to be trusted yet."""
    page = layout.addr_to_page(stack)
    for back in range(min(_SHARED_PAGES, page + 1)):
        if spans()[page - back].state == SPAN_MANUAL and spans()[page - back].npages > back:
            return page - back
    return page


@kernel("void(int64)")
def settle_stacks_stw(page: int) -> None:
    """Link what is free in a span of stacks, or declare it dead if all of it is. After :func:`forget_free_stacks_stw`."""
    sp = spans()[page]
    used = load64(span_addr(page) + SPAN_STACK_USED)
    sp.alloc_count = popcount(used)
    if used == 0:
        sp.state = SPAN_DEAD
        return
    first, base = 0, layout.page_to_addr(page)
    for i in range(sp.nelems):
        if lsr(used, i) & 1 == 0:
            store64(base + i * sp.elem_size, first)
            first = base + i * sp.elem_size
    store64(span_addr(page) + SPAN_STACK_FREE, first)
    if first != 0:
        insert_locked(order_of(sp.elem_size), page)
    bytes_before = load64(STACKPOOL_XSPAN_BYTES)
    store_relaxed(STACKPOOL_XSPAN_BYTES, bytes_before + (sp.npages << layout.PAGE_SHIFT))


@kernel("void()")
def rebuild_gs_stw() -> None:
    """Every record is free that no goroutine has, and every goroutine that is ready is in the list for all, or at home."""
    for i in range(p_records()):
        p_at(nth_p(i)).g_free = 0
        p_at(nth_p(i)).g_nfree = 0
        forget_ring_stw(nth_p(i))
    s = sched()
    for g in range(1, s.ngs + 1):
        at = layout.g_addr(g)
        if load_acquire(at) != G_CASE:
            store_release(at, _status_after(at))
    cases = 0
    for g in range(1, s.ngs + 1):
        cases += _settle_case(layout.g_addr(g))
    for i in range(p_records()):
        p_at(nth_p(i)).g_free = 0
        p_at(nth_p(i)).g_nfree = 0
        p_at(nth_p(i)).g_ncases = cases if i == 0 else 0
        forget_ring_stw(nth_p(i))
        store_relaxed(nth_p(i) + P_XENDED_WAITS, 0)
        p_at(nth_p(i)).ended_waits = 0
    s.free_with_stack, s.free_without, s.nfree = 0, 0, 0
    s.runq_head, s.runq_tail = 0, 0
    store_relaxed(SCHED_XRUNQ_SIZE, 0)
    for g in range(1, s.ngs + 1):
        at = layout.g_addr(g)
        status = load_acquire(at)
        if status == G_DEAD:
            g_at(at).depth = 0
            give_free_locked(g)
        elif status == G_RUNNABLE and g_at(at).home == 0:
            put_chain_locked(g, g, 1)
        elif status == G_RUNNABLE and g_at(at).listens:
            list_ended(layout.p_addr(g_at(at).home - 1), at)
    count_parked_stw()
    wake_all_stw()


@inline
def _settle_case(case: int) -> int:
    """A case is free if its goroutine is: 1 if it is still one."""
    if load_acquire(case) != G_CASE:
        return 0
    if load_acquire(layout.g_addr(g_at(case).of)) != G_DEAD:
        return 1
    if is_in_queue(case):
        unlink_locked(case)
    store_release(case, G_DEAD)
    return 0


@inline
def _status_after(g: int) -> int:
    """What the goroutine at ``g`` is after the deaths.

    A record of G_IDLE was somebody's who died before there was a goroutine, a P takes what it runs along, and one that only there somebody waits for.
    One that had nobody who knew its frame there may find somebody elsewhere. One that waits for another to end that may be ready: who was to say so
    may have died.
    """
    gp, status = g_at(g), load_acquire(g) & G_STATUS_MASK
    if status == G_IDLE or (status == G_RUNNING and _is_dead(gp.p)):
        return G_DEAD
    if status == G_WAITING and gp.wait >= WAITS_TO_RECEIVE and _is_dead_where_it_waits(g):
        if is_in_queue(g):
            unlink_locked(g)
        return G_DEAD
    if status == G_WAITING and gp.wait >= WAITS_TO_RECEIVE:
        return G_RUNNABLE if _is_done(g) else G_WAITING
    if status in (G_RUNNING, G_DEAD) or gp.home == 0 or not _is_dead(gp.home - 1):
        return status
    if gp.wait == WAITS_FOR_STEP:
        gp.home = 0
        return G_RUNNABLE
    return G_DEAD


@inline
def _is_dead_where_it_waits(g: int) -> bool:
    """Its home, or the P on which it was about to wait in a select."""
    gp = g_at(g)
    if gp.home != 0:
        return _is_dead(gp.home - 1)
    return gp.wait == WAITS_IN_SELECT and load_acquire(g + G_XCLAIM) < OPEN and _is_dead(gp.p)


@inline
def _is_done(g: int) -> bool:
    """Whether the goroutine at ``g``, which waits, has been told what has become of it, or is to be, or is to look itself."""
    gp = g_at(g)
    if gp.done != 0:
        return True
    if gp.wait == WAITS_IN_SELECT:
        gp.done = AGAIN if _is_case_over(g) else 0
    elif is_over_stw(g):
        unlink_locked(g)
        gp.done = CHAN_DONE if gp.wait == WAITS_FOR_GROUP else CHAN_CLOSED
    return gp.done != 0


@inline
def _is_case_over(g: int) -> bool:
    """Whether something has come to pass that the goroutine at ``g`` waits for in a select, and who was to say so may have died."""
    claim = load_acquire(g + G_XCLAIM)
    is_over = claim & 0xFF == CLAIMED and _is_dead(claim >> CLAIMER_SHIFT)
    case = g_at(g).cases
    while case != 0 and not is_over:
        is_over = is_over_stw(layout.g_addr(case))
        case = g_at(layout.g_addr(case)).link
    return is_over


@inline
def _is_dead(p_idx: int) -> bool:
    return load_acquire(layout.p_addr(p_idx) + P_XDEAD) != 0
