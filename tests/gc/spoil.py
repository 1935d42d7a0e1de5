"""Garbage in everything that is derived."""

from __future__ import annotations

import ctypes

from gomp.core.heap import mspan, palloc
from gomp.core.shm import layout, records
from gomp.core.shm.records import SPAN_IN_USE


def spoil(world, rng):
    """Fill everything that is derived with garbage. Where mcaches stand is not derived, and their spans' counts are."""
    end = int(world.mheap.end_page)

    def garbage(address, nbytes):
        ctypes.memmove(int(address), rng.randbytes(nbytes), nbytes)

    garbage(layout.CHUNKS_BASE, end // layout.CHUNK_PAGES * 128)
    garbage(layout.PAGE_HEADS_BASE, 4 * end)
    garbage(layout.MCENTRALS_BASE, 128 * layout.NUM_SPAN_CLASSES)
    for level in range(layout.SUMMARY_LEVELS):
        entries = -(-end >> palloc.LEVEL_SHIFT[level]) or 1
        garbage(layout.SUMMARY_BASES[level], 8 * min(entries, end >> palloc.LEVEL_SHIFT[level]))
    for field in ("search_page", "pages_in_use", "xheap_inuse", "xheap_committed", "xheap_released", "xlock"):
        world.mheap[field] = rng.getrandbits(40)
    runtime = world.runtime
    garbage(layout.WBUF_STACKS_BASE + 8 * layout.MAX_WBUFS, 8 * int(runtime.wbuf_made))
    for field in ("xwbuf_lock", "xwbuf_full", "wbuf_empty", "xsweepers"):
        runtime[field] = rng.getrandbits(10)
    for page in range(end):
        span = span_at(page)
        if span.state == SPAN_IN_USE:
            span.next, span.set, span.alloc_count = (rng.getrandbits(20) for _ in range(3))
    for p in world.ps:
        p.wbuf1, p.wbuf2 = rng.getrandbits(40), rng.getrandbits(40)


def span_at(page):
    return records.view(records.span_dtype, mspan.span_addr(page))[0]
