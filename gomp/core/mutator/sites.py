"""Places in programs at which goroutines are started, by number: the same in every process.

A place is known by a hash of its text, the function's name, the file and the line, which compiled code has as a constant. The table is as that of
types (:mod:`~gomp.core.mutator.types`): found by open addressing, and a record appears with one store, that of its key. A process killed in
between leaves words of a text that nobody uses. Whoever finds no room goes on without a number, and nothing else changes.

Frames are places too: by the keys of their types, with the line at which their step begins. And labels of goroutines are in the same table.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.mutator.types import take_mask_words
from gomp.core.sched.locks import acquire, release, try_lock
from gomp.core.sched.status import OK, RETRY, enter, leave
from gomp.core.shm import layout
from gomp.core.shm.atomics import copy_range, load_acquire, store_release
from gomp.core.shm.records import FRAME_INTO, FRAME_LINE, RT_XTABLE_LOCK, self_p, site_at

NO_SITE = 0
LINE_SHIFT = 8 * (FRAME_LINE - FRAME_INTO)  # of a frame's word with both


@inline
def site_addr(site: int) -> int:
    """Address of the record of place number ``site``, 1 or more."""
    return layout.SITES_BASE + (site - 1) * layout.SITE_RECORD


@inline
def _probe(key: int) -> int:
    """Number of the place with this key, or negated, of the free record where it belongs; NO_SITE if the table is full."""
    idx = key % layout.MAX_SITES
    for _ in range(layout.MAX_SITES):
        found = load_acquire(site_addr(idx + 1))  # pairs with _publish_locked
        if found == key:
            return idx + 1
        if found == 0:
            return -1 - idx
        idx = (idx + 1) % layout.MAX_SITES
    return NO_SITE


@kernel("int64(int64)")
def find_site(key: int) -> int:
    """Number of a place, NO_SITE if it is not in the table. Any process, at any time."""
    return max(_probe(key), NO_SITE)


@inline
def _publish_locked(key: int, text: int, nbytes: int) -> int:
    """Holds: the tables' lock. The number of the place, which has the text at ``text``; NO_SITE if there is no room."""
    at = _probe(key)
    if at >= 0:
        return at
    record = site_addr(-at)
    site_at(record).text = text
    site_at(record).text_bytes = nbytes
    store_release(record, key)  # pairs with _probe
    return -at


@kernel("int64(int64, int64, int64)")
def publish_site(key: int, text: int, nbytes: int) -> int:
    """Called from Python. Add a place whose text is in words of the masks: its number, NO_SITE, or RETRY."""
    if enter() != OK:
        return RETRY
    if not try_lock(RT_XTABLE_LOCK):
        leave()
        return RETRY
    site = _publish_locked(key, text, nbytes)
    release(RT_XTABLE_LOCK)
    leave()
    return site


@kernel("int64(int64, int64, int64)")
def add_site(key: int, text: int, nbytes: int) -> int:
    """In KERNEL, with nothing in hand. Number of the place whose text is at ``text`` in this process, now in the table; NO_SITE."""
    site = find_site(key)
    if site != NO_SITE:
        return site
    acquire(RT_XTABLE_LOCK)
    words = take_mask_words((nbytes + 7) >> 3)
    if words >= 0:
        copy_range(words, text, nbytes)
        site = _publish_locked(key, words, nbytes)
    release(RT_XTABLE_LOCK)
    return site


@inline
def note_site(key: int, text: int, nbytes: int) -> None:
    """In compiled code: what follows here begins at the place of that key, which is a constant."""
    first = key % layout.MAX_SITES + 1
    self_p().call_site = first if load_acquire(site_addr(first)) == key else add_site(key, text, nbytes)
    self_p().call_labels = NO_SITE


@inline
def note_known_site(site: int, labels: int) -> None:
    self_p().call_site = site
    self_p().call_labels = labels
