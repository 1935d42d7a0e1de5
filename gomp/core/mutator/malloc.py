"""``new``: from a size and a type to the address of a zeroed object.

The fast path takes the lowest free slot of the P's window: no lock, no atomic read-modify-write, no counter but the pointer bytes. Memory that
comes from the system is zero, and stays untouched until its object is written. The arguments are constants where a program is compiled, so it becomes
a handful of instructions. Everything else is in :func:`malloc_slow`.

Order of an allocation: zero if it is not, pointer bits, ``fence_release``, take the slot, return. Whoever sees the address sees a zeroed object;
and repair, after a kill in between, finds a free slot or a zeroed object.

Three kinds of callers. A compiled program (PROGRAM) waits inside, for a collection that it triggered to begin and for credit when it has to
assist. A call from Python (PYTHON) never waits in a kernel for more than a stop to end: it gets RETRY before it has taken a slot, when only a
collection can help, and calls again after it (PYTHON_AGAIN); or it is told by ``gc_wait`` to wait once its handle is filled.

A large object is committed and zeroed in pieces, and between two of them every kind of caller may be stopped. What a stop finds then is either pages
in ``taking_page`` or an object in ``xpending``, which is a root. A call from Python has no other address in hand before its object is made: it
loads from handles what is to go into it afterwards.
"""

from __future__ import annotations

import numpy as np

from gomp.core.gc import assist, sweep
from gomp.core.gc.goal import trigger
from gomp.core.heap import mheap, mspan
from gomp.core.heap.mcache import next_window
from gomp.core.heap.mcentral import push_span, swept_set
from gomp.core.heap.sampling import hand_out, is_sampled
from gomp.core.heap.sizeclass import MAX_INLINE, MAX_SMALL_REQUEST, SIZES, TINY_SIZE, TINY_SPAN_CLASS, size_class
from gomp.core.jit import inline, kernel
from gomp.core.mutator.poll import assist_waiting, poll_slow, request_collection, wait_for_cycle
from gomp.core.mutator.refill import publish_live, refill
from gomp.core.mutator.samples import NO_PLACE, take_sample
from gomp.core.sched import redo
from gomp.core.sched.locks import begin_critical, end_critical
from gomp.core.sched.status import OK, RETRY, park_call_while_stopped, stop_requested
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    add_relaxed,
    clear_lowest,
    clz,
    ctz,
    fence_release,
    load64,
    load_relaxed,
    lsl,
    lsr,
    popcount,
    store64,
    store_relaxed,
    zero_range,
)
from gomp.core.shm.records import (
    GC_OFF,
    GC_TRIGGER_HEAP,
    GC_TRIGGER_LAST_RESORT,
    GC_WAIT_CREDIT,
    MCACHE_ENTRY,
    MCACHE_HELD,
    MHEAP_XALLOC,
    P_LARGE_ALLOC,
    P_LARGE_ALLOC_COUNT,
    P_MCACHE,
    P_NEEDZERO,
    P_XPENDING,
    PACER_XLIVE,
    RT_XGCPHASE,
    SET_FULL,
    SPAN_ALLOC_BEFORE_CACHE,
    runtime,
    self_p,
    spans,
    type_at,
)

OUT_OF_MEMORY = 0
PYTHON, PROGRAM, PYTHON_AGAIN = (
    0,
    1,
    2,
)  # a caller is one of them; or a program, by the address of the place where it stands (mutator/samples.py)
_SELF_MCACHE = layout.SELF_BASE + P_MCACHE
_SELF_NEEDZERO = layout.SELF_BASE + P_NEEDZERO
_SELF_PENDING = layout.SELF_BASE + P_XPENDING
_ZERO_STEP = 256 << 10
_HEADER = 8


# --- the fast path ----------------------------------------------------------------------------------------------------


