"""Work buffers: the grey objects, and the spans with grey objects.

Each P always has two buffers of 253 addresses, used as a stack: the second keeps a marker that goes up and down around a buffer's edge from
going to the shared stacks each time. Full buffers that are surplus lie on a shared stack, from which anybody takes; empty ones on another.
The stacks are arrays of buffer numbers under one lock. They are derived: at the end of marking every buffer is empty.

An entry is the address of an object or, if it is odd, a span of small slots (see :mod:`~gomp.core.gc.spanq`).

Buffers live in the metadata segment and are committed sixteen at a time; marking allocates nothing else. When even that fails, a marker drops
what is in a buffer and says so in ``xoverflow``: the objects are marked, so they can be found again by walking the heap, with the world
stopped (:func:`~gomp.core.gc.worker.mark_stw`).
"""

from __future__ import annotations

from gomp.core.heap.accounting import wbuf_bytes
from gomp.core.heap.scavenge import make_room
from gomp.core.jit import inline, kernel
from gomp.core.sched.locks import acquire, begin_critical, end_critical, release
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_relaxed, and_seq_cst, fence_release, load_relaxed, store64, store_release
from gomp.core.shm.commit import fallocate_all
from gomp.core.shm.records import (
    INLINE_MARKS,
    MHEAP_XWBUF,
    OWNED_MANY,
    OWNED_ONE,
    OWNED_WORD,
    RT_XOVERFLOW,
    RT_XWBUF_FULL,
    RT_XWBUF_LOCK,
    WBUF_OBJECTS,
    p_at,
    runtime,
    self_p,
    wbuf_at,
    wbuf_stacks,
)

SPAN_ENTRY = 1
_BATCH = 16
_HANDOFF = 4  # a buffer with no more than this is not worth giving away


# --- entries ----------------------------------------------------------------------------------------------------------


@inline
def span_entry(page_base: int, idx: int) -> int:
    """The entry of a span with small slots, one of which, ``idx``, has been marked. (Addresses of objects are even.)"""
    return page_base | idx << 1 | SPAN_ENTRY


@inline
def is_span_entry(entry: int) -> bool:
    return entry & SPAN_ENTRY == SPAN_ENTRY


@inline
def entry_base(entry: int) -> int:
    return entry & -layout.PAGE_SIZE


@inline
def entry_idx(entry: int) -> int:
    return (entry & (layout.PAGE_SIZE - 1)) >> 1


@inline
def owned_word(page_base: int) -> int:
    return page_base + layout.PAGE_SIZE - INLINE_MARKS + OWNED_WORD


@inline
def release_span(entry: int) -> int:
    """Give up a span that was taken from a queue: OWNED_ONE if only the entry's object was marked since it was put there.

    Whoever marks an object from here on queues the span anew; whatever was marked before is visible now.
    """
    owned = OWNED_ONE | OWNED_MANY
    return and_seq_cst(owned_word(entry_base(entry)), ~owned) & owned  # store→load, against who marks


# --- the shared stacks ------------------------------------------------------------------------------------------------


@inline
def _full_slot(i: int) -> int:
    return i


@inline
def _empty_slot(i: int) -> int:
    return layout.MAX_WBUFS + i


@inline
def _buffer_addr(number: int) -> int:
    return layout.WBUFS_BASE + number * layout.WBUF_SIZE


@inline
def _buffer_number(addr: int) -> int:
    return (addr - layout.WBUFS_BASE) // layout.WBUF_SIZE


@inline
def _lock() -> None:
    """Whoever moves grey objects has some in hand, or is in the middle of a store: it does not park while it waits."""
    begin_critical()
    acquire(RT_XWBUF_LOCK)


@inline
def _unlock() -> None:
    release(RT_XWBUF_LOCK)
    end_critical()


