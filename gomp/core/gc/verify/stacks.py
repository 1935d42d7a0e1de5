"""Level 2: each stack belongs to one goroutine, to the cache of one P or to its span's list of free ones; so do the records of goroutines."""

from __future__ import annotations

from gomp.core.gc.stackrebuild import manual_span_of, mark_used, mark_used_stw
from gomp.core.gc.verify.problems import (
    G_COUNT,
    G_FRAME,
    G_RUNS,
    STACK_BYTES,
    STACK_COUNT,
    STACK_FREE,
    STACK_OF_G,
    STACK_TWICE,
    expect,
    problem,
)
from gomp.core.heap.mspan import span_addr
from gomp.core.heap.stack import innermost, stack_hi, stack_lo, stack_size
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import load64, load_acquire, load_relaxed, lsr, popcount, store64
from gomp.core.shm.records import (
    FRAME_CALLER,
    FRAME_TYPE,
    G_DEAD,
    G_RUNNING,
    SPAN_MANUAL,
    SPAN_STACK_FREE,
    SPAN_STACK_USED,
    STACKPOOL_XSPAN_BYTES,
    TYPE_BYTES,
    WAITS_IN_SELECT,
    g_at,
    mheap,
    nth_p,
    p_at,
    p_records,
    sched,
    spans,
    type_at,
)


@kernel("int64()")
def pages_of_stacks() -> int:
    """Pages in spans of stacks. World: stopped."""
    n = 0
    for page in range(mheap().end_page):
        if spans()[page].state == SPAN_MANUAL:
            n += spans()[page].npages
    return n


@kernel("void(int64)")
def check_stacks(out: int) -> None:
    """World: stopped."""
    expect(out, STACK_BYTES, load_relaxed(STACKPOOL_XSPAN_BYTES), pages_of_stacks() << layout.PAGE_SHIFT)
    if _check_owners(out) == 0:
        return
    mark_used_stw()
    _check_frames(out)
    _check_running(out)
    _mark_cached(out)
    for page in range(mheap().end_page):
        if spans()[page].state == SPAN_MANUAL:
            _check_span(out, page)
    _check_free_gs(out)


@kernel("int64(int64)")
def _check_owners(out: int) -> int:
    """1 if each goroutine that has a stack has one that there is, and none has another's."""
    sound = 1
    for g in range(1, sched().ngs + 1):
        at = layout.g_addr(g)
        if stack_lo(at) == 0:
            continue
        if not _is_stack(stack_lo(at), stack_size(at)) or not 0 <= g_at(at).depth <= stack_size(at):
            problem(out, STACK_OF_G, g, stack_lo(at), stack_size(at))
            sound = 0
    if sound == 0:
        return 0
    mark_used_stw()
    for g in range(1, sched().ngs + 1):
        lo = stack_lo(layout.g_addr(g))
        if lo != 0:
            if not _is_marked(lo):
                problem(out, STACK_TWICE, lo, 0, 0)
                sound = 0
            _unmark(lo)
    return sound


@inline
def _check_frames(out: int) -> None:
    """The frames of a goroutine fill what is in use of its stack, each of a type that there is."""
    for g in range(1, sched().ngs + 1):
        at = layout.g_addr(g)
        frame, hi = innermost(at), stack_hi(at)
        while frame != 0 and frame != hi:
            type_addr = load64(frame + FRAME_TYPE)
            end = frame + type_at(type_addr).struct_bytes if _is_type(type_addr) else 0
            caller = load64(frame + FRAME_CALLER)
            if end <= frame or end > hi or (end if end != hi else 0) != caller:
                problem(out, G_FRAME, g, frame, type_addr)
                break
            frame = end


@inline
def _is_type(addr: int) -> bool:
    at = addr - layout.TYPES_BASE
    return 0 <= at < layout.MAX_TYPES * TYPE_BYTES and at % TYPE_BYTES == 0 and load_acquire(addr) != 0


