"""A hash map in the heap: keys are ints or bytes, values are references. Lookups and iteration take no lock.

One list, and a table of shortcuts into it (split-ordered: Shalev and Shavit, "Split-ordered lists", 2006; here with a lock for writers).

map       what a reference refers to. It is also the list's first node, before every entry.
entry     a node with a key and a value; its *order* is 62 bits of the key's seeded hash, the lowest of them 1.
sentinel  a node without a key: where a bucket begins. The order of bucket b of 2**k is b, moved to the top of the 62 bits; the lowest is 0.
table     an array of 2**k references to sentinels, or none; bucket b's entries lie between its sentinel and that of b + 1. A
          bucket whose word is 0 has no sentinel yet, and is looked for from the one whose number has one bit less.

The list is sorted by order, so entries never move: the map grows by a table twice as long, whose even buckets are the old ones. It is filled
aside, in slices, and published with one store; each insertion makes one sentinel that is missing. There is no pause that grows with the map.

What is always true
-------------------
* A node's order, key and type never change once it is in the list; its ``next`` and ``value`` do, under the map's lock.
* A node leaves the list by one store to its predecessor, and keeps its own ``next``. Who stands on it walks on, along what was the list when it
  left or later: so a walk meets every entry that is in the list all the time, once, in order.
* An entry that is removed gets the value 0 and never another. (An entry replaced by one with a value of another type keeps its own, and so do
  those that ``clear`` leaves: a walk that still meets them sees what was there before.)
* New entries stand before those of the same order: a walk does not meet them after their elders.

Memory order: an entry is whole, then ``fence_release``, then the store that publishes it; a reader's ``load_acquire`` of ``next`` pairs with it, and
that of the table with the store of :func:`publish_table_locked`. The references stored are shaded by the write barrier, as everywhere.

Locks: a table of words, chosen by the map's address, so that repair finds them. Under one there is no allocation, no wait and no poll; room in the
barrier's buffer is made before.

A kill: what changes together (the link, the count, the value of what is removed) is one redo record. A dead owner's lock is released after its
record was applied, with the world stopped: others wait for it meanwhile, with nothing in hand, and stop. Everything else is one store, or happens to
nodes that nobody sees; a sentinel in the list that no table knows is found again by whoever wants to make it.
"""

from __future__ import annotations

from gomp.core.gc.wbbuf import flush_own, record_write
from gomp.core.heap.sizeclass import SPAN_ELEM_SIZE, span_class_for
from gomp.core.jit import inline, kernel
from gomp.core.mutator.barrier import write_pointer
from gomp.core.mutator.malloc import new_small, new_typed
from gomp.core.mutator.types import find_type
from gomp.core.sched import redo
from gomp.core.shm import layout
from gomp.core.shm.atomics import ctz, fence_release, load64, load_acquire, load_relaxed, lsl, lsr, mul64, store64
from gomp.core.shm.records import GC_OFF, RT_XGCPHASE, WB_ENTRIES, self_p

# Offsets. The first two words are those of every node.
NEXT, ORDER, VALUE, TYPE, META, KEY = 0, 8, 16, 24, 32, 40  # of an entry: TYPE is the key of the value's type
TABLE, COUNT, SEED = 16, 24, 32  # of a map
MAP_BYTES, ENTRY_BYTES, SENTINEL_BYTES = 40, 48, 16  # of an entry: with a key of at most 8 bytes
MAP_MASK, ENTRY_MASK, SENTINEL_MASK = 0b101, 0b101, 0b1
SCAN_BYTES = 24  # up to the end of the last reference of a map or an entry

# What a key is: META is the kind, and the number of bytes above it.
INT_KEY, BYTES_KEY, STR_KEY = 0, 1, 2
KIND_BITS = 2
MAX_KEY_BYTES = 1 << 16

# Types of the type table: their keys are not hashes, and far above those of the tests' own.
ENTRY_TYPE, TABLE_TYPE = (1 << 61) + 1, (1 << 61) + 2

# What :func:`insert_locked` has done, and what is to be done next.
ADDED, SPLIT, GROW = 1, 2, 4

_ENTRY_CLASS = span_class_for(ENTRY_BYTES, True)
_ENTRY_SLOT = SPAN_ELEM_SIZE[_ENTRY_CLASS]
_ORDER_BITS = 62
_FIRST_TABLE = 16
_LINEAR = 8  # entries of a map without a table
_TABLE_HEADER = 8
_M1, _M2, _M3 = 0x1F8B_3A5D_96E7_C463, 0x5A3C_71E9_0D4B_F287, 0x3D96_B05F_E81C_274B


