"""Memory for the stacks of goroutines (stack.go): spans that the collector does not scan, cut into stacks of one size.

A stack's size is a power of two, FIXED_STACK at least. Those below STACK_SPAN bytes, of *order* 0 to 3, share spans: a P takes them from a cache
of its own, which is filled from the pool by the half, and emptied into it by the half and at each collection. A larger one is a span.

Free stacks are linked through their first words. Which stacks are in use says only the table of goroutines; lists, caches and counts are
derived from it, and made again after a death (:mod:`~gomp.core.gc.stackrebuild`). So a P that is killed anywhere here costs nothing: what it had
in its cache or hand belongs to no goroutine. A span of stacks is in no list while it has none free.

While the heap is marked no span goes back to the heap: its pages could become an object's while a marker still takes a stale word for a stack's
address. One whose stacks are all free is a large stack until it is wanted again; between cycles those are returned (:func:`free_large_stacks`).
"""

from __future__ import annotations

from gomp.core.heap.mheap import NO_MEMORY, alloc_manual, free_manual
from gomp.core.heap.mspan import NO_SPAN, span_addr, span_of
from gomp.core.jit import inline, kernel
from gomp.core.sched.locks import acquire, begin_critical, end_critical, release
from gomp.core.shm import layout
from gomp.core.shm.atomics import ctz, load64, load_relaxed, store64
from gomp.core.shm.records import (
    GC_OFF,
    RT_XGCPHASE,
    SPAN_STACK_FREE,
    SPAN_STACK_PREV,
    STACK_LARGE_LISTS,
    STACKPOOL_XLOCK,
    p_at,
    self_p,
    spans,
    stackpool,
)

CACHE_BYTES = 32 << 10  # of free stacks of an order, in a P
_FIXED_SHIFT = 11


@inline
def order_of(size: int) -> int:
    return ctz(size) - _FIXED_SHIFT


@kernel("int64(int64)")
def alloc_stack(size: int) -> int:
    """The lowest address of a stack of ``size`` bytes, a power of two from FIXED_STACK on, whose contents may be anything; or NO_MEMORY."""
    if size >= layout.STACK_SPAN:
        return _alloc_large(size)
    me, order = self_p(), order_of(size)
    if me.stack_free[order] == 0 and not _fill_cache(order, size):
        return NO_MEMORY
    stack = me.stack_free[order]
    me.stack_free[order] = load64(stack)
    me.stack_bytes[order] -= size
    return stack