@inline
def _lowest_free(span_class: int, elem_size: int) -> int:
    """The lowest free slot of the window, or 0."""
    entry = _SELF_MCACHE + span_class * MCACHE_ENTRY
    free = load64(entry)
    if free == 0:
        return 0
    return load64(entry + 8) + ctz(free) * elem_size


@inline
def _find_slot(span_class: int, elem_size: int, caller: int) -> int:
    """A free slot, taken by :func:`_take_slot` once its object is complete."""
    addr = _lowest_free(span_class, elem_size)
    if addr == 0:
        addr = malloc_slow(span_class, caller)
    return addr


@inline
def _zero_slot(span_class: int, addr: int, nbytes: int) -> None:
    if lsr(load64(_SELF_NEEDZERO + ((span_class >> 6) << 3)), span_class & 63) & 1:
        zero_range(addr, nbytes)


@inline
def _take_slot(span_class: int) -> None:
    entry = _SELF_MCACHE + span_class * MCACHE_ENTRY
    fence_release()
    store64(entry, clear_lowest(load64(entry)))


@inline
def new_small(span_class: int, elem_size: int, nwords: int, mask: int, scan_bytes: int, caller: int) -> int:
    """An object with references, of at most 512 bytes: bit i of ``mask`` says that word i is one; ``scan_bytes`` is where the last ends."""
    addr = _find_slot(span_class, elem_size, caller)
    if addr > 0:
        _zero_slot(span_class, addr, elem_size)
        if span_class != mspan.SCAN8:
            mspan.write_pointer_mask(addr, nwords, mask)
        self_p().scan_alloc += scan_bytes
        _take_slot(span_class)
    return addr


@inline
def new_noscan(size: int, span_class: int, elem_size: int, caller: int) -> int:
    """An object without references, of 16 to 32760 bytes."""
    addr = _find_slot(span_class, elem_size, caller)
    if addr > 0:
        _zero_slot(span_class, addr, size)
        _take_slot(span_class)
    return addr


@inline
def new_tiny(size: int, caller: int) -> int:
    """An object without references, of less than 16 bytes: it shares a 16-byte block with others (malloc.go)."""
    me = self_p()
    offset = me.tiny_offset
    if size & 7 == 0:
        offset = (offset + 7) & -8
    elif size & 3 == 0:
        offset = (offset + 3) & -4
    elif size & 1 == 0:
        offset = (offset + 1) & -2
    if me.tiny != 0 and offset + size <= TINY_SIZE:
        me.tiny_offset = offset + size
        me.tiny_allocs += 1
        return me.tiny + offset
    return new_tiny_block(size, caller)


@kernel("int64(int64, int64)")
def new_tiny_block(size: int, caller: int) -> int:
    addr = new_noscan(TINY_SIZE, TINY_SPAN_CLASS, TINY_SIZE, caller)
    if addr <= 0:
        return addr
    me = self_p()
    if me.tiny == 0 or size < me.tiny_offset:  # the block with more room left becomes the current one
        me.tiny = addr
        me.tiny_offset = size
    return addr


# --- any size ---------------------------------------------------------------------------------------------------------

_SIZES = np.array(SIZES, dtype=np.int64)


@kernel("int64(int64, int64)")
def new_bytes(size: int, caller: int) -> int:
    """An object of ``size`` > 0 bytes without references."""
    if size < TINY_SIZE:
        return new_tiny(size, caller)
    if size > MAX_SMALL_REQUEST:
        return _new_large(size, 0, caller)
    c = size_class(size)
    return new_noscan(size, 2 * c + 1, _SIZES[c], caller)


@inline
def new_masked(size: int, mask: int, caller: int) -> int:
    """An object of at most 512 bytes with references where ``mask`` has a bit."""
    c = size_class(size)
    return new_small(2 * c, _SIZES[c], _SIZES[c] >> 3, mask, 8 * (64 - clz(mask)), caller)