@kernel("int64()")
def take_empty() -> int:
    """An empty buffer's address, or 0 if there is no memory for one."""
    rt = runtime()
    if rt.wbuf_empty == 0:  # a hint: somebody may give one, or take the last, before the lock is held
        make_room(_carving_bytes())
    _lock()
    if rt.wbuf_empty == 0 and not _carve_locked():
        _unlock()
        return 0
    rt.wbuf_empty -= 1
    number = wbuf_stacks()[_empty_slot(rt.wbuf_empty)]
    _unlock()
    wbuf_at(_buffer_addr(number)).nobj = 0
    return _buffer_addr(number)


@inline
def _carving_bytes() -> int:
    """What the next batch takes."""
    return wbuf_bytes(runtime().wbuf_made + _BATCH) - wbuf_bytes(runtime().wbuf_made)


@inline
def _carve_locked() -> bool:
    rt = runtime()
    if rt.wbuf_made + _BATCH > layout.MAX_WBUFS:
        return False
    size = _BATCH * layout.WBUF_SIZE
    # Not from the budget of commits: it is when that is used up that a collection must be able to mark.
    fd, stacks = self_p().meta_fd, layout.WBUF_STACKS_BASE - layout.META_BASE
    code = fallocate_all(fd, _buffer_addr(rt.wbuf_made) - layout.META_BASE, size)
    code |= fallocate_all(fd, stacks + 8 * _full_slot(rt.wbuf_made), 8 * _BATCH)
    code |= fallocate_all(fd, stacks + 8 * _empty_slot(rt.wbuf_made), 8 * _BATCH)
    if code != 0:
        return False
    for i in range(_BATCH):
        wbuf_stacks()[_empty_slot(rt.wbuf_empty + i)] = rt.wbuf_made + i
    add_relaxed(MHEAP_XWBUF, _carving_bytes())
    rt.wbuf_made += _BATCH
    fence_release()  # killed here, its buffers are lost until repair, and not in the stack twice
    rt.wbuf_empty += _BATCH
    return True


@kernel("void(int64)")
def give_empty(buffer: int) -> None:
    rt = runtime()
    _lock()
    wbuf_stacks()[_empty_slot(rt.wbuf_empty)] = _buffer_number(buffer)
    rt.wbuf_empty += 1
    _unlock()


@kernel("void(int64)")
def give_full(buffer: int) -> None:
    """Let anybody take this buffer's objects."""
    _lock()
    n = load_relaxed(RT_XWBUF_FULL)
    wbuf_stacks()[_full_slot(n)] = _buffer_number(buffer)
    store64(RT_XWBUF_FULL, n + 1)
    _unlock()


@kernel("int64()")
def try_take_full() -> int:
    """A full buffer's address, or 0."""
    if load_relaxed(RT_XWBUF_FULL) == 0:
        return 0
    _lock()
    n = load_relaxed(RT_XWBUF_FULL)
    buffer = 0
    if n > 0:
        store64(RT_XWBUF_FULL, n - 1)
        buffer = _buffer_addr(wbuf_stacks()[_full_slot(n - 1)])
    _unlock()
    return buffer


@inline
def has_full() -> bool:
    return load_relaxed(RT_XWBUF_FULL) > 0


@inline
def put(p: int, addr: int) -> None:
    """Add an entry to the buffers of the P at ``p``."""
    wb = wbuf_at(p_at(p).wbuf1)
    if wb.nobj == WBUF_OBJECTS:
        make_room_slow(p)
        wb = wbuf_at(p_at(p).wbuf1)
    wb.obj[wb.nobj] = addr
    wb.nobj += 1


@kernel("void(int64)")
def _drop(buffer: int) -> None:
    """Forget what is in a buffer. A span that was queued must not seem to be still: it would never be again."""
    wb = wbuf_at(buffer)
    for i in range(wb.nobj):
        if is_span_entry(wb.obj[i]):
            release_span(wb.obj[i])
    wb.nobj = 0
    store_release(RT_XOVERFLOW, 1)


