"""sync.Pool: objects put aside for whoever needs one next, until collections take them.

Each pool has a record for each P: a private word, which only that P touches, and a ring of references, a heap array. Its P puts and takes at the
ring's head, the newest first; everybody else takes at the tail, the oldest first. At the stop that begins a cycle what is there becomes the
*victim*, and what was the victim is dropped: so what nobody uses dies at the second collection.

Taking is winning: a compare-and-swap to 0 of the ring's word, which only its P makes anything else. So no object is ever given to two. Head and tail
only say where to look: the head is the P's own, the tail may lag, or pass by what was put meanwhile; the P finds that again at its head, or never.
Kills: between any two lines an object is in the ring, or in nobody's hand and garbage.

The words of a record are roots, scanned by root jobs; changes of them, and of the rings, have the write barrier. The rotation happens before the
marking begins, with the world stopped, and needs none.

Records of one pool are committed together when it is declared, under the table lock; the head of a pool is whole before ``xnpools`` counts it.
"""

from __future__ import annotations

from gomp.core.gc.wbbuf import record_write
from gomp.core.heap import mspan
from gomp.core.jit import inline, kernel
from gomp.core.mutator.barrier import write_pointer
from gomp.core.mutator.boundary import NULL, fill_handle, load_handle, set_length
from gomp.core.mutator.malloc import PROGRAM, new_typed
from gomp.core.mutator.types import TABLE_FULL, find_type
from gomp.core.sched.locks import acquire, release, try_lock
from gomp.core.sched.status import OK, RETRY, enter, leave
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    cas_acq_rel,
    fence_release,
    load64,
    load_acquire,
    load_relaxed,
    store64,
    store_release,
)
from gomp.core.shm.commit import commit_table
from gomp.core.shm.records import (
    GC_OFF,
    POOL_DROPS,
    POOL_HEAD,
    POOL_HITS,
    POOL_MISSES,
    POOL_NAME,
    POOL_PRIVATE,
    POOL_RING,
    POOL_STEALS,
    POOL_TAIL,
    POOL_VICTIM_HEAD,
    POOL_VICTIM_HITS,
    POOL_VICTIM_PRIVATE,
    POOL_VICTIM_RING,
    POOL_VICTIM_TAIL,
    RT_XGCPHASE,
    RT_XNPOOLS,
    RT_XTABLE_LOCK,
    nrecords,
    pool_head_at,
    self_p,
    spans,
)

FULL, OTHER_TYPE = 2, -3
FIRST_RING, LARGEST_RING = 8, 1 << 16
RING_TYPE = (1 << 61) + 2  # as the tables of maps: an array of references
_HEADER = 8


# --- records ----------------------------------------------------------------------------------------------------------


@inline
def record_of(pool: int, p_idx: int) -> int:
    return layout.POOLS_BASE + pool * layout.POOL_BYTES + p_idx * layout.POOL_RECORD


@inline
def _mine(pool: int) -> int:
    return record_of(pool, self_p().idx)


@inline
def head_of(pool: int) -> int:
    return layout.POOL_HEADS_BASE + pool * layout.POOL_HEAD_BYTES


@inline
def _count(word: int) -> None:
    store64(word, load64(word) + 1)


@inline
def _is_pool(pool: int, w0: int, w1: int, w2: int, w3: int) -> bool:
    name = head_of(pool) + POOL_NAME
    if load64(name) != w0 or load64(name + 8) != w1:
        return False
    return load64(name + 16) == w2 and load64(name + 24) == w3


@inline
def _find_or_add_locked(w0: int, w1: int, w2: int, w3: int, type_key: int, max_bytes: int) -> int:
    n = load_relaxed(RT_XNPOOLS)
    for pool in range(n):
        if _is_pool(pool, w0, w1, w2, w3):
            return pool if pool_head_at(head_of(pool)).type_key == type_key else OTHER_TYPE
    if n == layout.MAX_POOLS:
        return TABLE_FULL
    at = record_of(n, 0) - layout.META_BASE
    if commit_table(self_p().meta_fd, at, layout.POOL_BYTES) != 0:
        return TABLE_FULL
    name = head_of(n) + POOL_NAME
    store64(name, w0)
    store64(name + 8, w1)
    store64(name + 16, w2)
    store64(name + 24, w3)
    pool_head_at(head_of(n)).type_key = type_key
    pool_head_at(head_of(n)).max_bytes = max_bytes
    store_release(RT_XNPOOLS, n + 1)  # pairs with read_pools, and with whoever scans them
    return n


