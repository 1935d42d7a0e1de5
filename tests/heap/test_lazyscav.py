"""Pages that count as returned and stay in memory: marked, found again, zeroed for whoever gets them, given up oldest first."""

from __future__ import annotations

import pytest

from gomp.core import kernel
from gomp.core.heap import lazyscav, pagecache, palloc, scavenge, scavindex
from gomp.core.sched.locks import begin_critical, end_critical
from gomp.core.shm import libc
from gomp.core.shm.atomics import load64, store64
from gomp.core.shm.layout import CHUNK_PAGES, DENSITIES_BASE, PAGE_SIZE, page_to_addr
from gomp.core.shm.libc import fallocate
from gomp.core.shm.records import density_dtype, view
from gomp.runtime.residency import resident_bytes

ENDLESS = 1 << 62


@pytest.fixture
def lazy(heap):
    """Four chunks in memory, every page taken and holding a number."""
    heap.runtime.scavenge_lazily = 1
    palloc.grow_locked(4)
    palloc.take_pages_locked(0, 4 * CHUNK_PAGES)
    assert fallocate(heap.segment_fd, 0, 4 * CHUNK_PAGES * PAGE_SIZE) == 0
    for page in range(4 * CHUNK_PAGES):
        store64(page_to_addr(page), page + 1)
        store64(page_to_addr(page) + PAGE_SIZE // 2, page + 1)
    yield heap
    heap.runtime.scavenge_lazily = 0


def release(page, npages):
    palloc.free_pages_locked(page, npages, 0)
    assert scavenge.scavenge(npages * PAGE_SIZE, npages * PAGE_SIZE, 1, scavenge.ALWAYS) == npages * PAGE_SIZE


def is_resident(heap, page):
    return libc.resident_bytes(page_to_addr(page), PAGE_SIZE) == PAGE_SIZE


NOTHING = -1  # of pages or bytes


def lazy_since(chunk_idx):
    return int(view(density_dtype, DENSITIES_BASE, 4)[chunk_idx].lazy_since)


def reclaim(npages):
    return lazyscav.reclaim(npages * PAGE_SIZE, ENDLESS) // PAGE_SIZE


def test_they_count_as_released_and_keep_their_bytes(lazy):
    released, committed = int(lazy.mheap.xheap_released), int(lazy.mheap.xheap_committed)
    release(100, 50)
    assert int(lazy.mheap.xheap_released) - released == committed - int(lazy.mheap.xheap_committed) == 50 * PAGE_SIZE
    assert palloc.count_scavenged_pages_locked() == 50
    assert load64(page_to_addr(120)) == 121


def test_what_is_asked_for_comes_back_and_no_more_than_a_piece_beyond(lazy):
    release(100, 200)
    assert 40 <= reclaim(40) < 40 + 32
    assert 200 - 72 <= sum(is_resident(lazy, page) for page in range(100, 300)) <= 160
    assert palloc.count_scavenged_pages_locked() == 200
    assert palloc.check_summaries_locked() == palloc.PALLOC_OK


def test_all_of_it_comes_back_once(lazy):
    release(100, 200)
    release(2 * CHUNK_PAGES + 5, 300)
    assert reclaim(4 * CHUNK_PAGES) == 500
    assert not any(is_resident(lazy, page) for page in (100, 299, 2 * CHUNK_PAGES + 5, 2 * CHUNK_PAGES + 304))
    assert is_resident(lazy, 99)
    assert reclaim(1) == NOTHING


def test_the_oldest_goes_first_wherever_it_is(lazy):
    release(10, 20)
    scavindex.next_generation_locked()
    release(3 * CHUNK_PAGES, 20)
    scavindex.next_generation_locked()
    release(CHUNK_PAGES, 20)
    for oldest in (10, 3 * CHUNK_PAGES, CHUNK_PAGES):
        assert is_resident(lazy, oldest)
        assert reclaim(1) == 20
        assert not is_resident(lazy, oldest)


def test_pages_that_were_taken_again_stay(lazy):
    release(100, 64)
    palloc.take_pages_locked(110, 8)
    assert reclaim(CHUNK_PAGES) == 56
    assert load64(page_to_addr(112)) == 113


def test_pages_that_were_committed_and_never_touched_go_as_well(heap):
    heap.runtime.scavenge_lazily = 1
    palloc.grow_locked(1)
    palloc.take_pages_locked(0, CHUNK_PAGES)
    fallocate(heap.segment_fd, 0, CHUNK_PAGES * PAGE_SIZE)
    release(0, CHUNK_PAGES)
    assert resident_bytes(heap.segment_fd) >= CHUNK_PAGES * PAGE_SIZE
    assert reclaim(CHUNK_PAGES) == 0, "they look like holes"
    assert resident_bytes(heap.segment_fd) < PAGE_SIZE


def test_the_budget_has_what_came_back(lazy):
    release(100, 64)
    before = int(lazy.mheap.xcommit_budget)
    assert reclaim(64) == 64
    assert int(lazy.mheap.xcommit_budget) - before == 64 * PAGE_SIZE


def test_a_part_that_is_left_keeps_its_age(lazy):
    release(100, 200)
    since = lazy_since(0)
    reclaim(1)
    assert lazy_since(0) == since
    reclaim(CHUNK_PAGES)
    assert lazy_since(0) == 0


def test_whoever_never_has_the_time_for_more_than_a_piece_gets_all_of_it_in_the_end(lazy):
    release(100, 200)
    release(2 * CHUNK_PAGES, 300)
    back = [lazyscav.reclaim(ENDLESS, 0) // PAGE_SIZE for _ in range(40)]
    assert sum(n for n in back if n != NOTHING) == 500
    assert back[-1] == NOTHING


@kernel("int64(int64)")
def reclaim_chosen(chunk_idx: int) -> int:
    """What follows on the choice of a chunk: how many bytes are punched out."""
    begin_critical()
    punched, _ = lazyscav._reclaim_chunk(chunk_idx, 1 << 62, ENDLESS)
    end_critical()
    return punched


def test_a_chunk_that_another_has_emptied_since_it_was_chosen_is_left_alone(lazy):
    """It has no age that could be kept: one that it is given meanwhile would be lost."""
    release(100, 64)
    assert reclaim(64) == 64
    assert lazy_since(0) == 0
    assert reclaim_chosen(0) == 0
    release(200, 32)
    assert reclaim_chosen(0) == 96 * PAGE_SIZE


def test_what_a_cache_held_meanwhile_is_found_when_it_gives_it_back(lazy):
    release(64, 64)
    assert pagecache.fill_cache_locked(lazy.p_addr) == 64
    assert reclaim(CHUNK_PAGES) == NOTHING
    assert pagecache.flush_cache_locked(lazy.p_addr) == 64
    assert reclaim(CHUNK_PAGES) == 64
    assert not is_resident(lazy, 64)