@inline
def _check_running(out: int) -> None:
    """Goroutines that run are those that Ps say they run."""
    for g in range(1, sched().ngs + 1):
        at = layout.g_addr(g)
        if load_acquire(at) == G_RUNNING and not _is_run_by(at, layout.p_addr(g_at(at).p)) and not _is_in_python(at):
            problem(out, G_RUNS, g, G_RUNNING, g_at(at).p)
    for i in range(p_records()):
        at, left = p_at(nth_p(i)).curg, sched().ngs
        while at != 0 and left > 0:
            if load_acquire(at) != G_RUNNING or g_at(at).p != p_at(nth_p(i)).idx:
                problem(out, G_RUNS, layout.g_number(at), load_acquire(at), p_at(nth_p(i)).idx)
            at = g_at(at).under
            left -= 1


@inline
def _is_in_python(g: int) -> bool:
    """Whether the goroutine at ``g`` may stand for a program that is in the middle of a select, between two of its kernels."""
    return g_at(g).wait == WAITS_IN_SELECT and g_at(g).home == g_at(g).p + 1


@inline
def _is_run_by(g: int, p: int) -> bool:
    at, left = p_at(p).curg, sched().ngs
    while at != 0 and at != g and left > 0:
        at = g_at(at).under
        left -= 1
    return at == g


@inline
def _is_stack(lo: int, size: int) -> bool:
    if not layout.is_heap_addr(lo) or layout.addr_to_page(lo) >= mheap().end_page:
        return False
    page = manual_span_of(lo)
    sp = spans()[page]
    return (
        sp.state == SPAN_MANUAL
        and sp.elem_size == size
        and lo < sp.limit
        and (lo - layout.page_to_addr(page)) % size == 0
    )


@inline
def _bit(stack: int) -> int:
    page = manual_span_of(stack)
    return (stack - layout.page_to_addr(page)) // spans()[page].elem_size


@inline
def _used_word(stack: int) -> int:
    return span_addr(manual_span_of(stack)) + SPAN_STACK_USED


@inline
def _is_marked(stack: int) -> bool:
    return lsr(load64(_used_word(stack)), _bit(stack)) & 1 == 1


@inline
def _unmark(stack: int) -> None:
    store64(_used_word(stack), load64(_used_word(stack)) & ~(1 << _bit(stack)))


@kernel("void(int64)")
def _mark_cached(out: int) -> None:
    for i in range(p_records()):
        pp = p_at(nth_p(i))
        for order in range(layout.STACK_ORDERS):
            size, left = layout.FIXED_STACK << order, pp.stack_bytes[order]
            stack = pp.stack_free[order]
            while stack != 0 and left > 0:
                if not _is_stack(stack, size) or _is_marked(stack):
                    problem(out, STACK_TWICE, stack, 0, 0)
                    return
                mark_used(stack)
                stack = load64(stack)
                left -= size
            if stack != 0 or left != 0:
                problem(out, STACK_FREE, -1, left, 0)


@inline
def _check_span(out: int, page: int) -> None:
    sp = spans()[page]
    used = popcount(load64(span_addr(page) + SPAN_STACK_USED))
    if sp.alloc_count != used:
        problem(out, STACK_COUNT, page, sp.alloc_count, used)
    if sp.nelems == 1:
        return
    free, stack = 0, load64(span_addr(page) + SPAN_STACK_FREE)
    while stack != 0 and free <= sp.nelems and _is_stack(stack, sp.elem_size):
        free += 1
        stack = load64(stack)
    if free != sp.nelems - used:
        problem(out, STACK_FREE, page, free, sp.nelems - used)


@inline
def _check_free_gs(out: int) -> None:
    listed, dead = sched().nfree, 0
    for i in range(p_records()):
        listed += p_at(nth_p(i)).g_nfree
    for g in range(1, sched().ngs + 1):
        dead += load_acquire(layout.g_addr(g)) == G_DEAD
    expect(out, G_COUNT, listed, dead)
