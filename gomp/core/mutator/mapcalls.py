"""Hash maps as they are called: from Python by slot numbers, from compiled programs by addresses.

From Python a change takes several calls, of which each may be refused with RETRY and none waits: try to replace; make the entry, into a slot;
insert it; make the sentinel or the table that the insertion asks for. A key crosses as its META word and an int, or the address of bytes of this
process, which are read inside the call only.

In a program it is one call, which waits: for collections, for the lock, and at polls between slices of a new table.
"""

from __future__ import annotations

from gomp.core.heap.sizeclass import SPAN_ELEM_SIZE, span_class_for
from gomp.core.jit import inline, kernel
from gomp.core.mutator.barrier import write_pointer
from gomp.core.mutator.boundary import OUT_OF_MEMORY, fill_handle, finish_new, load_handle, set_length
from gomp.core.mutator.hashmap import (
    ADDED,
    COUNT,
    GROW,
    MAP_BYTES,
    MAP_MASK,
    META,
    NEXT,
    SCAN_BYTES,
    SEED,
    SENTINEL_BYTES,
    SENTINEL_MASK,
    SPLIT,
    TABLE_TYPE,
    TYPE,
    VALUE,
    clear_locked,
    copy_buckets,
    entry_key,
    find_entry,
    insert_locked,
    is_entry,
    lock_of,
    make_room,
    new_entry,
    next_length,
    order_of,
    publish_table_locked,
    remove_locked,
    replace_locked,
    split_locked,
)
from gomp.core.mutator.malloc import PROGRAM, PYTHON, PYTHON_AGAIN, new_small, new_typed
from gomp.core.mutator.poll import poll_slow
from gomp.core.mutator.types import find_type
from gomp.core.sched.locks import acquire, release, try_lock
from gomp.core.sched.status import OK, RETRY, enter, leave, stop_requested
from gomp.core.shm.atomics import cpu_pause, fence_release, load64, load_acquire, load_relaxed, mul64, store64
from gomp.core.shm.libc import nanotime, sched_yield
from gomp.core.shm.records import RT_XCYCLES, self_p

ABSENT = 0
WALK_ON = -4  # a walk has met no entry for a while: call again
COPIED = -2  # the new table is full
_MAP_CLASS = span_class_for(MAP_BYTES, True)
_MAP_SLOT = SPAN_ELEM_SIZE[_MAP_CLASS]
_SENTINEL_CLASS = span_class_for(SENTINEL_BYTES, True)
_SENTINEL_SLOT = SPAN_ELEM_SIZE[_SENTINEL_CLASS]
_WALK = 1000  # nodes at a time
_COPY = 8192  # buckets at a time: some tens of microseconds
_TRIES = 200
_YIELD_AFTER = 100


# --- from Python ------------------------------------------------------------------------------------------------------


@inline
def try_lock_map(m: int) -> bool:
    """Take the lock of the map or channel at ``m``, if its holder lets go of it soon. No kernel that Python calls waits."""
    make_room()
    for tries in range(_TRIES):
        if try_lock(lock_of(m)):
            return True
        if stop_requested():
            return False
        if tries < _YIELD_AFTER:
            cpu_pause()
        else:
            sched_yield()  # the holder may need our processor
    return False


@inline
def _begin(slot: int) -> int:
    """Enter, with the lock of the map in handle ``slot``: its address, or 0 if either cannot be had now."""
    if enter() != OK:
        return 0
    m = load_handle(slot)
    if not try_lock_map(m):
        leave()
        return 0
    return m


@inline
def _end(m: int) -> None:
    release(lock_of(m))
    leave()


@kernel("int64(int64, int64, int64, int64)")
def map_get(slot: int, meta: int, key: int, into: int) -> int:
    """Root the key's value in the empty slot ``into``: the key of its type, ABSENT, or RETRY."""
    if enter() != OK:
        return RETRY
    found = ABSENT
    entry = find_entry(load_handle(slot), meta, key)
    if entry != 0:
        value = load_acquire(entry + VALUE)
        if value != 0:
            fill_handle(into, value)
            found = load64(entry + TYPE)
    leave()
    return found


