"""A map of the heap: what each of its pages is for, in at most CELLS cells of equally many pages.

What a page is comes from three tables: the page allocator's bits (taken or free, returned or not), the head that leads from a page to its span, and
the span's record. They are read while they change, in blocks of BLOCK_PAGES, so that the memory that this takes does not grow with the heap.
A page in a P's page cache counts as free. Only pages that the heap has grown to are looked at: of others there are no tables, and reading them would
make some.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gomp.core.shm import layout, records

CELLS = 4096
BLOCK_PAGES = 1 << 16
LEVELS = 8  # of fullness: 0 to 7
KINDS = ("released", "free", "swept", "cached", "unswept", "large", "stacks")
RELEASED, FREE, SWEPT, CACHED, UNSWEPT, LARGE, STACKS = range(len(KINDS))
_FIRST_LETTER = ord("0")
_CACHED_SINCE_SWEEP = 3  # how far a cached span's generation is ahead of the heap's
_GENERATION = 0xFFFFFFFF


@dataclass(frozen=True)
class PageMap:
    """``cells``: a character each, ``chr(48 + 8 * kind + fullness)``: the kind, by its place in KINDS, of most pages that are in spans, or of most
    if none is, and how many are, in sevenths, rounded up."""

    cell_pages: int
    cells: str
    bytes_by_kind: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """What the page is told."""
        return {
            "page_bytes": layout.PAGE_SIZE,
            "cell_pages": self.cell_pages,
            "cells": self.cells,
            "bytes": self.bytes_by_kind,
        }


def read() -> PageMap:
    """The map of the heap whose segments are mapped here."""
    end = int(records.view(records.mheap_dtype, records.MHEAP)[0].end_page)
    cell_pages = max(1 << (max(-(-end // CELLS), 1) - 1).bit_length(), 1)
    ncells = -(-end // cell_pages)
    counts = np.zeros((ncells, len(KINDS)), np.int64)
    for first in range(0, end, BLOCK_PAGES):
        kinds = _kinds(first, min(first + BLOCK_PAGES, end))
        cells = np.arange(first, first + len(kinds)) // cell_pages
        low, high = cells[0], cells[-1] + 1
        found = np.bincount((cells - low) * len(KINDS) + kinds, minlength=(high - low) * len(KINDS))
        counts[low:high] += found.reshape(-1, len(KINDS))
    by_kind = (counts.sum(axis=0) * layout.PAGE_SIZE).tolist()
    return PageMap(cell_pages, _letters(counts), dict(zip(KINDS, by_kind, strict=True)))


def _kinds(first: int, end: int) -> Any:
    """Of the pages from ``first``, the start of a chunk, up to ``end``."""
    nchunks = -(-(end - first) // layout.CHUNK_PAGES)
    chunks = records.new_view(
        records.chunk_dtype, layout.CHUNKS_BASE + (first >> layout.CHUNK_SHIFT) * records.chunk_dtype.itemsize, nchunks
    )
    is_taken, is_returned = (_bits(chunks[name])[: end - first] for name in ("alloc", "scav"))
    kinds = np.where(is_returned, RELEASED, FREE)
    taken = np.flatnonzero(is_taken)
    kinds[taken] = _kinds_of_taken(taken + first)
    return kinds


def _bits(words: Any) -> Any:
    return np.unpackbits(np.ascontiguousarray(words).view(np.uint8).ravel(), bitorder="little").astype(bool)


def _kinds_of_taken(pages: Any) -> Any:
    """A page that is taken and in no span is in a P's page cache, or on its way to or from a span: free."""
    if not len(pages):
        return pages
    end = int(pages[-1]) + 1
    heads = records.new_view(np.dtype("i4"), layout.PAGE_HEADS_BASE, end)[pages]
    starts = pages - np.maximum(heads, 1) + 1
    spans = records.new_view(records.span_dtype, layout.SPANS_BASE, end)
    state, generation = spans["state"][starts], spans["xstate"][starts] & _GENERATION
    is_large, npages = spans["span_class"][starts] < 2, spans["npages"][starts]
    sweepgen = int(records.view(records.runtime_dtype, records.RUNTIME)[0].sweepgen)
    is_in_span = pages - starts < npages
    return np.select(
        [
            ~is_in_span | (state == records.SPAN_DEAD),
            state == records.SPAN_MANUAL,
            generation == sweepgen + _CACHED_SINCE_SWEEP,
            generation != sweepgen,
            is_large,
        ],
        [FREE, STACKS, CACHED, UNSWEPT, LARGE],
        SWEPT,
    )


def _letters(counts: Any) -> str:
    in_spans = counts[:, SWEPT:].sum(axis=1)
    pages = counts.sum(axis=1)
    kind = np.where(in_spans > 0, SWEPT + counts[:, SWEPT:].argmax(axis=1), counts[:, :SWEPT].argmax(axis=1))
    fullness = -(-in_spans * (LEVELS - 1) // np.maximum(pages, 1))
    letters: bytes = (_FIRST_LETTER + kind * LEVELS + fullness).astype(np.uint8).tobytes()
    return letters.decode("ascii")