@kernel("int64(int64, int64, int64)")
def new_typed(size: int, type_addr: int, caller: int) -> int:
    """An object of ``size`` > 0 bytes whose references the type record at ``type_addr`` describes."""
    if size > MAX_SMALL_REQUEST:
        return _new_large(size, type_addr, caller)
    t = type_at(type_addr)
    if size <= MAX_INLINE:
        c = size_class(size)
        mask = load64(t.mask) if t.elem_size == 0 else _array_mask(size, type_addr)
        scan_bytes = t.ptr_bytes if t.elem_size == 0 else size
        return new_small(2 * c, _SIZES[c], _SIZES[c] >> 3, mask, scan_bytes, caller)
    c = size_class(size + _HEADER)
    addr = _find_slot(2 * c, _SIZES[c], caller)
    if addr <= 0:
        return addr
    _zero_slot(2 * c, addr, _SIZES[c])
    store64(addr, type_addr)
    self_p().scan_alloc += _SIZES[c]
    _take_slot(2 * c)
    return addr + _HEADER


@inline
def _array_mask(size: int, type_addr: int) -> int:
    """The references in an array of so many bytes: of one of references, every word but the first, the length."""
    t = type_at(type_addr)
    if t.elem_size == 8:
        return lsr(-1, 64 - (size >> 3)) & ~1 if t.ptr_bytes else 0
    mask = 0
    for at in range(8, size, t.elem_size):
        mask |= lsl(load64(t.mask), at >> 3)
    return mask


# --- the slow path ----------------------------------------------------------------------------------------------------


@kernel("int64(int64, int64)")
def malloc_slow(span_class: int, caller: int) -> int:
    """A free slot of the class, not zeroed and not taken; OUT_OF_MEMORY; or RETRY."""
    me = self_p()
    me.slow_allocs += 1
    elem_size = mheap.span_elem_size(span_class)
    entry = _SELF_MCACHE + span_class * MCACHE_ENTRY
    tested, last_resort, sampled = False, False, 0
    while load64(entry) == 0:  # a stop while this P waited may have emptied its mcache
        if load64(entry + MCACHE_HELD) != 0:
            sampled = hand_out(entry, elem_size)
        elif next_window(entry):
            _pay(popcount(load64(entry + MCACHE_HELD)) * elem_size, caller)
        elif refill(span_class) != OK:
            if last_resort or caller == PYTHON_AGAIN:
                return OUT_OF_MEMORY
            last_resort = True
            if caller == PYTHON:
                request_collection(GC_TRIGGER_LAST_RESORT)
                return RETRY
            wait_for_cycle(GC_TRIGGER_LAST_RESORT)
        elif not tested and needs_collection():
            tested = True
            _collect(caller)
    addr = _lowest_free(span_class, elem_size)
    if sampled:
        take_sample(addr, elem_size, _place_of(caller))
    return addr


@inline
def is_program(caller: int) -> bool:
    return caller != PYTHON and caller != PYTHON_AGAIN


@inline
def _place_of(caller: int) -> int:
    if caller == PROGRAM:
        return self_p().makes_at
    return caller if is_program(caller) else NO_PLACE


@inline
def needs_collection() -> bool:
    """The trigger test, made only when an allocation refilled a span or was large."""
    rt = runtime()
    if load_relaxed(RT_XGCPHASE) != GC_OFF:
        return False
    if load_relaxed(PACER_XLIVE) >= trigger():
        return True
    return rt.collect_every != 0 and self_p().slow_allocs % rt.collect_every == 0


@inline
def _pay(nbytes: int, caller: int) -> None:
    """For what is about to be allocated, if the heap is being marked."""
    if assist.debit(nbytes):
        if is_program(caller):
            assist_waiting()
        elif assist.try_assist() == assist.IN_DEBT:
            self_p().gc_wait = GC_WAIT_CREDIT