# --- hashes and orders ------------------------------------------------------------------------------------------------


@inline
def _mix(h: int) -> int:
    """Every bit of the result depends on every bit of ``h``, and no two of 64 bits have the same result."""
    h ^= lsr(h, 32)
    h = mul64(h, _M1)
    h ^= lsr(h, 29)
    h = mul64(h, _M2)
    return h ^ lsr(h, 32)


@inline
def _tail_mask(nbytes: int) -> int:
    """The bytes of the last word of a key that belong to it."""
    rest = nbytes & 7
    return -1 if rest == 0 else lsr(-1, 64 - 8 * rest)


@inline
def key_words(meta: int) -> int:
    """Words that a key takes in its entry."""
    return max(((meta >> KIND_BITS) + 7) >> 3, 1)


@inline
def order_of(m: int, meta: int, key: int) -> int:
    """The order of an entry with this key, an int or the address of its bytes. Those are read by whole words: the last may reach beyond."""
    seed = load64(m + SEED)
    if meta == INT_KEY:
        return lsr(_mix(key ^ seed), 2) | 1
    return _order_of_bytes(seed, meta, key)


@kernel("int64(int64, int64, int64)")
def _order_of_bytes(seed: int, meta: int, key: int) -> int:
    nbytes = meta >> KIND_BITS
    h = mul64(seed ^ meta, _M3)
    for at in range(0, nbytes, 8):
        word = load64(key + at)
        if nbytes - at < 8:
            word &= _tail_mask(nbytes)
        h = mul64(h ^ word ^ lsr(h, 31), _M1)
    return lsr(_mix(h), 2) | 1


@inline
def has_key(entry: int, meta: int, key: int) -> bool:
    if load64(entry + META) != meta:
        return False
    if meta == INT_KEY:
        return load64(entry + KEY) == key
    return _has_bytes(entry, meta >> KIND_BITS, key)


@kernel("int64(int64, int64, int64)")
def _compare_bytes(entry: int, nbytes: int, key: int) -> int:
    """1 if the entry's bytes, padded with zeros, are those at ``key``."""
    for at in range(0, nbytes, 8):
        word = load64(key + at)
        if nbytes - at < 8:
            word &= _tail_mask(nbytes)
        if load64(entry + KEY + at) != word:
            return 0
    return 1


@inline
def _has_bytes(entry: int, nbytes: int, key: int) -> bool:
    return _compare_bytes(entry, nbytes, key) == 1


@inline
def entry_key(entry: int) -> int:
    """An entry's key, as the functions here take it."""
    return load64(entry + KEY) if load64(entry + META) == INT_KEY else entry + KEY


# --- lookups ----------------------------------------------------------------------------------------------------------


@inline
def _bucket_of(order: int, table: int) -> int:
    return lsr(order, _ORDER_BITS - ctz(load64(table)))


@inline
def _word_of(table: int, bucket: int) -> int:
    return table + _TABLE_HEADER + 8 * bucket


@inline
def _start(m: int, order: int) -> int:
    """A node that stands before every entry of this order, and not far."""
    table = load_acquire(m + TABLE)
    if table == 0:
        return m
    bucket = _bucket_of(order, table)
    while bucket != 0:
        sentinel = load_acquire(_word_of(table, bucket))
        if sentinel != 0 and load64(sentinel + ORDER) < order:
            return sentinel
        bucket &= bucket - 1
    return m


@kernel("int64(int64, int64, int64)")
def find_entry(m: int, meta: int, key: int) -> int:
    """The entry with this key, or 0. In KERNEL; no lock."""
    order = order_of(m, meta, key)
    node = load_acquire(_start(m, order) + NEXT)
    while node != 0:
        found = load64(node + ORDER)
        if found >= order:
            if found > order:
                return 0
            if has_key(node, meta, key):
                return node
        node = load_acquire(node + NEXT)
    return 0


@kernel("int64(int64, int64, int64)")
def find_value(m: int, meta: int, key: int) -> int:
    """The value of this key, or 0. In KERNEL; no lock."""
    entry = find_entry(m, meta, key)
    return load_acquire(entry + VALUE) if entry != 0 else 0


@inline
def is_entry(node: int) -> bool:
    return load64(node + ORDER) & 1 == 1


# --- entries ----------------------------------------------------------------------------------------------------------


