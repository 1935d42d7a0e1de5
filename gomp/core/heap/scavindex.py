"""Which free pages go back to the system next: how full each chunk is, and where the search goes on (mgcscavenge.go, scavengeIndex).

Nouns
-----
generation  from the end of one mark phase to that of the next.
density     of a chunk: its pages in use now, and at the end of the last generation in which that changed. A chunk that is or was nearly full
            (``DENSE``) is left alone: what is free there will be wanted again soon. Forced requests do not ask.
cursor      where a kind of request goes on, from the highest address down. That of forced requests rises whenever pages are freed above
            it, that of the others once a generation. It is 0 when nothing is left below, else ``(page + 1) << 1 | raised``; *raised*: pages
            were freed since it last moved.

Everything here is under the heap lock, and derived: whoever follows a holder that died counts anew (:func:`rebuild_densities_locked`), and a
cursor that is too low is raised by the next page that is freed. To this index pages are in use while a page cache has them; those that are
being returned are not.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import clz, lsl, popcount
from gomp.core.shm.records import chunks, densities, mheap

CHUNK_WORDS = layout.CHUNK_PAGES // 64
DENSE = layout.CHUNK_PAGES * 31 // 32
_NONE = -1


# --- what happens to pages --------------------------------------------------------------------------------------------


@inline
def _of_this_generation(chunk_idx: int) -> None:
    d = densities()[chunk_idx]
    if d.gen != mheap().scav_gen:
        d.last_in_use = d.in_use
        d.gen = mheap().scav_gen


@inline
def took_of_chunk_locked(chunk_idx: int, npages: int) -> None:
    _of_this_generation(chunk_idx)
    d = densities()[chunk_idx]
    d.in_use += npages
    if d.in_use == layout.CHUNK_PAGES:
        d.has_free = 0


@inline
def gave_to_chunk_locked(chunk_idx: int, npages: int, highest: int) -> None:
    """``highest``: the highest of the pages."""
    _of_this_generation(chunk_idx)
    d = densities()[chunk_idx]
    d.in_use -= npages
    d.has_free = 1
    h = mheap()
    h.scav_freed = max(h.scav_freed, highest + 1)
    if h.scav_forced >> 1 < highest + 1:
        h.scav_forced = (highest + 1) << 1 | 1


@inline
def _pages_in(chunk_idx: int, page: int, end: int) -> int:
    first = chunk_idx << layout.CHUNK_SHIFT
    return min(end, first + layout.CHUNK_PAGES) - max(page, first)


@inline
def took_locked(page: int, npages: int) -> None:
    for chunk_idx in range(page >> layout.CHUNK_SHIFT, ((page + npages - 1) >> layout.CHUNK_SHIFT) + 1):
        took_of_chunk_locked(chunk_idx, _pages_in(chunk_idx, page, page + npages))


@inline
def gave_locked(page: int, npages: int) -> None:
    for chunk_idx in range(page >> layout.CHUNK_SHIFT, ((page + npages - 1) >> layout.CHUNK_SHIFT) + 1):
        n = _pages_in(chunk_idx, page, page + npages)
        gave_to_chunk_locked(chunk_idx, n, max(page, chunk_idx << layout.CHUNK_SHIFT) + n - 1)


@kernel("void()")
def next_generation_locked() -> None:
    """Holds: mheap.lock. A mark phase has ended."""
    h = mheap()
    h.scav_gen += 1
    if h.scav_background >> 1 < h.scav_freed:
        h.scav_background = h.scav_freed << 1 | 1
    h.scav_freed = 0


@kernel("void()")
def rebuild_densities_locked() -> None:
    """Holds: mheap.lock. Count anew. Of former generations nothing is known then, and every chunk is searched again."""
    h = mheap()
    for chunk_idx in range(h.end_page >> layout.CHUNK_SHIFT):
        d = densities()[chunk_idx]
        d.in_use = 0
        for word_idx in range(CHUNK_WORDS):
            d.in_use += popcount(chunks()[chunk_idx].alloc[word_idx])
        d.last_in_use = d.in_use
        d.has_free = 1
    h.scav_forced = h.end_page << 1 | 1
    h.scav_background = h.scav_forced


@inline
def is_density_right_locked(chunk_idx: int) -> bool:
    """Whether the count is that of the bits. Nobody is returning pages."""
    in_use = 0
    for word_idx in range(CHUNK_WORDS):
        in_use += popcount(chunks()[chunk_idx].alloc[word_idx])
    return densities()[chunk_idx].in_use == in_use


# --- choosing ---------------------------------------------------------------------------------------------------------


@inline
def _is_eligible(chunk_idx: int, force: int) -> bool:
    d = densities()[chunk_idx]
    if d.has_free == 0:
        return False
    return force != 0 or (d.in_use < DENSE and (d.gen != mheap().scav_gen or d.last_in_use < DENSE))


@inline
def _cursor(force: int) -> int:
    return mheap().scav_forced if force else mheap().scav_background


@inline
def _set_cursor(force: int, cursor: int) -> None:
    if force:
        mheap().scav_forced = cursor
    else:
        mheap().scav_background = cursor


@inline
def _find_chunk(force: int) -> tuple[int, int]:
    """The highest chunk at or below the cursor that may have something: (its number, the page in it to begin below), or (-1, 0)."""
    cursor = _cursor(force)
    if cursor == 0:
        return _NONE, 0
    page = (cursor >> 1) - 1
    own = page >> layout.CHUNK_SHIFT
    for chunk_idx in range(own, -1, -1):
        if _is_eligible(chunk_idx, force):
            if chunk_idx == own:
                return chunk_idx, page & (layout.CHUNK_PAGES - 1)
            _set_cursor(force, (chunk_idx + 1) << layout.CHUNK_SHIFT << 1)
            return chunk_idx, layout.CHUNK_PAGES - 1
    if cursor & 1 == 0:
        _set_cursor(force, 0)
    return _NONE, 0


@inline
def _highest_run(chunk_idx: int, below: int) -> tuple[int, int]:
    """The highest free and committed pages in a row, in the word of page ``below`` or under it: [first, end) in the chunk; end is -1 for none."""
    chunk = chunks()[chunk_idx]
    first, end = 0, _NONE
    for word_idx in range(below >> 6, -1, -1):
        free = ~chunk.alloc[word_idx] & ~chunk.scav[word_idx]
        if end < 0:
            if free == 0:
                continue
            above = clz(free)
            end = (word_idx << 6) + 64 - above
            n = min(clz(~lsl(free, above)), 64 - above)
            first = end - n
            if n < 64 - above:
                break
        else:
            n = clz(~free)
            first -= n
            if n < 64:
                break
    return first, end


@inline
def _keep_huge_page_whole(run_first: int, end: int, first: int) -> int:
    """Where to begin instead of ``first``, if that would break a huge page that lies in the run as a whole."""
    huge = mheap().huge_pages
    if huge != 0:
        below = first // huge * huge
        above = (first + huge - 1) // huge * huge
        if above <= end and below >= run_first:
            return below
    return first


@inline
def choose_locked(most: int, force: int) -> tuple[int, int]:
    """Holds: mheap.lock. What to return next: (first page, how many: about ``most`` at most), or (-1, 0) if there is nothing."""
    chunk_idx, below = _find_chunk(force)
    while chunk_idx >= 0:
        run_first, end = _highest_run(chunk_idx, below)
        if end >= 0:
            first = _keep_huge_page_whole(run_first, end, max(run_first, end - most))
            return (chunk_idx << layout.CHUNK_SHIFT) + first, end - first
        densities()[chunk_idx].has_free = 0
        chunk_idx, below = _find_chunk(force)
    return -1, 0
