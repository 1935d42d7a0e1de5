"""The page cache of a P: small spans without the heap lock. Go's pageCache.

A cache is a block of 64 pages, aligned to 64: ``cache_page`` is its first page, ``cache_free`` has bit k set if page ``cache_page + k`` is
free *for this P*, ``cache_scav`` those of the free ones that are scavenged. To the heap all of them are taken and not scavenged, so
nobody else sees them, the scavenger included. The masks are 0: the cache is empty.

1. Filling takes every free page of the block that holds the lowest free page of the heap.
2. Requests below PAGE_CACHE_LIMIT pages are served from it, lowest run first; what does not fit goes to the heap.
3. Whoever commits pages from it may commit some above them with the same system call: they are not scavenged any more, but still zero, which
   ``cache_zero`` says.
4. Flushing gives what is left back, each page scavenged or not as it is; of what is zero beside those nobody knows any more.

Between the heap and the cache a page is nobody's for a moment; so a P that is killed leaves none that two have (see
:mod:`~gomp.core.heap.palloc`). ``cache_scav`` and ``cache_zero`` count only where ``cache_free`` is set.

The functions take the address of the P's record: the owner's, or that of a P somebody has claimed. A record is reached through its
address or through the process's own alias, never both in one kernel (see :mod:`~gomp.core.shm.layout`).
"""

from __future__ import annotations

from gomp.core.heap.lazyscav import remember_lazy_locked
from gomp.core.heap.palloc import CHUNK_WORDS, find_pages_locked, starts_of_runs, update_summaries_locked
from gomp.core.heap.scavindex import gave_to_chunk_locked, took_of_chunk_locked
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import clz, ctz, fence_release, lsl, lsr, popcount
from gomp.core.shm.records import chunks, mheap, p_at, runtime

PAGE_CACHE_PAGES = 64
PAGE_CACHE_LIMIT = PAGE_CACHE_PAGES // 4  # requests of so many pages and more bypass the cache


@kernel("int64(int64)")
def fill_cache_locked(p_addr: int) -> int:
    """Holds: mheap.lock. Fill the P's empty cache; returns its number of pages: 0 if the heap has no free page."""
    page = find_pages_locked(1)
    if page < 0:
        return 0
    h, p = mheap(), p_at(p_addr)
    word_idx = page // PAGE_CACHE_PAGES
    chunk = chunks()[word_idx // CHUNK_WORDS]
    i = word_idx % CHUNK_WORDS
    free, scav = ~chunk.alloc[i], chunk.scav[i]
    chunk.alloc[i] = -1
    fence_release()
    chunk.scav[i] = 0
    p.cache_page = word_idx * PAGE_CACHE_PAGES
    p.cache_zero = 0
    p.cache_scav = scav & free
    fence_release()
    p.cache_free = free
    h.search_page = (word_idx + 1) * PAGE_CACHE_PAGES
    took_of_chunk_locked(page >> layout.CHUNK_SHIFT, popcount(free))
    update_summaries_locked(page >> layout.CHUNK_SHIFT, page >> layout.CHUNK_SHIFT)
    return popcount(p.cache_free)


@inline
def alloc_cached(p_addr: int, npages: int) -> tuple[int, int, int]:
    """The lowest run of ``0 < npages < PAGE_CACHE_LIMIT`` pages in the P's cache: (first page, how many are scavenged, and how many committed and
    zero), or (-1, 0, 0)."""
    p = p_at(p_addr)
    starts = starts_of_runs(p.cache_free, npages)
    if starts == 0:
        return -1, 0, 0
    low = ctz(starts)
    bits = lsl(lsr(-1, 64 - npages), low)
    nscav, nzero = popcount(p.cache_scav & bits), popcount(p.cache_zero & bits)
    p.cache_free &= ~bits
    fence_release()
    p.cache_scav &= ~bits
    p.cache_zero &= ~bits
    return p.cache_page + low, nscav, nzero


@inline
def count_scavenged_above(p_addr: int, page: int, most: int) -> int:
    """Of the pages above ``page``, how many in a row the P's cache has that are scavenged, up to ``most``."""
    p = p_at(p_addr)
    first = page + 1 - p.cache_page
    if not 0 < first < PAGE_CACHE_PAGES:
        return 0
    return min(ctz(~lsr(p.cache_free & p.cache_scav, first)), most)


@inline
def note_committed(p_addr: int, page: int, npages: int) -> None:
    """So many pages of the P's cache have been committed."""
    p = p_at(p_addr)
    bits = lsl(lsr(-1, 64 - npages), page - p.cache_page)
    p.cache_scav &= ~bits
    p.cache_zero |= bits


@kernel("int64(int64)")
def flush_cache_locked(p_addr: int) -> int:
    """Holds: mheap.lock. Give the pages in the P's cache back to the heap; returns their number."""
    h, p = mheap(), p_at(p_addr)
    free, scav = p.cache_free, p.cache_scav
    if free == 0:
        return 0
    p.cache_free = 0
    p.cache_scav = 0
    p.cache_zero = 0
    fence_release()
    word_idx = p.cache_page // PAGE_CACHE_PAGES
    chunk = chunks()[word_idx // CHUNK_WORDS]
    i = word_idx % CHUNK_WORDS
    chunk.scav[i] |= scav
    if scav != 0 and runtime().scavenge_lazily != 0:
        remember_lazy_locked(p.cache_page >> layout.CHUNK_SHIFT)
    fence_release()
    chunk.alloc[i] &= ~free
    h.search_page = min(h.search_page, p.cache_page + ctz(free))
    gave_to_chunk_locked(p.cache_page >> layout.CHUNK_SHIFT, popcount(free), p.cache_page + 63 - clz(free))
    update_summaries_locked(p.cache_page >> layout.CHUNK_SHIFT, p.cache_page >> layout.CHUNK_SHIFT)
    return popcount(free)