@kernel("int64(int64, int64, int64)")
def new_entry(meta: int, key: int, caller: int) -> int:
    """An entry without a value that nobody else sees; what malloc returns otherwise. Its order is found when it is inserted."""
    if key_words(meta) == 1:
        entry = new_small(_ENTRY_CLASS, _ENTRY_SLOT, _ENTRY_SLOT >> 3, ENTRY_MASK, SCAN_BYTES, caller)
    else:
        entry = new_typed(KEY + 8 * key_words(meta), find_type(ENTRY_TYPE), caller)
    if entry > 0:
        store64(entry + META, meta)
        if meta == INT_KEY:
            store64(entry + KEY, key)
        else:
            _copy_key(entry, meta >> KIND_BITS, key)
    return entry


@kernel("void(int64, int64, int64)")
def _copy_key(entry: int, nbytes: int, key: int) -> None:
    for at in range(0, nbytes, 8):
        word = load64(key + at)
        if nbytes - at < 8:
            word &= _tail_mask(nbytes)
        store64(entry + KEY + at, word)


# --- changes, under the map's lock --------------------------------------------------------------------------------------


@inline
def lock_of(m: int) -> int:
    """The lock of the map at ``m``, which others may share."""
    return layout.MAP_LOCKS_BASE + lsr(mul64(m, _M2), 64 - layout.MAP_LOCKS_SHIFT) * layout.MAP_LOCK_SIZE


@inline
def make_room() -> None:
    """Before a lock is taken: what is done under it finds room in the barrier's buffer."""
    if self_p().wb_n > WB_ENTRIES - 8:
        flush_own()


@inline
def _plan_pointer(i: int, slot: int, value: int) -> None:
    """As :func:`~gomp.core.sched.redo.plan`, with the write barrier."""
    if load_relaxed(RT_XGCPHASE) != GC_OFF:
        record_write(slot, value)
    redo.plan(i, slot, value)


@inline
def _find_before(m: int, order: int, meta: int, key: int) -> int:
    """The node before the entry with this key; if there is none, the one behind which it belongs."""
    before = _start(m, order)
    node = load_relaxed(before + NEXT)
    while node != 0 and load64(node + ORDER) < order:
        before = node
        node = load_relaxed(node + NEXT)
    last = before
    while node != 0 and load64(node + ORDER) == order:
        if has_key(node, meta, key):
            return last
        last = node
        node = load_relaxed(node + NEXT)
    return before


@inline
def _is_it(node: int, order: int, meta: int, key: int) -> bool:
    return node != 0 and load64(node + ORDER) == order and has_key(node, meta, key)


@kernel("int64(int64, int64, int64, int64, int64)")
def replace_locked(m: int, meta: int, key: int, value: int, type_key: int) -> int:
    """Give the key another value of the same type: 1, or 0 if it has no such entry."""
    order = order_of(m, meta, key)
    node = load_relaxed(_find_before(m, order, meta, key) + NEXT)
    if not _is_it(node, order, meta, key) or load64(node + TYPE) != type_key:
        return 0
    fence_release()  # what the caller has written to it before: pairs with the load of the value
    write_pointer(node + VALUE, value)
    return 1


@kernel("int64(int64, int64, int64)")
def insert_locked(m: int, entry: int, keep: int) -> int:
    """Add an entry, or give its value to the one that has its key; with ``keep`` that one keeps its own. ADDED, and what is to be done next."""
    meta, key = load64(entry + META), entry_key(entry)
    order = order_of(m, meta, key)
    before = _find_before(m, order, meta, key)
    node = load_relaxed(before + NEXT)
    if _is_it(node, order, meta, key):
        if keep == 0:
            _replace_entry(before, node, entry, order)
        return 0
    store64(entry + ORDER, order)
    write_pointer(entry + NEXT, node)
    fence_release()  # pairs with the loads of next
    count = load64(m + COUNT) + 1
    _plan_pointer(0, before + NEXT, entry)
    redo.plan(1, m + COUNT, count)
    redo.commit(2)
    return ADDED | _what_next(m, order, count)


@inline
def _replace_entry(before: int, old: int, entry: int, order: int) -> None:
    """A value of the same type is a store; one of another type is another entry, in the place of the old one."""
    if load64(old + TYPE) == load64(entry + TYPE):
        fence_release()
        write_pointer(old + VALUE, load_relaxed(entry + VALUE))
        return
    store64(entry + ORDER, order)
    write_pointer(entry + NEXT, load_relaxed(old + NEXT))
    fence_release()
    write_pointer(before + NEXT, entry)


