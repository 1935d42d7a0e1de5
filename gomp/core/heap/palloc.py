"""The page allocator: which pages of the heap are taken, found again by lowest address in a few steps however large the heap is.

Nouns
-----
page       8 KiB. Two bits in its chunk's record: *alloc* (somebody has it) and *scav* (a free page that is returned to the system, and so
           has to be committed before use; *scavenged*). A taken page is never scavenged.
chunk      512 pages. The heap grows by whole chunks; pages 0..end_page-1 of ``mheap()`` have been grown.
summary    what a search needs to know about a range of pages, in one word: the free pages at its start, its longest free run, the free
           pages at its end. 21 bits each; the whole range of a root entry, 2^21 pages, does not fit and is ROOT_FREE.
level      summaries form a radix tree of five levels: an entry of level 4 is a chunk, one of level l is eight of level l + 1, so that a
           root entry is 16 GiB. Summaries of pages that the heap has not grown to are 0: nothing free.
run        consecutive free pages.

What always holds, under the heap lock
--------------------------------------
(S1) each summary is what the bits below it say (:func:`check_summaries_locked`);
(S2) no page below ``search_page`` is free;
(S3) no page from ``scav_page`` on is free and committed: there the scavenger looks, downwards.

Searching, as Go does: first fit, by lowest address
---------------------------------------------------
1. If the chunk of ``search_page`` has a run that is long enough, that is the lowest, by (S2).
2. Else go through the root entries upwards, joining the free end of each to the free start of the next. The first join that is long
   enough is the answer. The first entry with such a run *inside* is entered: the same one level below, at last in the chunk's bits.
3. The lowest free page that was met on the way is the new ``search_page``.

Taking and giving back change the bits, then the summaries of the chunks concerned, then upwards as long as something changes.

Not here: committing and releasing pages, the heap's byte counts, when and how much to scavenge. Summaries and alloc bits are derived: repair
clears the bits, sets those of the spans it finds and calls :func:`rebuild_summaries_locked`. The scav bit of a free page is not.

Who holds the lock may be killed, so bits change in an order. A page leaves one owner before the next has it: it is taken, and then not scavenged;
scavenged, if it is to be, and then free. So what repair finds taken and without an owner is nobody's, and a free page is what its scav bit
says. Who gets the lock next finds ``held`` set, and makes (S1) to (S3) hold again.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.sched.locks import acquire, release
from gomp.core.shm import layout
from gomp.core.shm.atomics import clz, ctz, fence_release, load_relaxed, lsl, lsr, popcount, store_release
from gomp.core.shm.records import MHEAP_HELD, MHEAP_XLOCK, chunks, mheap, runtime, summaries

LEVELS = layout.SUMMARY_LEVELS
LEVEL_BITS = 3  # eight children
LEVEL_SHIFT = tuple(layout.CHUNK_SHIFT + LEVEL_BITS * (LEVELS - 1 - level) for level in range(LEVELS))
LEAF = LEVELS - 1
ROOT_SHIFT = LEVEL_SHIFT[0]
CHUNK_WORDS = layout.CHUNK_PAGES // 64

_FIELD_BITS = 21
_FIELD_MASK = (1 << _FIELD_BITS) - 1
_ROOT_PAGES = 1 << ROOT_SHIFT
ROOT_FREE = -(1 << 63)  # bit 63

_LEAF_START = layout.SUMMARY_START[LEAF]


# --- the heap lock ----------------------------------------------------------------------------------------------------


@inline
def lock_heap() -> None:
    """Take the heap lock, as :func:`~gomp.core.sched.locks.acquire` does."""
    acquire(MHEAP_XLOCK)
    if load_relaxed(MHEAP_HELD) != 0:
        rebuild_summaries_locked()
    store_release(MHEAP_HELD, 1)
    fence_release()  # before what is changed under the lock


@inline
def unlock_heap() -> None:
    store_release(MHEAP_HELD, 0)
    release(MHEAP_XLOCK)


# --- counting ---------------------------------------------------------------------------------------------------------


@kernel("int64()")
def count_free_pages_locked() -> int:
    """Holds: mheap.lock. Free pages, scavenged or not."""
    n = 0
    for chunk_idx in range(mheap().end_page >> layout.CHUNK_SHIFT):
        for i in range(CHUNK_WORDS):
            n += popcount(~chunks()[chunk_idx].alloc[i])
    return n


@kernel("int64()")
def count_scavenged_pages_locked() -> int:
    """Holds: mheap.lock. Free pages that are returned to the system."""
    n = 0
    for chunk_idx in range(mheap().end_page >> layout.CHUNK_SHIFT):
        for i in range(CHUNK_WORDS):
            n += popcount(chunks()[chunk_idx].scav[i] & ~chunks()[chunk_idx].alloc[i])
    return n


# --- summaries --------------------------------------------------------------------------------------------------------


@inline
def pack_summary(start: int, longest: int, end: int) -> int:
    if longest == _ROOT_PAGES:
        return ROOT_FREE
    return start | longest << _FIELD_BITS | end << 2 * _FIELD_BITS


@inline
def summary_start(summary: int) -> int:
    """Free pages at the start of the range."""
    return summary & _FIELD_MASK if summary >= 0 else _ROOT_PAGES


@inline
def summary_longest(summary: int) -> int:
    """Length of the longest run in the range."""
    return lsr(summary, _FIELD_BITS) & _FIELD_MASK if summary >= 0 else _ROOT_PAGES


@inline
def summary_end(summary: int) -> int:
    """Free pages at the end of the range."""
    return lsr(summary, 2 * _FIELD_BITS) if summary >= 0 else _ROOT_PAGES


@inline
def starts_of_runs(free: int, n: int) -> int:
    """The bits of ``free`` at which a run of ``n`` one bits starts, ``1 <= n <= 64``.

    After a step with shift s each bit left stands for a run twice, at most, as long as before.
    """
    shift, left = 1, n - 1
    while left > 0 and free != 0:
        if shift > left:
            shift = left
        free &= lsr(free, shift)
        left -= shift
        shift <<= 1
    return free


@inline
def _longest_inside(free: int, longest: int) -> int:
    """The longest run in the word ``free`` if it is longer than ``longest``, else ``longest``."""
    if popcount(free) <= longest:
        return longest
    free = starts_of_runs(free, longest + 1)
    while free != 0:
        longest += 1
        free &= lsr(free, 1)
    return longest


@inline
def _summarize(chunk_idx: int) -> int:
    """The summary of a chunk, from its bits."""
    alloc = chunks()[chunk_idx].alloc
    start, longest, run = -1, 0, 0
    for word_idx in range(CHUNK_WORDS):
        word = alloc[word_idx]
        run += ctz(word)
        if word == 0:
            continue
        if start < 0:
            start = run
        longest = max(longest, run)
        run = clz(word)
    if start < 0:
        start = run
    longest = max(longest, run)
    if longest < 62:  # a run that touches neither end of its word is shorter
        for word_idx in range(CHUNK_WORDS):
            longest = _longest_inside(~alloc[word_idx], longest)
    return pack_summary(start, longest, run)


@inline
def _merge(level: int, entry: int) -> int:
    """The summary of an entry of ``level`` < LEAF, from its eight children, none of which is ROOT_FREE."""
    child = layout.SUMMARY_START[level + 1] + (entry << LEVEL_BITS)
    child_pages = 1 << LEVEL_SHIFT[level + 1]
    start, longest, run = 0, 0, 0
    for i in range(1 << LEVEL_BITS):
        summary = summaries()[child + i]
        first = summary & _FIELD_MASK
        if start == i * child_pages:
            start += first
        longest = max(longest, run + first, summary >> _FIELD_BITS & _FIELD_MASK)
        run = run + child_pages if first == child_pages else summary >> 2 * _FIELD_BITS
    return pack_summary(start, longest, run)


@inline
def _refresh_leaves(first_chunk: int, last_chunk: int) -> bool:
    """Summarize chunks again; says whether a summary changed."""
    changed = False
    for chunk_idx in range(first_chunk, last_chunk + 1):
        summary = _summarize(chunk_idx)
        changed |= summary != summaries()[_LEAF_START + chunk_idx]
        summaries()[_LEAF_START + chunk_idx] = summary
    return changed


@inline
def _refresh(level: int, first_chunk: int, last_chunk: int) -> bool:
    """Merge again the entries of ``level`` above these chunks; says whether a summary changed."""
    changed = False
    shift = LEVEL_BITS * (LEAF - level)
    for entry in range(first_chunk >> shift, (last_chunk >> shift) + 1):
        summary = _merge(level, entry)
        changed |= summary != summaries()[layout.SUMMARY_START[level] + entry]
        summaries()[layout.SUMMARY_START[level] + entry] = summary
    return changed


@kernel("int64(int64, int64)")
def update_summaries_locked(first_chunk: int, last_chunk: int) -> int:
    """Holds: mheap.lock. Make (S1) hold again after bits of the chunks ``first_chunk..last_chunk`` changed. Returns 0.

    Written out by level: with the level known, the compiler folds the tables away (a page taken and given back: 275 ns, not 310).
    """
    if _refresh_leaves(first_chunk, last_chunk):
        if _refresh(3, first_chunk, last_chunk):
            if _refresh(2, first_chunk, last_chunk):
                if _refresh(1, first_chunk, last_chunk):
                    _refresh(0, first_chunk, last_chunk)
    return 0


@kernel("int64()")
def rebuild_summaries_locked() -> int:
    """Holds: mheap.lock. Derive every summary and ``search_page`` from the bits; returns the number of free pages."""
    h = mheap()
    h.search_page = 0
    h.scav_page = h.end_page
    nchunks = h.end_page >> layout.CHUNK_SHIFT
    for chunk_idx in range(nchunks):
        summaries()[_LEAF_START + chunk_idx] = _summarize(chunk_idx)
    for up in range(1, LEVELS):
        level = LEAF - up
        for entry in range(_entries(level, h.end_page)):
            summaries()[layout.SUMMARY_START[level] + entry] = _merge(level, entry)
    return count_free_pages_locked()


@inline
def _entries(level: int, end_page: int) -> int:
    """How many entries of ``level`` the pages below ``end_page`` have."""
    return (end_page + (1 << LEVEL_SHIFT[level]) - 1) >> LEVEL_SHIFT[level]


# --- bits -------------------------------------------------------------------------------------------------------------


@inline
def _bits(low: int, n: int) -> int:
    """A word with the ``n`` bits from ``low`` on set, ``1 <= n <= 64 - low``."""
    return lsl(lsr(-1, 64 - n), low)


@inline
def _bits_of_range(word_idx: int, page: int, end: int) -> int:
    """The bits of word ``word_idx``, which covers 64 pages, that belong to pages ``page..end-1``."""
    low = max(page - word_idx * 64, 0)
    return _bits(low, min(end - word_idx * 64, 64) - low)


@kernel("int64(int64, int64)")
def set_alloc_range_locked(page: int, npages: int) -> int:
    """Holds: mheap.lock. Mark pages taken, bits only; returns how many of them were scavenged, which they no longer are."""
    end = page + npages
    nscav = 0
    for word_idx in range(page >> 6, (end + 63) >> 6):
        bits = _bits_of_range(word_idx, page, end)
        chunk = chunks()[word_idx // CHUNK_WORDS]
        i = word_idx % CHUNK_WORDS
        nscav += popcount(chunk.scav[i] & bits)
        chunk.alloc[i] |= bits
        fence_release()
        chunk.scav[i] &= ~bits
    return nscav


@kernel("int64(int64, int64)")
def clear_alloc_range_locked(page: int, npages: int) -> int:
    """Holds: mheap.lock. Mark pages free, bits only; returns how many of them were taken."""
    end = page + npages
    ntaken = 0
    for word_idx in range(page >> 6, (end + 63) >> 6):
        bits = _bits_of_range(word_idx, page, end)
        chunk = chunks()[word_idx // CHUNK_WORDS]
        i = word_idx % CHUNK_WORDS
        ntaken += popcount(chunk.alloc[i] & bits)
        chunk.alloc[i] &= ~bits
    return ntaken


@kernel("int64(int64, int64)")
def set_scav_range_locked(page: int, npages: int) -> int:
    """Holds: mheap.lock. Mark free pages scavenged; returns how many of them were not. No summary changes."""
    end = page + npages
    nchanged = 0
    for word_idx in range(page >> 6, (end + 63) >> 6):
        bits = _bits_of_range(word_idx, page, end)
        chunk = chunks()[word_idx // CHUNK_WORDS]
        i = word_idx % CHUNK_WORDS
        nchanged += popcount(~chunk.scav[i] & bits)
        chunk.scav[i] |= bits
    return nchanged


@inline
def _first_free(chunk_idx: int) -> int:
    """Index in the chunk of its lowest free page; CHUNK_PAGES if it has none."""
    alloc = chunks()[chunk_idx].alloc
    for word_idx in range(CHUNK_WORDS):
        if alloc[word_idx] != -1:
            return word_idx * 64 + ctz(~alloc[word_idx])
    return layout.CHUNK_PAGES


@inline
def _first_run(chunk_idx: int, npages: int) -> int:
    """Index in the chunk of its lowest run of ``npages``; -1 if it has none."""
    alloc = chunks()[chunk_idx].alloc
    run = 0  # free pages up to the start of this word
    for word_idx in range(CHUNK_WORDS):
        word = alloc[word_idx]
        head = ctz(word)
        if run + head >= npages:
            return word_idx * 64 - run
        if word == 0:
            run += 64
            continue
        if npages < 64:
            starts = starts_of_runs(~word, npages)
            if starts != 0:
                return word_idx * 64 + ctz(starts)
        run = clz(word)
    return -1


# --- finding, taking, giving back -------------------------------------------------------------------------------------


@inline
def _scan_entries(level: int, first: int, limit: int, npages: int) -> tuple[int, int, int]:
    """Look for a run through the entries ``first..limit-1`` of a level.

    Returns (page, entry, lowest): the page where a run starts that an entry's edge shows, or else the entry that has one inside, or
    else neither: -1; and the first entry with any free page.
    """
    shift = LEVEL_SHIFT[level]
    run, lowest = 0, -1
    for entry in range(first, limit):
        summary = summaries()[layout.SUMMARY_START[level] + entry]
        if summary == 0:
            run = 0
            continue
        if lowest < 0:
            lowest = entry
        start = summary_start(summary)
        if run + start >= npages:
            return (entry << shift) - run, -1, lowest
        if summary_longest(summary) >= npages:
            return -1, entry, lowest
        run = run + start if start == 1 << shift else summary_end(summary)
    return -1, -1, lowest


@inline
def _walk(npages: int, search: int, end_page: int) -> tuple[int, int]:
    """Search the whole tree for the lowest run; returns it, or -1, and the new lower bound of free pages."""
    first, limit = search >> ROOT_SHIFT, _entries(0, end_page)
    bounds = True  # whether the lowest free page is below the entries being looked at
    for level in range(LEVELS):
        page, entry, lowest = _scan_entries(level, first, limit, npages)
        if bounds:
            search = max(search, lowest << LEVEL_SHIFT[level]) if lowest >= 0 else end_page
        if entry < 0:
            return page, search
        bounds = bounds and entry == lowest
        if level < LEAF:
            limit = (entry + 1) << LEVEL_BITS
            first = max(entry << LEVEL_BITS, search >> LEVEL_SHIFT[level + 1])
        else:
            first = entry
    base = first << layout.CHUNK_SHIFT
    if bounds:
        search = base + _first_free(first)
    return base + _first_run(first, npages), search


@kernel("int64(int64)")
def find_pages_locked(npages: int) -> int:
    """Holds: mheap.lock. The lowest page that starts a run of ``npages`` > 0 free pages; -1 if there is none."""
    h = mheap()
    search = h.search_page
    if search >= h.end_page:
        return -1
    chunk_idx = search >> layout.CHUNK_SHIFT
    if summary_longest(summaries()[_LEAF_START + chunk_idx]) >= npages:
        base = chunk_idx << layout.CHUNK_SHIFT
        h.search_page = base + _first_free(chunk_idx)
        return base + _first_run(chunk_idx, npages)
    page, search = _walk(npages, search, h.end_page)
    h.search_page = search
    return page


@kernel("int64(int64, int64)")
def take_pages_locked(page: int, npages: int) -> int:
    """Holds: mheap.lock. Take free pages; returns how many of them were scavenged: those are not committed."""
    h = mheap()
    nscav = set_alloc_range_locked(page, npages)
    if page <= h.search_page < page + npages:
        h.search_page = page + npages
    update_summaries_locked(page >> layout.CHUNK_SHIFT, (page + npages - 1) >> layout.CHUNK_SHIFT)
    return nscav


@inline
def alloc_pages_locked(npages: int) -> tuple[int, int]:
    """Holds: mheap.lock. Take the lowest ``npages`` free pages in a row: (first page, how many were scavenged), or (-1, 0)."""
    page = find_pages_locked(npages)
    if page < 0:
        return page, 0
    return page, take_pages_locked(page, npages)


@kernel("int64(int64, int64, int64)")
def free_pages_locked(page: int, npages: int, scavenged: int) -> int:
    """Holds: mheap.lock. Give taken pages back, as scavenged or not (1, 0); returns how many of them were taken: ``npages``."""
    h = mheap()
    if scavenged:
        set_scav_range_locked(page, npages)
    else:
        h.scav_page = max(h.scav_page, page + npages)
    fence_release()
    ntaken = clear_alloc_range_locked(page, npages)
    h.search_page = min(h.search_page, page)
    update_summaries_locked(page >> layout.CHUNK_SHIFT, (page + npages - 1) >> layout.CHUNK_SHIFT)
    return ntaken


@kernel("int64(int64)")
def grow_locked(nchunks: int) -> int:
    """Holds: mheap.lock. Add chunks at the end of the heap, all free and scavenged; their metadata is committed.

    Returns their first page, or -1 if they do not fit below the heap's maximum.
    """
    h = mheap()
    page = h.end_page
    npages = nchunks << layout.CHUNK_SHIFT
    if page + npages > runtime().max_pages:
        return -1
    clear_alloc_range_locked(page, npages)
    set_scav_range_locked(page, npages)
    fence_release()
    h.end_page = page + npages
    h.search_page = min(h.search_page, page)
    update_summaries_locked(page >> layout.CHUNK_SHIFT, (page + npages - 1) >> layout.CHUNK_SHIFT)
    return page


@kernel("int64()")
def free_at_end_locked() -> int:
    """Holds: mheap.lock. How many pages at the end of the heap are free."""
    free = 0
    for word_idx in range((mheap().end_page >> 6) - 1, -1, -1):
        word = chunks()[word_idx // CHUNK_WORDS].alloc[word_idx % CHUNK_WORDS]
        if word != 0:
            return free + clz(word)
        free += 64
    return free


# --- what the scavenger takes ------------------------------------------------------------------------------------------


@inline
def _run_at_top(free: int) -> tuple[int, int]:
    """Of the highest bits in a row that are set: (the lowest, how many)."""
    top = 63 - clz(free)
    below = ~lsl(free, 63 - top)
    n = min(clz(below) if below != 0 else 64, top + 1)
    return top + 1 - n, n


@inline
def _committed_in_chunk(chunk_idx: int, most: int) -> tuple[int, int]:
    chunk = chunks()[chunk_idx]
    for i in range(CHUNK_WORDS - 1, -1, -1):
        free = ~chunk.alloc[i] & ~chunk.scav[i]
        if free != 0:
            low, n = _run_at_top(free)
            take = min(n, most)
            return (chunk_idx << layout.CHUNK_SHIFT) + 64 * i + low + n - take, take
    return -1, 0


@kernel("int64(int64)")
def last_committed_locked(most: int) -> int:
    """Holds: mheap.lock. The highest free and committed pages in a row, inside a word of the bitmap: first page << 7 | up to ``most`` of them; -1
    if there are none.

    A full chunk is one load, and what was looked at in vain is not looked at again until something is freed there. (A full heap of 8 GiB whose
    only free page is the lowest: 2 us at the first time, 0.3 us at the next, called from Python.)
    """
    h = mheap()
    for chunk_idx in range((h.scav_page - 1) >> layout.CHUNK_SHIFT, -1, -1):
        if summaries()[_LEAF_START + chunk_idx] != 0:
            page, n = _committed_in_chunk(chunk_idx, most)
            if page >= 0:
                h.scav_page = page + n
                return page << 7 | n
    h.scav_page = 0
    return -1


# --- checking ---------------------------------------------------------------------------------------------------------

PALLOC_OK, PALLOC_SEARCH_PAGE, PALLOC_SCAVENGED, PALLOC_SCAV_PAGE = -1, -2, -3, -4


@kernel("int64()")
def check_summaries_locked() -> int:
    """Holds: mheap.lock. PALLOC_OK, or what is wrong: the index in ``summaries()`` of a summary that does not agree with what is below it;
    PALLOC_SEARCH_PAGE: a page below ``search_page`` is free; PALLOC_SCAVENGED: a taken page is marked scavenged; PALLOC_SCAV_PAGE: a page from
    ``scav_page`` on is free and committed."""
    end_page = mheap().end_page
    for chunk_idx in range(end_page >> layout.CHUNK_SHIFT):
        if summaries()[_LEAF_START + chunk_idx] != _summarize(chunk_idx):
            return _LEAF_START + chunk_idx
        if chunk_idx << layout.CHUNK_SHIFT < mheap().search_page:
            if (chunk_idx << layout.CHUNK_SHIFT) + _first_free(chunk_idx) < min(
                mheap().search_page, _chunk_end(chunk_idx)
            ):
                return PALLOC_SEARCH_PAGE
        for i in range(CHUNK_WORDS):
            word, scav = chunks()[chunk_idx].alloc[i], chunks()[chunk_idx].scav[i]
            if scav & word:
                return PALLOC_SCAVENGED
            first = (chunk_idx << layout.CHUNK_SHIFT) + 64 * i
            if first + 64 - clz(~(word | scav)) > max(mheap().scav_page, first):
                return PALLOC_SCAV_PAGE
    for level in range(LEAF):
        for entry in range(_entries(level, end_page)):
            if summaries()[layout.SUMMARY_START[level] + entry] != _merge(level, entry):
                return layout.SUMMARY_START[level] + entry
    return PALLOC_OK


@inline
def _chunk_end(chunk_idx: int) -> int:
    return (chunk_idx + 1) << layout.CHUNK_SHIFT
