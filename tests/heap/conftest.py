"""A fresh heap in this one process: the segments, a runtime that allows ``max_pages`` pages, and no page grown yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest

from gomp.core import load_kernels
from gomp.core.shm import layout, records, segments

MAX_PAGES = 64 * layout.CHUNK_PAGES


class Heap:
    """The records of the heap under test as numpy sees them, and the address of its one P."""

    segment_fd: int

    def __init__(self) -> None:
        self.p_addr = layout.PS_BASE
        self.p = records.view(records.p_dtype, self.p_addr)[0]
        self.mheap = records.view(records.mheap_dtype, records.MHEAP)[0]
        self.runtime = records.view(records.runtime_dtype, records.RUNTIME)[0]
        self.summaries = records.view(np.dtype("i8"), layout.SUMMARY_BASES[0], layout.SUMMARY_WORDS)
        self.chunks = records.view(records.chunk_dtype, layout.CHUNKS_BASE, layout.MAX_CHUNKS)
        self._bits = {field: self.chunks[field] for field in ("alloc", "scav")}

    def chunk(self, chunk_idx: int) -> Any:
        return self.chunks[chunk_idx]

    def word(self, field: str, page: int) -> int:
        """The word of 64 pages' "alloc" or "scav" bits that holds this page's."""
        chunk_idx, page_in_chunk = divmod(page, layout.CHUNK_PAGES)
        return int(self._bits[field][chunk_idx, page_in_chunk // 64])


HeapFactory = Callable[..., AbstractContextManager[Heap]]


@contextmanager
def _new_heap(max_pages: int = MAX_PAGES) -> Iterator[Heap]:
    made = segments.create(layout.align_up(max_pages * layout.PAGE_SIZE, layout.ARENA_SIZE))
    segments.map_segments(made)
    segments.map_self(made, 0)
    try:
        heap = Heap()
        heap.runtime.max_pages = max_pages
        heap.p.heap_fd = made.heap_fd
        heap.segment_fd = made.heap_fd
        yield heap
    finally:
        segments.unmap()
        made.close()


@pytest.fixture(scope="session")
def new_heap() -> HeapFactory:
    """Makes a heap: ``with new_heap(max_pages) as heap``. For tests that need one for each example."""
    load_kernels()
    return _new_heap


@pytest.fixture
def heap(new_heap: HeapFactory) -> Iterator[Heap]:
    with new_heap() as made:
        yield made