@inline
def _sweep_bucket(table: int, count: int) -> int:
    """The odd bucket whose turn it is to get its sentinel: all of them have one long before the map grows again."""
    return (2 * count + 1) & (load64(table) - 1)


@inline
def _what_next(m: int, order: int, count: int) -> int:
    table = load_relaxed(m + TABLE)
    if table == 0:
        return GROW if count >= _LINEAR else 0
    n = load64(table)
    # Whoever meets the limit makes the new table; if it does not come to be, another does a little later.
    if count >= n and (count - n) % (n >> 2) == 0:
        return GROW
    if load_relaxed(_word_of(table, _bucket_of(order, table))) == 0 and _bucket_of(order, table) != 0:
        return SPLIT
    return SPLIT if load_relaxed(_word_of(table, _sweep_bucket(table, count))) == 0 else 0


@kernel("int64(int64, int64, int64)")
def remove_locked(m: int, meta: int, key: int) -> int:
    """Remove the entry with this key; its address, or 0 if there is none."""
    order = order_of(m, meta, key)
    before = _find_before(m, order, meta, key)
    node = load_relaxed(before + NEXT)
    if not _is_it(node, order, meta, key):
        return 0
    _plan_pointer(0, before + NEXT, load_relaxed(node + NEXT))
    _plan_pointer(1, node + VALUE, 0)
    redo.plan(2, m + COUNT, load64(m + COUNT) - 1)
    redo.commit(3)
    return node


@kernel("void(int64)")
def clear_locked(m: int) -> None:
    _plan_pointer(0, m + NEXT, 0)
    _plan_pointer(1, m + TABLE, 0)
    redo.plan(2, m + COUNT, 0)
    redo.commit(3)


# --- growth -----------------------------------------------------------------------------------------------------------


@kernel("void(int64, int64, int64)")
def split_locked(m: int, order: int, sentinel: int) -> None:
    """Make the new ``sentinel`` that of this order's bucket, or of the one whose turn it is, if that has none yet."""
    table = load_relaxed(m + TABLE)
    if table == 0:
        return
    bucket = _bucket_of(order, table)
    if bucket == 0 or load_relaxed(_word_of(table, bucket)) != 0:
        bucket = _sweep_bucket(table, load64(m + COUNT))
    if load_relaxed(_word_of(table, bucket)) != 0:
        return
    first = lsl(bucket, _ORDER_BITS - ctz(load64(table)))
    before = _start(m, first)
    node = load_relaxed(before + NEXT)
    while node != 0 and load64(node + ORDER) < first:
        before = node
        node = load_relaxed(node + NEXT)
    if node == 0 or load64(node + ORDER) != first:  # else it is there, and an older table knew it
        store64(sentinel + ORDER, first)
        write_pointer(sentinel + NEXT, node)
        fence_release()
        write_pointer(before + NEXT, sentinel)
        node = sentinel
    write_pointer(_word_of(table, bucket), node)


@inline
def next_length(m: int) -> int:
    """Buckets of the table that comes after the map's."""
    table = load_acquire(m + TABLE)
    return _FIRST_TABLE if table == 0 else 2 * load64(table)


@inline
def _is_next_table(m: int, new: int) -> bool:
    """Whether ``new`` was filled from what is the map's table now: word 0, which no bucket needs, says from which."""
    return load64(new) == next_length(m) and load_relaxed(_word_of(new, 0)) == load_acquire(m + TABLE)


@kernel("int64(int64, int64, int64, int64)")
def copy_buckets(m: int, new: int, first: int, n: int) -> int:
    """Give the new table the sentinels of ``n`` buckets of the old one from ``first``: where to go on, or -1 at the end. No lock: it is our own.

    What the old table gets meanwhile the new one lacks until somebody looks for it.
    """
    old = load_acquire(m + TABLE)
    if old == 0:
        return -1
    if first == 0:
        write_pointer(_word_of(new, 0), old)
    if not _is_next_table(m, new):
        return -1
    end = min(first + n, load64(old))
    for bucket in range(max(first, 1), end):
        write_pointer(_word_of(new, 2 * bucket), load_acquire(_word_of(old, bucket)))
    return -1 if end == load64(old) else end


@kernel("void(int64, int64)")
def publish_table_locked(m: int, new: int) -> None:
    """Make ``new`` the map's table, unless another one was faster, or the map was cleared."""
    if _is_next_table(m, new):
        write_pointer(_word_of(new, 0), 0)
        fence_release()  # pairs with _start
        write_pointer(m + TABLE, new)
