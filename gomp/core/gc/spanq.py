"""Span queues: small objects are scanned span by span and not one by one (Green Tea; mgcmark_greenteagc.go).

Who marks an object of a span of slots of 16 to 512 bytes puts the span into its P's queue, unless it is in one. The queue is first in, first
out, so that by the time the span's turn comes more of its objects are marked; all of them are scanned at once, in the order of
addresses, while their lines and their pointer bits are at hand.

``owned`` says that a span is in a queue: for the one object of its entry, or for many. The queue's owner clears it before it looks at the
marks, and who marks an object looks at it after it has set the mark. Both are store→load pairs and sequentially consistent, so one of the two
sees the other's. The scan bits, set by an atomic OR, decide who scans an object if two come to the same span.

A queue is a ring that doubles when it is full, up to MAX_SPANQ entries or as far as there is memory. Then it spills into work buffers, from
which everybody takes; so it does when its P stops marking.
"""

from __future__ import annotations

from gomp.core.gc import work
from gomp.core.heap.accounting import spanq_bytes
from gomp.core.heap.scavenge import make_room
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_relaxed, load64, load_seq_cst, or_acq_rel, store64
from gomp.core.shm.commit import fallocate_all
from gomp.core.shm.records import (
    MHEAP_XWBUF,
    OWNED_MANY,
    OWNED_ONE,
    WBUF_OBJECTS,
    p_at,
    self_p,
    wbuf_at,
)

_WORTH_SHARING = 8
_FIRST_CAPACITY = 512  # a page


@inline
def _cell(p: int, i: int) -> int:
    pp = p_at(p)
    return layout.spanq_addr(pp.idx) + 8 * (i & (pp.spanq_capacity - 1))


@inline
def length(p: int) -> int:
    return p_at(p).spanq_tail - p_at(p).spanq_head


@inline
def enqueue_many(p: int, page_base: int, idx: int) -> None:
    """Objects of this span were marked, ``idx`` among them, by the P at ``p``: have them scanned."""
    word = work.owned_word(page_base)
    if load_seq_cst(word) & OWNED_MANY:
        return
    if or_acq_rel(word, OWNED_MANY) & (OWNED_ONE | OWNED_MANY) == 0:
        _append(p, work.span_entry(page_base, idx))


@inline
def enqueue(p: int, page_base: int, idx: int) -> None:
    """An object of this span was marked, by the P at ``p``: have it scanned."""
    word = work.owned_word(page_base)
    owned = load_seq_cst(word) & (OWNED_ONE | OWNED_MANY)
    if owned & OWNED_MANY:
        return
    old = or_acq_rel(word, OWNED_MANY if owned else OWNED_ONE) & (OWNED_ONE | OWNED_MANY)
    if old != 0 and not owned:  # somebody has queued it for an object of his own meanwhile
        old = or_acq_rel(word, OWNED_MANY) & (OWNED_ONE | OWNED_MANY)
    if old == 0:
        _append(p, work.span_entry(page_base, idx))


@inline
def _append(p: int, entry: int) -> None:
    pp = p_at(p)
    if length(p) == pp.spanq_capacity and not _grow(p):
        if pp.spanq_capacity == 0:
            work.put(p, entry)
            return
        spill(p, pp.spanq_capacity // 2)
    store64(_cell(p, pp.spanq_tail), entry)
    pp.spanq_tail += 1


@kernel("int64(int64)")
def _grow(p: int) -> int:
    """Double the ring of the P at ``p``; 0 if it cannot be."""
    pp = p_at(p)
    old = pp.spanq_capacity
    new = max(2 * old, _FIRST_CAPACITY)
    ring = layout.spanq_addr(pp.idx)
    if new > layout.MAX_SPANQ:
        return 0
    make_room(spanq_bytes(new) - spanq_bytes(old))
    if fallocate_all(self_p().meta_fd, ring - layout.META_BASE + 8 * old, 8 * (new - old)) != 0:
        return 0
    add_relaxed(MHEAP_XWBUF, spanq_bytes(new) - spanq_bytes(old))
    for i in range(pp.spanq_head, pp.spanq_tail):
        if i & old:
            store64(ring + 8 * (i & (new - 1)), load64(ring + 8 * (i & (old - 1))))
    pp.spanq_capacity = new
    return 1


@inline
def take(p: int) -> int:
    """The entry that has waited longest in the queue of the P at ``p``, or 0."""
    pp = p_at(p)
    if pp.spanq_head == pp.spanq_tail:
        return 0
    entry = load64(_cell(p, pp.spanq_head))
    pp.spanq_head += 1
    return entry


@inline
def peek(p: int, ahead: int) -> int:
    """The entry that :func:`take` gives after ``ahead`` others, or 0."""
    pp = p_at(p)
    if pp.spanq_head + ahead >= pp.spanq_tail:
        return 0
    return load64(_cell(p, pp.spanq_head + ahead))


@kernel("void(int64, int64)")
def spill(p: int, n: int) -> None:
    """Move the first ``n`` entries to the P's work buffers."""
    for _ in range(n):
        work.put(p, take(p))


@kernel("void(int64)")
def share(p: int) -> None:
    """Give away work when nobody else could find any: half of the queue, or of the work buffers."""
    n = min(length(p) // 2, WBUF_OBJECTS)
    if n < _WORTH_SHARING:
        work.balance(p)
        return
    theirs = work.take_empty()
    if theirs == 0:
        return
    for i in range(n):
        wbuf_at(theirs).obj[i] = take(p)
    wbuf_at(theirs).nobj = n
    work.give_full(theirs)


@kernel("int64(int64)")
def dispose(p: int) -> int:
    """Make all entries of the P at ``p`` everybody's; 1 if there were any."""
    spill(p, length(p))
    return work.dispose(p)


@inline
def is_empty(p: int) -> bool:
    return length(p) == 0 and work.is_empty(p)