@kernel("int64(int64, int64, int64, int64, int64, int64)")
def bind_pool(w0: int, w1: int, w2: int, w3: int, type_key: int, max_bytes: int) -> int:
    """Called from Python. The pool with this name (32 bytes), made if it is new: its number, TABLE_FULL, OTHER_TYPE, or RETRY."""
    if enter() != OK:
        return RETRY
    if not try_lock(RT_XTABLE_LOCK):
        leave()
        return RETRY
    pool = _find_or_add_locked(w0, w1, w2, w3, type_key, max_bytes)
    release(RT_XTABLE_LOCK)
    leave()
    return pool


@kernel("int64(int64, int64, int64, int64, int64, int64)")
def bind_pool_waiting(w0: int, w1: int, w2: int, w3: int, type_key: int, max_bytes: int) -> int:
    """As :func:`bind_pool`, in a compiled program."""
    acquire(RT_XTABLE_LOCK)
    pool = _find_or_add_locked(w0, w1, w2, w3, type_key, max_bytes)
    release(RT_XTABLE_LOCK)
    return pool


# --- rings ------------------------------------------------------------------------------------------------------------


@inline
def _cell(ring: int, i: int) -> int:
    return ring + _HEADER + 8 * (i & (load64(ring) - 1))


@inline
def _try_take(cell: int, value: int) -> bool:
    """Be the one who gets ``value`` out of a ring. The barrier shades it first: nobody stops in between."""
    if load_relaxed(RT_XGCPHASE) != GC_OFF:
        record_write(cell, value)
    return cas_acq_rel(cell, value, 0)


@kernel("int64(int64)")
def _pop_head(record: int) -> int:
    """The newest of this P's own ring, or 0."""
    ring = load_relaxed(record + POOL_RING)
    if ring == 0:
        return 0
    newest = load_relaxed(record + POOL_HEAD) - 1
    cell = _cell(ring, newest)
    value = load_acquire(cell)
    if value == 0 or not _try_take(cell, value):
        return 0
    store_release(record + POOL_HEAD, newest)
    return value


@kernel("int64(int64, int64, int64)")
def _pop_tail(ring_word: int, head_word: int, tail_word: int) -> int:
    """The oldest of a ring, anybody's, or 0."""
    ring = load_acquire(ring_word)
    if ring == 0:
        return 0
    head, tail = load_acquire(head_word), load_relaxed(tail_word)
    for i in range(max(tail, head - load64(ring)), head):
        cell = _cell(ring, i)
        value = load_acquire(cell)
        if value != 0 and _try_take(cell, value):
            cas_acq_rel(tail_word, tail, i + 1)
            return value
    return 0


@inline
def _push(record: int, value: int) -> int:
    """Put into this P's own ring: OK, or FULL."""
    ring = load_relaxed(record + POOL_RING)
    if ring == 0:
        return FULL
    head = load_relaxed(record + POOL_HEAD)
    if load_relaxed(record + POOL_TAIL) > head:  # somebody passed by what was taken meanwhile
        store_release(record + POOL_TAIL, head)
    cell = _cell(ring, head)
    if load_acquire(cell) != 0:
        return FULL
    fence_release()  # what its P has written to it before: pairs with _pop_tail
    write_pointer(cell, value)
    store_release(record + POOL_HEAD, head + 1)
    return OK


@inline
def _ring_length(record: int) -> int:
    """Of the ring that comes after this P's own; 0: none does."""
    ring = load_relaxed(record + POOL_RING)
    if ring == 0:
        return FIRST_RING
    n = 2 * load64(ring)
    return n if n <= LARGEST_RING else 0


@kernel("void(int64, int64)")
def _move_to(record: int, new: int) -> None:
    """Make ``new`` this P's ring, with what is in the old one, from the oldest on."""
    old, n = load_relaxed(record + POOL_RING), 0
    if old != 0:
        if load64(new) <= load64(old):  # made for a ring that is gone since
            return
        head = load_relaxed(record + POOL_HEAD)
        for i in range(head, head + load64(old)):
            value = load_acquire(_cell(old, i))
            if value != 0 and _try_take(_cell(old, i), value):
                write_pointer(_cell(new, n), value)
                n += 1
    fence_release()
    write_pointer(record + POOL_RING, new)
    store_release(record + POOL_TAIL, 0)
    store_release(record + POOL_HEAD, n)


# --- get and put ------------------------------------------------------------------------------------------------------


@inline
def take(pool: int) -> int:
    """In KERNEL: an object from the pool, or 0."""
    record = _mine(pool)
    value = load_relaxed(record + POOL_PRIVATE)
    if value == 0:
        return take_slow(pool)
    write_pointer(record + POOL_PRIVATE, 0)
    _count(record + POOL_HITS)
    return value


