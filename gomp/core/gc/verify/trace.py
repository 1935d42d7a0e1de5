"""A trace: a breadth-first walk over everything that the roots lead to, with its own bitmap and queue. World: stopped.

The verifier's level 3, GODEBUG=checkfinalizers and ``gomp.who_retains`` are such walks. One is described by a private record, whose address ``t``
is the first argument of every kernel here: words as named below.

queue    the objects found, in the order in which they were found: each once, by the address of its slot. What is before HEAD has been followed.
visited  a bit for each 8 bytes that the heap has grown to: it is in the queue.
parents  if it is wanted, for each element of the queue the number of the one that led to it; for one that a root led to, the root's address, negated.

So the extra memory is 8 or 16 bytes for each object and a 64th of the heap. A path along the parents is a shortest one.

Native stacks are left out where marks are compared (GODEBUG=gccheckmark): what a program has left in a dead slot of its stack is not kept by the
barrier.
"""

from __future__ import annotations

from gomp.core.gc.poolroots import pool_record
from gomp.core.gc.specials import special_addr
from gomp.core.gc.verify.problems import BAD_POINTER, DANGLING, UNMARKED, problem
from gomp.core.gc.verify.slots import checked_span, is_slot_allocated, is_unswept, p_number
from gomp.core.heap import mspan
from gomp.core.heap.stack import innermost
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import clear_lowest, ctz, load64, load_acquire, load_relaxed, lsl, lsr, store64
from gomp.core.shm.records import (
    FRAME_CALLER,
    FRAME_TYPE,
    G_CHAN,
    G_DEAD,
    G_ELEM,
    P_XNATIVE_N,
    P_XPENDING,
    POOL_PRIVATE,
    POOL_RING,
    POOL_VICTIM_PRIVATE,
    POOL_VICTIM_RING,
    RT_XNGLOBALS,
    RT_XNPOOLS,
    SPECIAL_ADDR,
    SPECIAL_FINALIZER,
    SPECIAL_FREE,
    SPECIAL_QUEUED,
    SPECIAL_RUNNING,
    SPECIAL_VALUE,
    SPECIAL_WEAK,
    WAITS_TO_RECEIVE,
    g_at,
    nrecords,
    p_at,
    p_records,
    runtime,
    sched,
    spans,
    special_at,
    type_at,
)

# Words of a trace's record. Given by who makes it:
T_OUT = 0  # where problems are written down; 0: they are not looked for
T_VISITED, T_QUEUE, T_PARENTS = 8, 16, 24  # addresses; no parents: 0
T_IS_MARKED = 32  # 1: whatever is reached must be marked
T_TARGET = 40  # address of the slot at which the trace ends; 0: none
T_SKIPPED = 48  # address of a handle that does not count; 0: all do
# Its own:
T_HEAD, T_TAIL, T_FROM = 56, 64, 72  # T_FROM: the parent of what is found now
T_FOUND = 80  # 1: the target is in the queue, as the last
T_SLOT = 88  # where seek has found its target, 0 before; only while T_SEEKS
T_SEEKS = 96
TRACE_BYTES = 104

_FIRST_OBLET = 128 << 10  # a longer array's references to itself count beyond it, as in Go


@inline
def _get(t: int, word: int) -> int:
    return load64(t + word)


@inline
def _set(t: int, word: int, value: int) -> None:
    store64(t + word, value)


# --- walking ----------------------------------------------------------------------------------------------------------


@kernel("int64(int64)")
def trace(t: int) -> int:
    """Follow all that the roots lead to, up to the target: the number of objects that were followed."""
    visit_roots(t)
    return follow(t)


@kernel("int64(int64)")
def follow(t: int) -> int:
    """Follow what is in the queue, up to the target: the number of objects that were followed."""
    head = _get(t, T_HEAD)
    while head < _get(t, T_TAIL) and _get(t, T_FOUND) == 0:
        _set(t, T_FROM, head)
        visit_object(t, load64(_get(t, T_QUEUE) + 8 * head), 0)
        head += 1
    _set(t, T_HEAD, head)
    return head


@kernel("int64(int64, int64, int64)")
def seek(t: int, holder: int, target: int) -> int:
    """Address of the first reference in the object in the slot at ``holder`` that leads into the one at ``target``; 0 if there is none."""
    _set(t, T_TARGET, target)
    _set(t, T_SLOT, 0)
    _set(t, T_SEEKS, 1)
    visit_object(t, holder, 0)
    _set(t, T_SEEKS, 0)
    return _get(t, T_SLOT)