@kernel("void(int64)")
def make_room_slow(p: int) -> None:
    """The first buffer is full: swap in the second, and publish it first if it is full too."""
    pp = p_at(p)
    if wbuf_at(pp.wbuf2).nobj > 0:
        empty = take_empty()
        if empty == 0:
            _drop(pp.wbuf1)
            return
        give_full(pp.wbuf2)
        pp.wbuf2 = empty
    pp.wbuf1, pp.wbuf2 = pp.wbuf2, pp.wbuf1


@inline
def get_object(p: int) -> int:
    """The last entry of the P at ``p``, if it is no span; else 0."""
    wb = wbuf_at(p_at(p).wbuf1)
    if wb.nobj == 0 or is_span_entry(wb.obj[wb.nobj - 1]):
        return 0
    wb.nobj -= 1
    return wb.obj[wb.nobj]


@inline
def get(p: int) -> int:
    """An entry of the P at ``p`` or, when it has none, of anybody; 0 if there is none."""
    wb = wbuf_at(p_at(p).wbuf1)
    if wb.nobj == 0:
        if refill_slow(p) == 0:
            return 0
        wb = wbuf_at(p_at(p).wbuf1)
    wb.nobj -= 1
    return wb.obj[wb.nobj]


@kernel("int64(int64)")
def refill_slow(p: int) -> int:
    pp = p_at(p)
    if wbuf_at(pp.wbuf2).nobj > 0:
        pp.wbuf1, pp.wbuf2 = pp.wbuf2, pp.wbuf1
        return 1
    buffer = try_take_full()
    if buffer == 0:
        return 0
    give_empty(pp.wbuf1)
    pp.wbuf1 = buffer
    return 1


@kernel("int64(int64)")
def init_buffers(p: int) -> int:
    """Give the P at ``p`` its two buffers, if it has none: 1, or 0 if there is no memory for them."""
    pp = p_at(p)
    if pp.wbuf1 == 0:
        pp.wbuf1 = take_empty()
    if pp.wbuf2 == 0:
        pp.wbuf2 = take_empty()
    return 1 if pp.wbuf1 != 0 and pp.wbuf2 != 0 else 0


@inline
def is_empty(p: int) -> bool:
    """Whether the P at ``p`` has no grey objects in its buffers."""
    return wbuf_at(p_at(p).wbuf1).nobj == 0 and wbuf_at(p_at(p).wbuf2).nobj == 0


@kernel("int64(int64)")
def dispose(p: int) -> int:
    """Publish what is in the buffers of the P at ``p``; 1 if there was anything."""
    if is_empty(p):
        return 0
    pp = p_at(p)
    pp.wbuf1 = _exchange(pp.wbuf1)
    pp.wbuf2 = _exchange(pp.wbuf2)
    return 1


@inline
def _exchange(buffer: int) -> int:
    """An empty buffer for this one, which is published if it holds anything."""
    if wbuf_at(buffer).nobj == 0:
        return buffer
    empty = take_empty()
    if empty == 0:
        _drop(buffer)
        return buffer
    give_full(buffer)
    return empty


@kernel("void(int64)")
def balance(p: int) -> None:
    """Give away work when nobody else could find any: the second buffer, or half of the first."""
    pp = p_at(p)
    mine = wbuf_at(pp.wbuf1)
    if wbuf_at(pp.wbuf2).nobj == 0 and mine.nobj <= _HANDOFF:
        return
    empty = take_empty()
    if empty == 0:
        return
    if wbuf_at(pp.wbuf2).nobj > 0:
        give_full(pp.wbuf2)
        pp.wbuf2 = empty
        return
    theirs = wbuf_at(empty)
    keep = mine.nobj // 2
    for i in range(keep, mine.nobj):
        theirs.obj[i - keep] = mine.obj[i]
    theirs.nobj = mine.nobj - keep
    mine.nobj = keep
    give_full(empty)