@inline
def _collect(caller: int) -> None:
    if is_program(caller):
        wait_for_cycle(GC_TRIGGER_HEAP)
    else:
        request_collection(GC_TRIGGER_HEAP)
        self_p().gc_wait = GC_TRIGGER_HEAP


@kernel("int64(int64, int64, int64)")
def _new_large(size: int, type_addr: int, caller: int) -> int:
    """An object of its own span. It is zeroed in pieces, between which its maker may be stopped, and opaque to marking until then."""
    me = self_p()
    npages = layout.pages_for(size)
    page = _take_large(npages, 1 if type_addr == 0 else 0, size, caller)
    if page < 0:
        if caller == PYTHON_AGAIN:
            return OUT_OF_MEMORY
        if caller == PYTHON:
            request_collection(GC_TRIGGER_LAST_RESORT)
            return RETRY
        wait_for_cycle(GC_TRIGGER_LAST_RESORT)
        page = _take_large(npages, 1 if type_addr == 0 else 0, size, caller)
        if page < 0:
            return OUT_OF_MEMORY
    addr = layout.page_to_addr(page)
    # A root by itself: between here and the return the compiler may keep the page's number in place of the address.
    store_relaxed(_SELF_PENDING, addr)
    if needs_collection():
        _collect(caller)
    _pay(npages * layout.PAGE_SIZE, caller)
    if spans()[page].needzero:
        for at in range(addr, addr + npages * layout.PAGE_SIZE, _ZERO_STEP):
            zero_range(at, min(_ZERO_STEP, addr + npages * layout.PAGE_SIZE - at))
            if is_program(caller):
                poll_slow()
            elif stop_requested():
                park_call_while_stopped()
    if type_addr != 0:
        fence_release()
        spans()[page].large_type = type_addr
        me.scan_alloc += npages * layout.PAGE_SIZE
    fence_release()
    size_of_span = npages * layout.PAGE_SIZE
    if is_sampled(_SELF_MCACHE + (1 if type_addr == 0 else 0) * MCACHE_ENTRY, size_of_span):
        take_sample(addr, size_of_span, _place_of(caller))
    store_relaxed(_SELF_PENDING, 0)
    return addr


@kernel("int64(int64, int64, int64, int64)")
def _take_large(npages: int, noscan: int, size: int, caller: int) -> int:
    """A span for one large object, in its list and counted; or a negated errno."""
    me = self_p()
    begin_critical()
    sweep.deduct_sweep_credit(npages * layout.PAGE_SIZE, npages)
    sweep.reclaim(npages)
    end_critical()  # only the pages that it takes are in hand while they are committed, and every stop knows those
    page = mheap.take_pages(npages, mheap.PROGRAM_PARKS if is_program(caller) else mheap.CALL_PARKS)
    begin_critical()
    if page >= 0:
        mheap.make_span(page, npages, noscan)
        sp = spans()[page]
        sp.limit = layout.page_to_addr(page) + size
        sp.freeindex = 1
        sp.alloc_count = 1
        mine = layout.p_addr(me.idx)
        redo.plan(0, mine + P_LARGE_ALLOC_COUNT, load64(mine + P_LARGE_ALLOC_COUNT) + 1)
        redo.plan(1, mine + P_LARGE_ALLOC, load64(mine + P_LARGE_ALLOC) + npages * layout.PAGE_SIZE)
        redo.plan(2, mspan.span_addr(page) + SPAN_ALLOC_BEFORE_CACHE, 1)  # says that the totals count it
        redo.commit(3)
        add_relaxed(MHEAP_XALLOC, npages * layout.PAGE_SIZE)
        is_marking = load_relaxed(RT_XGCPHASE) != GC_OFF
        if is_marking and mspan.try_mark(page, 0):  # unless some word has led a marker here already
            me.bytes_marked += npages * layout.PAGE_SIZE
        publish_live(npages * layout.PAGE_SIZE)
        push_span(noscan, swept_set(SET_FULL), page)
    end_critical()
    return page
