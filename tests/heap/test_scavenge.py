"""Which free pages go back first, and what is left of the choice when a process died (the tapes in test_palloc replay the order itself)."""

from __future__ import annotations

import errno
import os

import pytest

from gomp.core.heap import palloc, scavenge, scavindex
from gomp.core.heap.punch import punch
from gomp.core.shm.layout import CHUNK_PAGES, PAGE_SIZE, SELF_BASE
from gomp.core.shm.records import p_dtype, view
from gomp.runtime.throws import thrown


@pytest.fixture
def full(heap):
    """Four chunks, every page taken."""
    palloc.grow_locked(4)
    palloc.take_pages_locked(0, 4 * CHUNK_PAGES)
    return heap


def release(npages, force):
    return scavenge.scavenge(npages * PAGE_SIZE, npages * PAGE_SIZE, force, scavenge.ALWAYS) // PAGE_SIZE


def is_released(heap, page):
    return bool(heap.word("scav", page) >> page % 64 & 1)


def test_the_highest_pages_go_first(full):
    palloc.free_pages_locked(100, 50, 0)
    palloc.free_pages_locked(3 * CHUNK_PAGES + 7, 50, 0)
    assert release(60, 1) == 60
    assert all(is_released(full, 3 * CHUNK_PAGES + 7 + i) for i in range(50))
    assert [is_released(full, 100 + i) for i in range(50)] == [False] * 40 + [True] * 10


def test_the_budget_has_what_came_back(full):
    palloc.free_pages_locked(100, 50, 0)
    before = int(full.mheap.xcommit_budget)
    assert release(50, 1) == 50
    assert int(full.mheap.xcommit_budget) - before == 50 * PAGE_SIZE


def test_in_the_background_nothing_goes_that_was_freed_in_this_generation(full):
    palloc.free_pages_locked(0, 200, 0)
    assert release(10, 0) == 0
    scavindex.next_generation_locked()
    assert release(10, 0) == 10


def test_a_chunk_that_is_nearly_full_is_left_alone_unless_it_is_forced(full):
    palloc.free_pages_locked(0, 16, 0)  # 496 of 512 stay
    scavindex.next_generation_locked()
    scavindex.next_generation_locked()
    assert release(16, 0) == 0
    assert release(16, 1) == 16


def test_so_is_one_that_was_so_at_the_end_of_the_last_generation(full):
    scavindex.next_generation_locked()
    palloc.free_pages_locked(0, 100, 0)
    scavindex.next_generation_locked()
    palloc.free_pages_locked(100, 1, 0)  # dense no more, and was not at the end of the last one
    assert release(1, 0) == 1
    scavindex.next_generation_locked()
    palloc.take_pages_locked(0, 99)
    scavindex.next_generation_locked()
    palloc.free_pages_locked(0, 99, 0)
    assert release(1, 0) == 0


def test_what_is_being_returned_counts_as_free_to_the_index(full):
    palloc.free_pages_locked(0, 64, 0)
    before = int(full.mheap.scav_gen), scavindex.is_density_right_locked(0)
    assert release(64, 1) == 64
    assert palloc.check_summaries_locked() == palloc.PALLOC_OK
    assert before == (int(full.mheap.scav_gen), True)


def test_after_a_death_every_chunk_is_counted_and_searched_anew(full):
    palloc.free_pages_locked(700, 30, 0)
    full.mheap.scav_forced = full.mheap.scav_background = 0
    full.mheap.held = 1  # whoever held the lock has died in the middle
    palloc.lock_heap()
    palloc.unlock_heap()
    assert palloc.check_summaries_locked() == palloc.PALLOC_OK
    assert release(30, 1) == 30


def test_memory_that_the_system_does_not_take_back_ends_the_runtime(full):
    """It would be handed out as zeros, and is not."""
    me = view(p_dtype, SELF_BASE)[0]
    me.heap_fd, me.wake_fd = -1, os.eventfd(0)
    punch(7, 1)
    os.close(int(me.wake_fd))
    assert thrown() == f"the system does not take back the memory of page 7: errno {errno.EBADF}"
