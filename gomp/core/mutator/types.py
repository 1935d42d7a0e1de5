"""The type table: for each type whose objects carry their type (structs above 512 bytes, arrays of references, large objects) one record
that never moves and never changes.

Open addressing by the type's key, a hash of its name and layout that every process computes alike. A record appears with one store, that of
its key, after everything else in it; so lookups take no lock. A process killed in between leaves mask words that nobody uses.

The table's own pages are committed when the runtime starts; those of the masks, among which the texts are, when they are first used.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.sched.locks import release, try_lock
from gomp.core.sched.status import OK, RETRY, enter, leave
from gomp.core.shm import layout
from gomp.core.shm.atomics import load64, load_acquire, store64, store_release
from gomp.core.shm.commit import commit_table
from gomp.core.shm.records import RT_XTABLE_LOCK, TYPE_BYTES, TYPE_TEXT, runtime, self_p, type_at

TABLE_FULL = -2
_MASK_BYTES = 4 << 20


@inline
def _probe(key: int) -> int:
    """Address of the record with this key, or of the free one where it belongs; 0 if the table is full."""
    idx = key % layout.MAX_TYPES
    for _ in range(layout.MAX_TYPES):
        addr = layout.TYPES_BASE + idx * TYPE_BYTES
        found = load_acquire(addr)  # pairs with publish_type
        if found == key or found == 0:
            return addr
        idx = (idx + 1) % layout.MAX_TYPES
    return 0


@kernel("int64(int64)")
def find_type(key: int) -> int:
    """Address of a type's record, or 0 if it is not registered. Any process, at any time."""
    addr = _probe(key)
    if addr == 0 or load_acquire(addr) != key:
        return 0
    return addr


@kernel("int64(int64)")
def reserve_mask(nwords: int) -> int:
    """Called from Python. Address of ``nwords`` committed words for a mask; TABLE_FULL; or RETRY."""
    if enter() != OK:
        return RETRY
    if not try_lock(RT_XTABLE_LOCK):
        leave()
        return RETRY
    addr = take_mask_words(nwords)
    release(RT_XTABLE_LOCK)
    leave()
    return addr


@inline
def take_mask_words(nwords: int) -> int:
    """Holds: the tables' lock. As :func:`reserve_mask`."""
    rt = runtime()
    begin = 8 * rt.mask_words
    end = begin + 8 * nwords
    if end > _MASK_BYTES:
        return TABLE_FULL
    committed = layout.align_up(begin, layout.TABLE_STEP)
    if end > committed:
        more = layout.align_up(end, layout.TABLE_STEP) - committed
        if commit_table(self_p().meta_fd, layout.TYPE_MASKS_BASE - layout.META_BASE + committed, more) != 0:
            return TABLE_FULL
    rt.mask_words += nwords
    return layout.TYPE_MASKS_BASE + begin


@kernel("void(int64, int64, int64)")
def set_mask_word(mask: int, i: int, word: int) -> None:
    """Fill a reserved mask that no record names yet: nobody else sees it."""
    store64(mask + 8 * i, word)


@kernel("void(int64, int64, int64)")
def describe_type(addr: int, text: int, nbytes: int) -> None:
    """Give the type at ``addr`` its text: reserved words, filled. What two processes write at once is the same at two addresses."""
    type_at(addr).text_bytes = nbytes
    store_release(addr + TYPE_TEXT, text)


@kernel("int64(int64, int64, int64, int64, int64)")
def publish_type(key: int, size: int, ptr_bytes: int, elem_size: int, mask: int) -> int:
    """Called from Python. Add a type; its record's address, the existing one if there is one; TABLE_FULL; or RETRY."""
    if enter() != OK:
        return RETRY
    if not try_lock(RT_XTABLE_LOCK):
        leave()
        return RETRY
    addr = _probe(key)
    if addr == 0:
        addr = TABLE_FULL
    elif load64(addr) == 0:  # under the lock: nobody adds
        t = type_at(addr)
        t.struct_bytes = size
        t.ptr_bytes = ptr_bytes
        t.elem_size = elem_size
        t.mask = mask
        runtime().ntypes += 1
        store_release(addr, key)  # pairs with _probe
    release(RT_XTABLE_LOCK)
    leave()
    return addr