@inline
def _push_once(t: int, addr: int) -> None:
    word_idx = (addr - layout.HEAP_BASE) >> 3
    word = _get(t, T_VISITED) + ((word_idx >> 6) << 3)
    bit = lsl(1, word_idx & 63)
    if load64(word) & bit or _get(t, T_FOUND) != 0:
        return
    store64(word, load64(word) | bit)
    at = 8 * _get(t, T_TAIL)
    store64(_get(t, T_QUEUE) + at, addr)
    if _get(t, T_PARENTS) != 0:
        store64(_get(t, T_PARENTS) + at, _get(t, T_FROM))
    _set(t, T_TAIL, _get(t, T_TAIL) + 1)
    if addr == _get(t, T_TARGET):
        _set(t, T_FOUND, 1)


@kernel("void(int64, int64)")
def visit(t: int, slot: int) -> None:
    """Follow the reference in ``slot``. A word that is no heap address refers to nothing, as for marking."""
    word = load_relaxed(slot)
    if not layout.is_heap_addr(word):
        return
    page = checked_span(word)
    idx = 0 if page == mspan.NO_SPAN else mspan.obj_idx_of(page, word)
    if _get(t, T_SEEKS) != 0:
        if page != mspan.NO_SPAN and mspan.obj_addr(page, idx) == _get(t, T_TARGET) and _get(t, T_SLOT) == 0:
            _set(t, T_SLOT, slot)
        return
    if page == mspan.NO_SPAN:
        _report(t, BAD_POINTER, word, slot, 0)
        return
    if not is_slot_allocated(page, idx):
        _report(t, DANGLING, word, slot, page)
        return
    if (is_unswept(page) or _get(t, T_IS_MARKED)) and not mspan.is_marked(page, idx):
        _report(t, UNMARKED, word, slot, page)
    _push_once(t, mspan.obj_addr(page, idx))


@inline
def _report(t: int, code: int, a: int, b: int, c: int) -> None:
    if _get(t, T_OUT) != 0:
        problem(_get(t, T_OUT), code, a, b, c)


@inline
def _visit_word(t: int, word: int) -> None:
    """A word that may be anything: one that leads to an object, in a span that is to be swept to a marked one."""
    page = checked_span(word)
    if page == mspan.NO_SPAN or not is_slot_allocated(page, mspan.obj_idx_of(page, word)):
        return
    idx = mspan.obj_idx_of(page, word)
    if is_unswept(page) and not mspan.is_marked(page, idx):
        return
    _push_once(t, mspan.obj_addr(page, idx))


# --- roots ------------------------------------------------------------------------------------------------------------


@kernel("void(int64)")
def visit_roots(t: int) -> None:
    _visit_globals(t)
    _visit_pools(t)
    _visit_specials(t)
    _visit_stacks(t)
    for i in range(p_records()):
        _visit_handles(t, p_number(i))
        if not _get(t, T_IS_MARKED):
            _visit_native(t, p_number(i))


@inline
def _visit_root(t: int, slot: int) -> None:
    _set(t, T_FROM, -slot)
    visit(t, slot)


@inline
def _visit_globals(t: int) -> None:
    for i in range(load_relaxed(RT_XNGLOBALS)):
        _visit_root(t, layout.GLOBALS_BASE + layout.GLOBAL_RECORD * i)


@inline
def _visit_pools(t: int) -> None:
    for pool in range(load_relaxed(RT_XNPOOLS)):
        for i in range(nrecords()):
            record = pool_record(pool, i)
            _visit_root(t, record + POOL_PRIVATE)
            _visit_root(t, record + POOL_RING)
            _visit_root(t, record + POOL_VICTIM_PRIVATE)
            _visit_root(t, record + POOL_VICTIM_RING)


@kernel("void(int64)")
def _visit_specials(t: int) -> None:
    """Handles of weak pointers; objects whose finalizers are due; what those lead to that have one, but not they themselves."""
    for n in range(1, runtime().nspecials + 1):
        at = special_addr(n)
        s, state = special_at(at), load_acquire(at)
        if state == SPECIAL_FREE:
            continue
        if s.kind == SPECIAL_WEAK:
            _visit_root(t, at + SPECIAL_VALUE)
        elif s.kind == SPECIAL_FINALIZER and state in (SPECIAL_QUEUED, SPECIAL_RUNNING):
            _visit_root(t, at + SPECIAL_ADDR)
        elif s.kind == SPECIAL_FINALIZER:
            page = mspan.find_span(s.addr)
            _set(t, T_FROM, -at)
            visit_object(t, mspan.obj_addr(page, mspan.obj_idx_of(page, s.addr)), 1)