@kernel("int64(int64, int64, int64)")
def map_has(slot: int, meta: int, key: int) -> int:
    """1, ABSENT or RETRY."""
    if enter() != OK:
        return RETRY
    entry = find_entry(load_handle(slot), meta, key)
    found = 1 if entry != 0 and load_acquire(entry + VALUE) != 0 else ABSENT
    leave()
    return found


@kernel("int64(int64, int64, int64, int64, int64)")
def map_replace(slot: int, meta: int, key: int, value: int, type_key: int) -> int:
    """Give a key that is there the value in slot ``value``: 1; ABSENT if it is not, or its value of another type; or RETRY."""
    m = _begin(slot)
    if m == 0:
        return RETRY
    done = replace_locked(m, meta, key, load_handle(value), type_key)
    _end(m)
    return done


@kernel("int64(int64, int64, int64, int64, int64, int64)")
def map_new_entry(into: int, meta: int, key: int, value: int, type_key: int, again: int) -> int:
    """An entry that no map has yet, into an empty slot: the outcomes of an allocation."""
    if enter() != OK:
        return RETRY
    begun = load_relaxed(RT_XCYCLES)
    entry = new_entry(meta, key, PYTHON_AGAIN if again else PYTHON)
    if entry > 0:
        write_pointer(entry + VALUE, load_handle(value))
        store64(entry + TYPE, type_key)
    return finish_new(entry, into, begun)


@kernel("int64(int64, int64, int64)")
def map_insert(slot: int, entry: int, keep: int) -> int:
    """Insert the entry in slot ``entry``; with ``keep`` only if its key is not there. ADDED, SPLIT, GROW as they apply, or RETRY."""
    m = _begin(slot)
    if m == 0:
        return RETRY
    done = insert_locked(m, load_handle(entry), keep)
    _end(m)
    return done


@kernel("int64(int64, int64, int64)")
def map_split(slot: int, entry: int, sentinel: int) -> int:
    """After SPLIT: make the node in slot ``sentinel`` where a bucket begins, that of the entry or another one: OK or RETRY."""
    m = _begin(slot)
    if m == 0:
        return RETRY
    e = load_handle(entry)
    split_locked(m, order_of(m, load64(e + META), entry_key(e)), load_handle(sentinel))
    _end(m)
    return OK


@kernel("int64(int64)")
def map_next_length(slot: int) -> int:
    """After GROW: how long the new table is to be; or RETRY."""
    if enter() != OK:
        return RETRY
    n = next_length(load_handle(slot))
    leave()
    return n


@kernel("int64(int64, int64, int64)")
def map_copy(slot: int, table: int, first: int) -> int:
    """Fill a part of the new table in slot ``table``: where to go on, COPIED, or RETRY."""
    if enter() != OK:
        return RETRY
    after = copy_buckets(load_handle(slot), load_handle(table), first, _COPY)
    leave()
    return COPIED if after < 0 else after


@kernel("int64(int64, int64)")
def map_set_table(slot: int, table: int) -> int:
    """Give the map its new table, if nobody else has given it one: OK or RETRY."""
    m = _begin(slot)
    if m == 0:
        return RETRY
    publish_table_locked(m, load_handle(table))
    _end(m)
    return OK


@kernel("int64(int64, int64, int64, int64)")
def map_remove(slot: int, meta: int, key: int, into: int) -> int:
    """Remove a key and root what was its value in the empty slot ``into``: the key of its type, ABSENT, or RETRY."""
    m = _begin(slot)
    if m == 0:
        return RETRY
    found = ABSENT
    entry = find_entry(m, meta, key)
    if entry != 0:  # and nobody else removes it now
        found = load64(entry + TYPE)
        fill_handle(into, load_relaxed(entry + VALUE))
        remove_locked(m, meta, key)
    _end(m)
    return found


@kernel("int64(int64)")
def map_clear(slot: int) -> int:
    """Remove every key: OK or RETRY."""
    m = _begin(slot)
    if m == 0:
        return RETRY
    clear_locked(m)
    _end(m)
    return OK


@kernel("int64(int64, int64)")
def map_begin(slot: int, cursor: int) -> int:
    """Begin a walk: the empty slot ``cursor`` stands on the map itself. OK or RETRY."""
    if enter() != OK:
        return RETRY
    fill_handle(cursor, load_handle(slot))
    leave()
    return OK