@kernel("void(int64, int64)")
def free_stack(stack: int, size: int) -> None:
    """Give a stack of ``size`` bytes back. No goroutine has it any more."""
    if size >= layout.STACK_SPAN:
        _free_large(span_of(stack))
        return
    me, order = self_p(), order_of(size)
    if me.stack_bytes[order] >= CACHE_BYTES:
        _empty_cache(layout.p_addr(me.idx), order, CACHE_BYTES // 2)
    store64(stack, me.stack_free[order])
    me.stack_free[order] = stack
    me.stack_bytes[order] += size


# --- caches -----------------------------------------------------------------------------------------------------------


@inline
def _fill_cache(order: int, size: int) -> bool:
    """Half a cache from the pool, and if that has none, from a new span; whether there is a stack now."""
    me = self_p()
    begin_critical()
    has_memory = True
    while me.stack_free[order] == 0 and has_memory:  # others may be faster, and take what a new span has
        if stackpool().head[order] == NO_SPAN:  # a hint: the lock is the pool's, and a span is taken with no lock held
            page = _take_large(ctz(layout.STACK_SPAN >> layout.PAGE_SHIFT))
            if page == NO_SPAN:
                page = alloc_manual(layout.STACK_SPAN >> layout.PAGE_SHIFT, size)
            has_memory = page >= 0
            if has_memory:
                _cut(page, size)
                _link_stacks(page, size)
                acquire(STACKPOOL_XLOCK)
                insert_locked(order, page)
                release(STACKPOOL_XLOCK)
        acquire(STACKPOOL_XLOCK)
        while me.stack_bytes[order] < CACHE_BYTES // 2 and stackpool().head[order] != NO_SPAN:
            stack = _take_locked(order)
            store64(stack, me.stack_free[order])
            me.stack_free[order] = stack
            me.stack_bytes[order] += size
        release(STACKPOOL_XLOCK)
    end_critical()
    return me.stack_free[order] != 0


@kernel("void(int64, int64, int64)")
def _empty_cache(p: int, order: int, until: int) -> None:
    """Give stacks of the P at ``p`` to the pool until it has ``until`` bytes of the order."""
    pp = p_at(p)
    begin_critical()
    acquire(STACKPOOL_XLOCK)
    emptied = NO_SPAN
    while pp.stack_bytes[order] > until:
        stack = pp.stack_free[order]
        pp.stack_free[order] = load64(stack)
        pp.stack_bytes[order] -= layout.FIXED_STACK << order
        page = _give_locked(order, stack)
        if page != NO_SPAN:  # in no list any more; such spans are linked until the lock is free
            spans()[page].next = emptied
            emptied = page
    release(STACKPOOL_XLOCK)
    while emptied != NO_SPAN:
        page = emptied
        emptied = spans()[page].next
        free_manual(page)
    end_critical()


@kernel("void(int64)")
def empty_caches_stw(p: int) -> None:
    """All that the P at ``p`` has (prepareForSweep). World: stopped."""
    for order in range(layout.STACK_ORDERS):
        if p_at(p).stack_bytes[order] != 0:
            _empty_cache(p, order, 0)


# --- the pool ---------------------------------------------------------------------------------------------------------


@inline
def _cut(page: int, size: int) -> None:
    """A span of which no stack is in use is to have stacks of ``size`` bytes."""
    sp = spans()[page]
    sp.elem_size = size
    sp.nelems = (sp.npages << layout.PAGE_SHIFT) // size
    sp.alloc_count = 0


@inline
def _link_stacks(page: int, size: int) -> None:
    """Every stack of a span is free."""
    base = layout.page_to_addr(page)
    first = 0
    for stack in range(base, base + layout.STACK_SPAN, size):
        store64(stack, first)
        first = stack
    store64(span_addr(page) + SPAN_STACK_FREE, first)


@inline
def insert_locked(order: int, page: int) -> None:
    """Holds: stackpool.lock. Put a span with a free stack first in its list."""
    pool = stackpool()
    head = pool.head[order]
    spans()[page].next = head
    store64(span_addr(page) + SPAN_STACK_PREV, NO_SPAN)
    if head != NO_SPAN:
        store64(span_addr(head) + SPAN_STACK_PREV, page)
    pool.head[order] = page


@inline
def _remove_locked(order: int, page: int) -> bool:
    """Take a span out of its list; false if it is not known where it is, because somebody died while the list was changed. It stays then."""
    after, before = spans()[page].next, load64(span_addr(page) + SPAN_STACK_PREV)
    is_first = stackpool().head[order] == page
    if not is_first and (before == NO_SPAN or spans()[before].next != page):
        return False
    if after != NO_SPAN:
        store64(span_addr(after) + SPAN_STACK_PREV, NO_SPAN if is_first else before)
    if is_first:
        stackpool().head[order] = after
    else:
        spans()[before].next = after
    return True


@inline
def _take_locked(order: int) -> int:
    """A span leaves the list before its last free stack is taken: whoever follows one that dies here finds no span without."""
    page = stackpool().head[order]
    stack = load64(span_addr(page) + SPAN_STACK_FREE)
    rest = load64(stack)
    if rest == 0:
        _remove_locked(order, page)
    store64(span_addr(page) + SPAN_STACK_FREE, rest)
    spans()[page].alloc_count += 1
    return stack


@inline
def _give_locked(order: int, stack: int) -> int:
    """Holds: stackpool.lock. The span of the stack if that was its last in use, and it is to go back to the heap; else NO_SPAN."""
    page = span_of(stack)
    free = load64(span_addr(page) + SPAN_STACK_FREE)
    store64(stack, free)
    store64(span_addr(page) + SPAN_STACK_FREE, stack)
    if free == 0:
        insert_locked(order, page)
    spans()[page].alloc_count -= 1
    if spans()[page].alloc_count != 0 or not _remove_locked(order, page):
        return NO_SPAN
    if load_relaxed(RT_XGCPHASE) == GC_OFF:
        return page
    _cut(page, layout.STACK_SPAN)
    _keep_large_locked(page)
    return NO_SPAN


@kernel("void()")
def reset_stackpool() -> None:
    """No stack is free. When a runtime begins, or its world is stopped."""
    for order in range(layout.STACK_ORDERS):
        stackpool().head[order] = NO_SPAN
    for i in range(STACK_LARGE_LISTS):
        stackpool().large[i] = NO_SPAN


# --- large stacks -----------------------------------------------------------------------------------------------------


@inline
def _alloc_large(size: int) -> int:
    npages = size >> layout.PAGE_SHIFT
    begin_critical()
    page = _take_large(ctz(npages))
    if page == NO_SPAN:
        page = alloc_manual(npages, size)
    if page >= 0:
        spans()[page].alloc_count = 1
    end_critical()
    return layout.page_to_addr(page) if page >= 0 else NO_MEMORY


@inline
def _free_large(page: int) -> None:
    begin_critical()
    spans()[page].alloc_count = 0
    if load_relaxed(RT_XGCPHASE) == GC_OFF:
        free_manual(page)
    else:
        acquire(STACKPOOL_XLOCK)
        _keep_large_locked(page)
        release(STACKPOOL_XLOCK)
    end_critical()


@inline
def _keep_large_locked(page: int) -> None:
    """Holds: stackpool.lock. Put a free stack that is a span into its list."""
    i = ctz(spans()[page].npages)
    spans()[page].next = stackpool().large[i]
    stackpool().large[i] = page


@inline
def _take_large(i: int) -> int:
    """The span of a free stack from list ``i``, NO_SPAN if it has none. The caller does not park before it has done with it."""
    acquire(STACKPOOL_XLOCK)
    page = stackpool().large[i]
    if page != NO_SPAN:
        stackpool().large[i] = spans()[page].next
    release(STACKPOOL_XLOCK)
    return page


@kernel("int64(int64)")
def free_large_stacks(most: int) -> int:
    """Give up to ``most`` free stacks that are spans back to the heap (freeStackSpans): how many there were.

    Called by who begins the cycles, in none.
    """
    n = 0
    for i in range(STACK_LARGE_LISTS):
        while n < most and stackpool().large[i] != NO_SPAN:  # a hint
            begin_critical()
            page = _take_large(i)
            if page != NO_SPAN:
                free_manual(page)
                n += 1
            end_critical()
    return n