@kernel("int64(int64)")
def take_slow(pool: int) -> int:
    """Own ring, others' rings, the victims: in Go's order. Or 0."""
    record, me, n = _mine(pool), self_p().idx, nrecords()
    value = _pop_head(record)
    if value != 0:
        _count(record + POOL_HITS)
        return value
    for i in range(n):
        other = record_of(pool, (me + i + 1) % n)
        value = _pop_tail(other + POOL_RING, other + POOL_HEAD, other + POOL_TAIL)
        if value != 0:
            _count(record + POOL_HITS)
            if other != record:
                _count(record + POOL_STEALS)
            return value
    value = _take_victim(pool, record, me, n)
    _count(record + (POOL_MISSES if value == 0 else POOL_HITS))
    return value


@inline
def _take_victim(pool: int, record: int, me: int, n: int) -> int:
    value = load_relaxed(record + POOL_VICTIM_PRIVATE)
    if value != 0:
        write_pointer(record + POOL_VICTIM_PRIVATE, 0)
    for i in range(n):
        if value != 0:
            break
        other = record_of(pool, (me + i) % n)
        value = _pop_tail(other + POOL_VICTIM_RING, other + POOL_VICTIM_HEAD, other + POOL_VICTIM_TAIL)
    if value != 0:
        _count(record + POOL_VICTIM_HITS)
    return value


@inline
def _is_oversized(pool: int, value: int) -> bool:
    """In KERNEL: a repair forgets for a while where spans are."""
    most = pool_head_at(head_of(pool)).max_bytes
    return most != 0 and spans()[mspan.span_of(value)].elem_size > most


@inline
def give(pool: int, value: int) -> None:
    """In a compiled program: put an object into the pool; nothing for 0."""
    record = _mine(pool)
    if value != 0 and load_relaxed(record + POOL_PRIVATE) == 0 and pool_head_at(head_of(pool)).max_bytes == 0:
        write_pointer(record + POOL_PRIVATE, value)
    elif value != 0:
        _give_slow(pool, value)


@kernel("int64(int64, int64)")
def _try_give(pool: int, value: int) -> int:
    """OK, FULL if the ring is, or NULL: it was dropped."""
    record = _mine(pool)
    if _is_oversized(pool, value):
        _count(record + POOL_DROPS)
        return NULL
    if load_relaxed(record + POOL_PRIVATE) == 0:
        write_pointer(record + POOL_PRIVATE, value)
        return OK
    if _push(record, value) == OK:
        return OK
    if _ring_length(record) == 0:
        _count(record + POOL_DROPS)
        return NULL
    return FULL


@kernel("void(int64, int64)")
def _give_slow(pool: int, value: int) -> None:
    if _try_give(pool, value) != FULL:
        return
    n = _ring_length(_mine(pool))
    ring = new_typed(_HEADER + 8 * n, find_type(RING_TYPE), PROGRAM)
    if ring == 0:
        _count(_mine(pool) + POOL_DROPS)
        return
    set_length(ring, n)  # and meanwhile a collection may have taken the old one
    _move_to(_mine(pool), ring)
    _try_give(pool, value)


@kernel("int64(int64, int64)")
def pool_get(pool: int, into: int) -> int:
    """Called from Python. Root an object of the pool in the empty slot ``into``: OK, NULL or RETRY."""
    if enter() != OK:
        return RETRY
    status = fill_handle(into, take(pool))
    leave()
    return status


@kernel("int64(int64, int64)")
def pool_put(pool: int, slot: int) -> int:
    """Called from Python. Put what is in the slot: OK, NULL if it was dropped, ``n > 2`` if a ring of n is needed first, or RETRY."""
    if enter() != OK:
        return RETRY
    status = _try_give(pool, load_handle(slot))
    if status == FULL:
        status = _ring_length(_mine(pool))
    leave()
    return status


@kernel("int64(int64, int64)")
def pool_grow(pool: int, ring: int) -> int:
    """Called from Python. Make what is in the slot this P's ring: OK or RETRY."""
    if enter() != OK:
        return RETRY
    _move_to(_mine(pool), load_handle(ring))
    leave()
    return OK


@kernel("int64(int64)")
def pool_drop(pool: int) -> int:
    """Called from Python. Count an object that was dropped because there is no memory for a larger ring: OK or RETRY."""
    if enter() != OK:
        return RETRY
    _count(_mine(pool) + POOL_DROPS)
    leave()
    return OK
