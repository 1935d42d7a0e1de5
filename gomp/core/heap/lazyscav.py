"""Lazy return (``GODEBUG=madvdontneed=0``): pages that count as returned stay in memory until somebody needs it.

It is what MADV_FREE does for private memory, and Linux refuses it for shared memory. A released page is then free and has its scav bit, as
always, but its bytes may still be there: old data, so whoever gets it zeroes it. Committing it costs no fault. :func:`reclaim` punches such pages
out: called by a commit that fails, and by the coordinator when the cgroup, the file system or the kernel's pressure figures say so.

Which pages those are nobody notes. A chunk has ``lazy_since``, 1 + the generation in which pages were first released into it, negated while
somebody looks through it; 0 when it has none. Punching one that is gone already costs a system call. So nothing here has to be right after a kill:
repair punches whatever is released.
"""

from __future__ import annotations

from gomp.core.heap.palloc import (
    borrow_pages_locked,
    lock_heap,
    return_pages_locked,
    set_scav_range_locked,
    unlock_heap,
)
from gomp.core.heap.punch import punch
from gomp.core.heap.scavindex import CHUNK_WORDS
from gomp.core.jit import inline, kernel
from gomp.core.sched.locks import begin_critical, end_critical
from gomp.core.sched.status import stop_requested
from gomp.core.shm import layout
from gomp.core.shm.atomics import ctz, lsl
from gomp.core.shm.commit import return_budget
from gomp.core.shm.libc import MOST_INCORE, nanotime, resident_bytes
from gomp.core.shm.records import chunks, densities, mheap

_PIECE = (
    MOST_INCORE >> layout.PAGE_SHIFT
)  # pages that are away at a time: an allocation that does not find them grows the heap
_NONE = -1
NOTHING_LEFT = -1


@inline
def release_lazily_locked(page: int, npages: int) -> None:
    """Holds: mheap.lock. Free pages of one chunk count as released from here."""
    set_scav_range_locked(page, npages)
    remember_lazy_locked(page >> layout.CHUNK_SHIFT)


@inline
def remember_lazy_locked(chunk_idx: int) -> None:
    """Holds: mheap.lock. The chunk may have lazily released pages from here: also when a P's cache, where no reclaim sees them, gives them back."""
    d = densities()[chunk_idx]
    if d.lazy_since <= 0:
        d.lazy_since = mheap().scav_gen + 1


@kernel("void()")
def forget_lazy_locked() -> None:
    """Holds: mheap.lock. Everything that is released has been punched out."""
    for chunk_idx in range(mheap().end_page >> layout.CHUNK_SHIFT):
        densities()[chunk_idx].lazy_since = 0


@inline
def _oldest_locked() -> int:
    """The chunk that has had lazily released pages for longest; of several the highest, and -1 if there is none."""
    oldest, since = _NONE, 1 << 62
    for chunk_idx in range((mheap().end_page >> layout.CHUNK_SHIFT) - 1, -1, -1):
        at = abs(int(densities()[chunk_idx].lazy_since))
        if 0 < at < since:
            oldest, since = chunk_idx, at
    return oldest


@inline
def _released_run(chunk_idx: int, at: int) -> tuple[int, int]:
    """The first released pages of the chunk from index ``at`` on, in one word and _PIECE at most: (index, how many), or (-1, 0)."""
    for word_idx in range(at >> 6, CHUNK_WORDS):
        word = chunks()[chunk_idx].scav[word_idx] & ~chunks()[chunk_idx].alloc[word_idx]
        if word_idx == at >> 6:
            word &= lsl(-1, at & 63)
        if word != 0:
            low = ctz(word)
            return word_idx * 64 + low, min(ctz(~(word >> low)), 64 - low, _PIECE)
    return _NONE, 0


@inline
def _punch(page: int, npages: int) -> int:
    """Holds: nothing, and the pages are taken. Punch them out; how many bytes of them were surely in memory."""
    nbytes = npages << layout.PAGE_SHIFT
    found = resident_bytes(layout.page_to_addr(page), nbytes)
    return_budget(found)
    punch(page, npages)
    return found


@inline
def _is_over(deadline_ns: int) -> bool:
    return stop_requested() or nanotime() > deadline_ns


@inline
def _reclaim_chunk(chunk_idx: int, nbytes: int, deadline_ns: int) -> tuple[int, int]:
    """Punch out released pages of one chunk, from the lowest up: (bytes, those that were surely in memory). What is left keeps its age."""
    base = chunk_idx << layout.CHUNK_SHIFT
    punched, freed, at = 0, 0, 0
    lock_heap()
    since = abs(int(densities()[chunk_idx].lazy_since))
    if since == 0:  # another has emptied it since it was chosen, and an age written back would be none
        unlock_heap()
        return 0, 0
    densities()[chunk_idx].lazy_since = -since  # whoever releases more from here on sets it anew
    while True:
        at, n = _released_run(chunk_idx, at)
        # Whoever comes next begins here anew, with what has been punched: without something freed that would be no progress.
        if n == 0 or freed >= nbytes or (freed > 0 and _is_over(deadline_ns)):
            break
        borrow_pages_locked(base + at, n)
        unlock_heap()
        freed += _punch(base + at, n)
        lock_heap()
        return_pages_locked(base + at, n, 1)
        punched += n << layout.PAGE_SHIFT
        at += n
    if n != 0:
        densities()[chunk_idx].lazy_since = since
    elif densities()[chunk_idx].lazy_since == -since:
        densities()[chunk_idx].lazy_since = 0
    unlock_heap()
    return punched, freed


@kernel("int64(int64, int64)")
def reclaim(nbytes: int, deadline_ns: int) -> int:
    """Holds: nothing. Punch out what was released lazily, oldest first, until ``nbytes`` that were in memory have left it: how many have, or
    NOTHING_LEFT if nothing is there to punch.

    What was surely in memory may be committed at once: the budget has it. After the first piece it ends at the deadline, and when somebody wants to
    stop the world.
    """
    begin_critical()
    done, all_punched = 0, 0
    while done < nbytes and (all_punched == 0 or not _is_over(deadline_ns)):
        lock_heap()
        chunk_idx = _oldest_locked()
        unlock_heap()
        if chunk_idx < 0:
            break
        punched, freed = _reclaim_chunk(chunk_idx, nbytes - done, deadline_ns)
        all_punched += punched
        done += freed
    end_critical()
    return done if all_punched != 0 else NOTHING_LEFT
