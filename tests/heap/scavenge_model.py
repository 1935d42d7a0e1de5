"""Which free pages Go's scavenger releases, as tests/data/pagealloc/README.md tells it: plain Python, on lists of bits.

The tapes of the page allocator contain scavenging; this model supplies it, so that they can be replayed on the page allocator alone.
It is told of every change of pages (``grow``, ``took``, ``gave``) and reads which pages are free and scavenged through ``PageBits``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

CHUNK = 512
BUSY = 496  # a chunk with so many pages in use is left alone
PAGE_SIZE = 8192


class PageBits(Protocol):
    def is_free(self, page: int) -> bool: ...
    def is_scavenged(self, page: int) -> bool: ...
    def set_scavenged(self, page: int, npages: int) -> None: ...


@dataclass
class Density:
    """How full a chunk is, and was at the end of the last generation in which it changed."""

    in_use: int = 0
    last_in_use: int = 0
    gen: int = 0
    has_free: bool = False


@dataclass
class Cursor:
    """Where a kind of request goes on searching; page -1: nowhere."""

    page: int = -1
    marked: bool = False


@dataclass
class ScavengeModel:
    bits: PageBits
    huge_pages: int  # pages in a huge page of the system, 0 if it has none
    chunks: list[Density] = field(default_factory=list)
    gen: int = 0
    background: Cursor = field(default_factory=Cursor)
    forced: Cursor = field(default_factory=Cursor)
    freed_max: int = -1

    # --- what happens to pages ---

    def grow(self, nchunks: int) -> None:
        self.chunks += [Density() for _ in range(nchunks)]

    def took(self, page: int, npages: int) -> None:
        for chunk_idx, first, last in _by_chunk(page, npages):
            density = self._of_this_generation(chunk_idx)
            density.in_use += last - first + 1
            if density.in_use == CHUNK:
                density.has_free = False

    def gave(self, page: int, npages: int) -> None:
        for chunk_idx, first, last in _by_chunk(page, npages):
            density = self._of_this_generation(chunk_idx)
            density.in_use -= last - first + 1
            density.has_free = True
            self.freed_max = max(self.freed_max, last)
            if self.forced.page < last:
                self.forced = Cursor(last, True)

    def _of_this_generation(self, chunk_idx: int) -> Density:
        density = self.chunks[chunk_idx]
        if density.gen != self.gen:
            density.last_in_use, density.gen = density.in_use, self.gen
        return density

    def next_gen(self) -> None:
        self.gen += 1
        if self.background.page < self.freed_max:
            self.background = Cursor(self.freed_max, True)
        self.freed_max = -1

    # --- scavenging ---

    def scavenge(self, nbytes: int, force: bool) -> int:
        """Mark pages scavenged until ``nbytes`` are or no more can be; returns how many bytes were."""
        released = 0
        while released < nbytes and (found := self._find(force)):
            chunk_idx, start = found
            npages = self._scavenge_chunk(chunk_idx, start, -(-(nbytes - released) // PAGE_SIZE))
            if npages == 0:
                self.chunks[chunk_idx].has_free = False
            released += npages * PAGE_SIZE
        return released

    def _find(self, force: bool) -> tuple[int, int] | None:
        cursor = self.forced if force else self.background
        if cursor.page < 0:
            return None
        own = cursor.page // CHUNK
        for chunk_idx in range(own, -1, -1):
            if not self._is_eligible(chunk_idx, force):
                continue
            if chunk_idx == own:
                return chunk_idx, cursor.page % CHUNK
            cursor.page, cursor.marked = chunk_idx * CHUNK + CHUNK - 1, False
            return chunk_idx, CHUNK - 1
        if not cursor.marked:
            cursor.page = -1
        return None

    def _is_eligible(self, chunk_idx: int, force: bool) -> bool:
        density = self.chunks[chunk_idx]
        calm = density.in_use < BUSY and (density.gen != self.gen or density.last_in_use < BUSY)
        return density.has_free and (force or calm)

    def _scavenge_chunk(self, chunk_idx: int, start_idx: int, most: int) -> int:
        base = chunk_idx * CHUNK
        page = base + (start_idx | 63)
        while page >= base and not self._is_candidate(page):
            page -= 1
        if page < base:
            return 0
        end = page + 1
        while page > base and self._is_candidate(page - 1):
            page -= 1
        start = self._keep_huge_page_whole(page, end, end - min(end - page, most))
        self.bits.set_scavenged(start, end - start)
        return end - start

    def _is_candidate(self, page: int) -> bool:
        return self.bits.is_free(page) and not self.bits.is_scavenged(page)

    def _keep_huge_page_whole(self, run_start: int, end: int, start: int) -> int:
        """Where to start instead of ``start``, if that would break a huge page that lies in the run as a whole."""
        if self.huge_pages:
            below = start // self.huge_pages * self.huge_pages
            above = -(-start // self.huge_pages) * self.huge_pages
            if above <= end and below >= run_start:
                return below
        return start


def _by_chunk(page: int, npages: int) -> list[tuple[int, int, int]]:
    """The pages chunk by chunk: (chunk, first page, last page)."""
    end = page + npages
    return [
        (c, max(page, c * CHUNK), min(end, (c + 1) * CHUNK) - 1) for c in range(page // CHUNK, (end - 1) // CHUNK + 1)
    ]