@kernel("int64(int64, int64)")
def map_next(cursor: int, into: int) -> int:
    """Move a walk to the next entry: slot ``cursor`` holds the map or the node where it stands; root the value in the empty slot ``into``.

    The key of the value's type; ABSENT at the end; WALK_ON; or RETRY.
    """
    if enter() != OK:
        return RETRY
    node, found = load_handle(cursor), WALK_ON
    for _ in range(_WALK):
        after = load_acquire(node + NEXT)
        if after == 0:
            found = ABSENT
            break
        node = after
        value = load_acquire(node + VALUE) if is_entry(node) else 0
        if value != 0:
            fill_handle(into, value)
            found = load64(node + TYPE)
            break
    fill_handle(cursor, node)
    leave()
    return found


# --- from compiled programs -------------------------------------------------------------------------------------------


@inline
def _lock_waiting(m: int) -> None:
    make_room()
    acquire(lock_of(m))


@kernel("int64()")
def new_map() -> int:
    """An empty map, or 0 if there is no memory."""
    m = new_small(_MAP_CLASS, _MAP_SLOT, _MAP_SLOT >> 3, MAP_MASK, SCAN_BYTES, PROGRAM)
    if m != 0:
        store64(m + SEED, mul64(nanotime() ^ m, (self_p().idx << 1) | 1))
        fence_release()  # before a program can publish the map: who finds it takes its hashes from this
    return m


@inline
def map_len(m: int) -> int:
    return load_relaxed(m + COUNT)


@kernel("int64(int64, int64, int64, int64, int64, int64)")
def put_waiting(m: int, meta: int, key: int, value: int, type_key: int, keep: int) -> int:
    """Give a key a value; with ``keep`` only if it is not there. ADDED if it was not, else OK; or OUT_OF_MEMORY."""
    if keep == 0:
        _lock_waiting(m)
        done = replace_locked(m, meta, key, value, type_key)
        release(lock_of(m))
        if done:
            return OK
    entry = new_entry(meta, key, PROGRAM)
    if entry == 0:
        return OUT_OF_MEMORY
    write_pointer(entry + VALUE, value)
    store64(entry + TYPE, type_key)
    _lock_waiting(m)
    done = insert_locked(m, entry, keep)
    release(lock_of(m))
    if done & GROW:
        _grow_waiting(m)
    elif done & SPLIT:
        _split_waiting(m, entry)
    return done & ADDED


@kernel("void(int64, int64)")
def _split_waiting(m: int, entry: int) -> None:
    """Without memory the bucket stays as it is, and is looked for from another one."""
    sentinel = new_small(_SENTINEL_CLASS, _SENTINEL_SLOT, _SENTINEL_SLOT >> 3, SENTINEL_MASK, 8, PROGRAM)
    if sentinel != 0:
        _lock_waiting(m)
        split_locked(m, order_of(m, load64(entry + META), entry_key(entry)), sentinel)
        release(lock_of(m))


@kernel("void(int64)")
def _grow_waiting(m: int) -> None:
    n = next_length(m)
    table = new_typed(8 + 8 * n, find_type(TABLE_TYPE), PROGRAM)
    if table == 0:
        return
    set_length(table, n)
    at = copy_buckets(m, table, 0, _COPY)
    while at >= 0:
        poll_slow()
        at = copy_buckets(m, table, at, _COPY)
    _lock_waiting(m)
    publish_table_locked(m, table)
    release(lock_of(m))


@kernel("int64(int64, int64, int64)")
def remove_waiting(m: int, meta: int, key: int) -> int:
    """Remove a key; what was its value, or ABSENT."""
    _lock_waiting(m)
    entry, value = find_entry(m, meta, key), ABSENT
    if entry != 0:  # and nobody else removes it now
        value = load_relaxed(entry + VALUE)
        remove_locked(m, meta, key)
    release(lock_of(m))
    return value


@kernel("void(int64)")
def clear_waiting(m: int) -> None:
    _lock_waiting(m)
    clear_locked(m)
    release(lock_of(m))
