"""One accounting of everything the runtime has mapped and not returned: what the memory limit counts.

    mapped_ready = heap committed: in use or free         the heap segment
                 + what is indexed by page or chunk        the metadata segment
                 + work buffers and span queues
                 + records and tables

Each term is a counter in the heap's record, moved when memory is committed or returned. The last three can be worked out from what is
committed of each region; that is how repair makes them anew, and what ``verify`` compares them with. The interpreters of the processes are not
the runtime's and not among them.
"""

from __future__ import annotations

from gomp.core.jit import inline
from gomp.core.shm import layout
from gomp.core.shm.atomics import load_acquire, load_relaxed
from gomp.core.shm.records import (
    MEMPROFILE_XNBUCKETS,
    MHEAP_XCOMMITTED,
    MHEAP_XINUSE,
    MHEAP_XMETADATA,
    MHEAP_XTABLES,
    MHEAP_XWBUF,
    RT_XNGLOBALS,
    RT_XNPOOLS,
    STACKPOOL_XSPAN_BYTES,
    mheap,
    nth_p,
    p_at,
    p_records,
    runtime,
    sched,
    task_dtype,
)

_OS_PAGE = 4096
_SPAN_RECORD = 256
_TASK_RECORD = task_dtype.itemsize
_SPECIAL_RECORD = 64
_FIXED = layout.PS_BASE - layout.META_BASE  # from the start: the runtime's records, size classes' lists, the type table


@inline
def mapped_ready() -> int:
    """Bytes that the memory limit counts."""
    return (
        load_relaxed(MHEAP_XCOMMITTED)
        + load_relaxed(MHEAP_XMETADATA)
        + load_relaxed(MHEAP_XWBUF)
        + load_relaxed(MHEAP_XTABLES)
    )


@inline
def heap_free() -> int:
    """Bytes of pages that are free and committed: about, while they move."""
    in_use = load_relaxed(MHEAP_XINUSE)
    return max(load_relaxed(MHEAP_XCOMMITTED) - in_use, 0)


@inline
def heap_retained() -> int:
    """Bytes of pages that are in spans of objects, or free and committed: all but what stacks take."""
    return load_relaxed(MHEAP_XCOMMITTED) - load_relaxed(STACKPOOL_XSPAN_BYTES)


@inline
def heap_in_use() -> int:
    """Bytes of pages in spans of objects."""
    return load_relaxed(MHEAP_XINUSE) - load_relaxed(STACKPOOL_XSPAN_BYTES)


# --- what the counters of the metadata segment should be --------------------------------------------------------------


@inline
def _pages(nbytes: int) -> int:
    """As much as the system gives for so many bytes from a page's start."""
    return layout.align_up(nbytes, _OS_PAGE)


@inline
def metadata_bytes(npages: int) -> int:
    """What is committed when the heap has grown to ``npages``: span records, heads, bitmaps, summaries."""
    arenas = (npages + (1 << layout.ARENA_PAGE_SHIFT) - 1) >> layout.ARENA_PAGE_SHIFT
    n = _pages(npages * _SPAN_RECORD) + _pages(4 * npages) + _pages(64 * arenas)
    n += _pages(128 * (npages >> layout.CHUNK_SHIFT)) + _pages(32 * (npages >> layout.CHUNK_SHIFT))
    for level in range(layout.SUMMARY_LEVELS):
        shift = layout.CHUNK_SHIFT + 3 * (layout.SUMMARY_LEVELS - 1 - level)
        n += _pages(8 * ((npages + (1 << shift) - 1) >> shift))
    return n


@inline
def metadata_bytes_stw() -> int:
    return metadata_bytes(mheap().metadata_pages)


@inline
def wbuf_bytes(nbuffers: int) -> int:
    """Work buffers, and the two stacks that they lie in, full or empty."""
    return nbuffers * layout.WBUF_SIZE + 2 * _pages(8 * nbuffers)


@inline
def spanq_bytes(capacity: int) -> int:
    return _pages(8 * capacity)


@inline
def wbuf_bytes_stw() -> int:
    n = wbuf_bytes(runtime().wbuf_made)
    for i in range(p_records()):
        n += spanq_bytes(p_at(nth_p(i)).spanq_capacity)
    return n


@inline
def profile_bytes() -> int:
    """What is committed for the buckets of the memory profile."""
    return layout.align_up(layout.BUCKET_RECORD * load_acquire(MEMPROFILE_XNBUCKETS), layout.TABLE_STEP)


@inline
def table_bytes_stw() -> int:
    rt = runtime()
    n = _FIXED + rt.committed_ps * layout.P_BYTES + _pages(rt.tasks_committed * _TASK_RECORD)
    n += layout.align_up(8 * rt.mask_words, layout.TABLE_STEP) + sched().gs_committed
    n += (
        layout.align_up(layout.GLOBAL_RECORD * load_relaxed(RT_XNGLOBALS), layout.TABLE_STEP)
        + load_relaxed(RT_XNPOOLS) * layout.POOL_BYTES
    )
    n += layout.align_up(_SPECIAL_RECORD * rt.nspecials, layout.TABLE_STEP) + profile_bytes()
    for i in range(p_records()):
        pp = p_at(nth_p(i))
        n += pp.handles_committed + pp.native_committed + pp.trace_committed
    return n