@kernel("void(int64)")
def _visit_stacks(t: int) -> None:
    """References in the frames of goroutines, and what those have that wait at channels."""
    for g in range(1, sched().ngs + 1):
        at = layout.g_addr(g)
        if load_acquire(at) == G_DEAD:
            continue
        if g_at(at).wait >= WAITS_TO_RECEIVE:
            _visit_root(t, at + G_CHAN)
            if g_at(at).elem_is_link:
                _visit_root(t, at + G_ELEM)
        frame = innermost(at)
        while frame != 0:
            _visit_frame(t, frame)
            frame = load64(frame + FRAME_CALLER)


@inline
def _visit_frame(t: int, frame: int) -> None:
    record = type_at(load64(frame + FRAME_TYPE))
    for i in range((record.ptr_bytes + 511) >> 9):
        mask = load64(record.mask + 8 * i)
        while mask != 0:
            _visit_root(t, frame + 512 * i + 8 * ctz(mask))
            mask = clear_lowest(mask)


@inline
def _visit_handles(t: int, p: int) -> None:
    base = layout.handles_addr(p)
    for slot in range(base, base + 8 * p_at(layout.p_addr(p)).handles, 8):
        if slot != _get(t, T_SKIPPED):
            _visit_root(t, slot)


@inline
def _visit_native(t: int, p: int) -> None:
    base = layout.native_roots_addr(p)
    for slot in range(base, base + 8 * load_acquire(layout.p_addr(p) + P_XNATIVE_N), 8):
        _set(t, T_FROM, -slot)
        _visit_word(t, load64(slot))
    _set(t, T_FROM, -(layout.p_addr(p) + P_XPENDING))
    _visit_word(t, load_relaxed(layout.p_addr(p) + P_XPENDING))


# --- objects ----------------------------------------------------------------------------------------------------------


@inline
def _is_pointer_word(addr: int) -> bool:
    """By the pointer bits at the end of the page."""
    page_base = addr & -layout.PAGE_SIZE
    word_idx = (addr - page_base) >> 3
    return lsr(load64(page_base + layout.PAGE_SIZE - 256 + ((word_idx >> 6) << 3)), word_idx & 63) & 1 == 1


@kernel("void(int64, int64, int64)")
def visit_object(t: int, addr: int, only_others: int) -> None:
    """Follow the references of the object in the slot at ``addr``; with ``only_others`` but those to itself."""
    sp = spans()[mspan.find_span(addr)]
    if mspan.is_noscan(sp.span_class):
        return
    if sp.elem_size > mspan.MAX_INLINE:
        _visit_typed(t, addr, only_others)
        return
    for slot in range(addr, addr + sp.elem_size, 8):
        if (sp.span_class == mspan.SCAN8 or _is_pointer_word(slot)) and not (only_others and _leads_to(slot, addr)):
            visit(t, slot)


@inline
def _leads_to(slot: int, addr: int) -> bool:
    """Whether the reference leads into the object in the slot at ``addr``."""
    return addr <= load_relaxed(slot) < addr + spans()[mspan.find_span(addr)].elem_size


@inline
def is_typed(page: int) -> bool:
    """Whether objects of this span name their type in their first word."""
    sp = spans()[page]
    return sp.elem_size > mspan.MAX_INLINE and sp.span_class > 1 and not mspan.is_noscan(sp.span_class)


@inline
def type_record_of(page: int, addr: int) -> int:
    """Address of the type's record of an object above 512 bytes with references; 0 of a large one that is not zeroed yet."""
    return load64(addr) if is_typed(page) else spans()[page].large_type


@inline
def _mask_bit(mask: int, i: int) -> bool:
    return lsr(load64(mask + ((i >> 6) << 3)), i & 63) & 1 == 1


@kernel("void(int64, int64, int64)")
def _visit_typed(t: int, addr: int, only_others: int) -> None:
    page = mspan.find_span(addr)
    type_addr = type_record_of(page, addr)
    obj = addr + 8 if is_typed(page) else addr
    if type_addr == 0:
        return
    record = type_at(type_addr)
    if record.elem_size == 0:
        for i in range(record.ptr_bytes >> 3):
            if _mask_bit(record.mask, i) and not (only_others and _leads_to(obj + 8 * i, addr)):
                visit(t, obj + 8 * i)
    elif record.ptr_bytes != 0:
        for slot in range(obj + 8, obj + 8 + load64(obj) * record.elem_size, 8):
            offset = (slot - obj - 8) % record.elem_size
            is_reference = offset < record.ptr_bytes and _mask_bit(record.mask, offset >> 3)
            is_own = only_others and slot < addr + _FIRST_OBLET and _leads_to(slot, addr)
            if is_reference and not is_own:
                visit(t, slot)
