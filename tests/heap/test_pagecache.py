"""The page cache of a P: what it takes, what it hands out, what it gives back. Go's tapes and random actions are in test_palloc."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gomp.core import COMPILED
from gomp.core.heap import palloc
from gomp.core.heap.pagecache import (
    PAGE_CACHE_LIMIT,
    alloc_cached,
    count_scavenged_above,
    fill_cache_locked,
    flush_cache_locked,
    note_committed,
)
from gomp.core.shm import records
from gomp.core.shm.atomics import signed
from gomp.core.shm.layout import CHUNK_PAGES, p_addr

WORDS = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**63, 2**64 - 1, 0x7FFF_0000_FFFF_8001]))


@pytest.fixture
def grown(heap):
    palloc.grow_locked(2)
    return heap


def masks(p):
    return int(p.cache_free) % 2**64, int(p.cache_scav) % 2**64


def test_a_fresh_p_has_an_empty_cache(grown):
    assert alloc_cached(grown.p_addr, 1) == (-1, 0, 0)
    assert flush_cache_locked(grown.p_addr) == 0


def test_filling_takes_every_free_page_of_the_lowest_block_and_no_other(grown):
    palloc.take_pages_locked(0, 70)
    palloc.take_pages_locked(72, 2)
    assert fill_cache_locked(grown.p_addr) == 56
    free = 2**64 - 1 & ~0b11_0011_1111  # all but 64..69, 72 and 73
    assert grown.p.cache_page == 64
    assert masks(grown.p) == (free, free)
    assert palloc.find_pages_locked(1) == 128
    assert palloc.count_free_pages_locked() == 2 * CHUNK_PAGES - 128
    assert palloc.count_scavenged_pages_locked() == 2 * CHUNK_PAGES - 128
    assert palloc.check_summaries_locked() == palloc.PALLOC_OK


def test_the_last_block_of_the_heap_can_be_cached(grown):
    palloc.take_pages_locked(0, 2 * CHUNK_PAGES - 1)
    assert fill_cache_locked(grown.p_addr) == 1
    assert fill_cache_locked(p_addr(1)) == 0
    assert alloc_cached(grown.p_addr, 1) == (2 * CHUNK_PAGES - 1, 1, 0)
    assert alloc_cached(grown.p_addr, 1) == (-1, 0, 0)
    assert palloc.grow_locked(1) == 2 * CHUNK_PAGES
    assert palloc.find_pages_locked(1) == 2 * CHUNK_PAGES


def test_two_ps_share_no_page(grown):
    assert [fill_cache_locked(p_addr(i)) for i in range(3)] == [64, 64, 64]
    pages = [alloc_cached(p_addr(i), 3) for i in (0, 1, 2, 0)]
    assert pages == [(0, 3, 0), (64, 3, 0), (128, 3, 0), (3, 3, 0)]
    assert palloc.alloc_pages_locked(1) == (192, 1)


def test_flushing_lowers_the_search_page_to_the_lowest_page_returned(grown):
    fill_cache_locked(grown.p_addr)
    assert alloc_cached(grown.p_addr, 7) == (0, 7, 0)
    assert palloc.find_pages_locked(1) == 64
    assert flush_cache_locked(grown.p_addr) == 57
    assert palloc.find_pages_locked(1) == 7
    assert masks(grown.p) == (0, 0)
    assert palloc.check_summaries_locked() == palloc.PALLOC_OK


def test_pages_come_back_scavenged_only_if_they_went_so(grown):
    palloc.take_pages_locked(0, 64)
    palloc.free_pages_locked(16, 8, 0)
    palloc.free_pages_locked(40, 4, 1)
    fill_cache_locked(grown.p_addr)
    assert alloc_cached(grown.p_addr, 2) == (16, 0, 0)
    assert flush_cache_locked(grown.p_addr) == 10
    chunk = grown.chunk(0)
    assert (int(~chunk.alloc[0]), int(chunk.scav[0])) == (0b111111 << 18 | 0b1111 << 40, 0b1111 << 40)


@settings(max_examples=300 if COMPILED else 60, deadline=None)
@given(WORDS, WORDS, WORDS, st.lists(st.integers(1, PAGE_CACHE_LIMIT - 1), max_size=12))
def test_each_answer_is_the_lowest_run_of_the_masks(new_heap, free, scav, zero, sizes):
    with new_heap(CHUNK_PAGES) as heap:
        scav, zero = scav & free, zero & free & ~scav
        heap.p.cache_page, heap.p.cache_free = 128, signed(free)
        heap.p.cache_scav, heap.p.cache_zero = signed(scav), signed(zero)
        pages = {k for k in range(64) if free >> k & 1}
        for npages in sizes:
            runs = [i for i in sorted(pages) if all(i + k in pages for k in range(npages))]
            taken = range(runs[0], runs[0] + npages) if runs else range(0)
            expected = 128 + runs[0] if runs else -1, count(scav, taken), count(zero, taken)
            assert alloc_cached(heap.p_addr, npages) == expected
            pages -= {*taken}
            left = sum(1 << k for k in pages)
            assert masks(heap.p) == (left, scav & left)
            assert int(heap.p.cache_zero) % 2**64 == zero & left


def count(mask, places):
    return sum(mask >> k & 1 for k in places)


@pytest.mark.parametrize(
    ("free", "scav", "page", "most", "found"),
    [
        (0b1111_1000, 0b1111_1000, 130, 8, 5), (0b1111_1000, 0b1111_1000, 130, 4, 4), (0b1111_1000, 0b0011_1000, 130, 8, 3),
        (0b1100_1000, 0b1111_1000, 130, 8, 1), (0b1111_1000, 0b1111_0000, 130, 8, 0), (2**64 - 1, 2**64 - 1, 128, 80, 63),
        (2**64 - 1, 2**64 - 1, 191, 8, 0), (2**64 - 1, 2**64 - 1, 127, 8, 0), (2**64 - 1, 2**64 - 1, 300, 8, 0),
        (2**64 - 1, 2**64 - 1, 130, -3, -3),
    ],
)  # fmt: skip
def test_what_may_be_committed_with_a_page_is_above_it_in_the_cache(grown, free, scav, page, most, found):
    """None, or fewer, if there is no such page, or no more than ``most`` allows."""
    grown.p.cache_page, grown.p.cache_free, grown.p.cache_scav = 128, signed(free), signed(scav)
    assert count_scavenged_above(grown.p_addr, page, most) == found


def test_what_was_committed_ahead_is_zero_until_it_is_taken_or_given_back(grown):
    fill_cache_locked(grown.p_addr)
    alloc_cached(grown.p_addr, 1)
    note_committed(grown.p_addr, 1, 7)
    assert (int(grown.p.cache_scav) % 2**64, int(grown.p.cache_zero)) == (2**64 - 256, 0b1111_1110)
    assert alloc_cached(grown.p_addr, 9) == (1, 2, 7)
    note_committed(grown.p_addr, 10, 54)
    flush_cache_locked(grown.p_addr)
    assert int(grown.p.cache_zero) == 0
    assert fill_cache_locked(grown.p_addr) == 54
    assert alloc_cached(grown.p_addr, 1) == (10, 0, 0)


def test_the_masks_are_fields_of_the_p_that_was_named(grown):
    fill_cache_locked(p_addr(5))
    other = records.view(records.p_dtype, p_addr(5))[0]
    assert masks(other) == (2**64 - 1, 2**64 - 1)
    assert masks(grown.p) == (0, 0)
