"""What has to be zeroed before it is an object: what has been one. And memory comes from the system 64 KiB at a time, if there is room."""

from __future__ import annotations

import os

import pytest
from heap_world import heap_world

from gomp.core.gc import pacer, rebuild
from gomp.core.heap import mspan, scavenge
from gomp.core.mutator import boundary
from gomp.core.shm import layout
from gomp.core.shm.atomics import load64, store64
from gomp.core.shm.commit import ENDLESS
from gomp.core.shm.records import span_dtype, view

SIZE = 2048  # four to a page, so that a span is one
AHEAD = 8 * layout.PAGE_SIZE
NEXT = 10  # pages above the first: seven that are committed, and three that are not


@pytest.fixture
def world():
    with heap_world(nprocs=2, max_pages=layout.CHUNK_PAGES) as made:
        yield made


def span_of(world, root):
    return view(span_dtype, mspan.span_addr(mspan.find_span(world.address(root))))[0]


def dirty(world, root):
    """As a program does with its object."""
    for addr in range(world.address(root), world.address(root) + SIZE, 8):
        store64(addr, -1)


def given(world):
    """Bytes of the heap that the file system has."""
    return 512 * os.fstat(world.segments.heap_fd).st_blocks


def is_zero(world, root):
    return all(load64(addr) == 0 for addr in range(world.address(root), world.address(root) + SIZE, 8))


def test_memory_of_the_system_is_not_touched(world):
    first = world.new(0, SIZE)
    assert span_of(world, first).needzero == 0
    store64(world.address(first) + SIZE, 7)  # in the next slot, which nobody has
    assert load64(world.address(world.new(0, SIZE))) == 7


def test_what_an_object_has_left_is_zeroed(world):
    kept, dropped = world.new(0, SIZE), world.new(0, SIZE)
    dirty(world, dropped)
    at = world.address(dropped)
    world.drop(dropped)
    world.collect()
    again = [world.new(0, SIZE) for _ in range(3)]
    assert at in map(world.address, again)
    assert span_of(world, kept).needzero == 1
    assert all(is_zero(world, root) for root in again)


def test_pages_of_a_dead_span_are_zeroed_unless_the_system_has_had_them(world):
    for root in [world.new(0, SIZE) for _ in range(4)]:
        dirty(world, root)
        world.drop(root)
    world.collect()
    with_old = world.new(0, SIZE)
    assert span_of(world, with_old).needzero == 1
    assert is_zero(world, with_old)
    world.drop(with_old)
    world.collect()
    scavenge.scavenge(1 << 20, 1 << 20, 1, scavenge.ALWAYS)
    assert world.mheap.xheap_committed == 0
    with_new = world.new(0, SIZE)
    assert span_of(world, with_new).needzero == 0
    assert is_zero(world, with_new)


def test_who_is_killed_may_have_begun_with_the_next_object(world):
    first = world.new(0, SIZE)
    store64(world.address(first) + SIZE, 7)
    with world.as_coordinator():
        rebuild.rebuild_derived_stw()
    world.be(0)
    assert span_of(world, first).needzero == 1
    assert all(is_zero(world, world.new(0, SIZE)) for _ in range(3))
    world.verify()


def test_pages_are_committed_some_at_a_time_and_stay_zero(world):
    roots = [world.new(0, SIZE)]
    assert world.mheap.xheap_committed == AHEAD
    while len(roots) < AHEAD // SIZE:
        roots.append(world.new(0, SIZE))
        assert span_of(world, roots[-1]).needzero == 0
    assert world.mheap.xheap_committed == AHEAD
    world.verify()
    roots.append(world.new(0, SIZE))
    assert world.mheap.xheap_committed == 2 * AHEAD
    world.collect()  # the caches are emptied
    report = world.verify()
    assert report.objects == len(roots)


def at_its_limit(world):
    pacer.set_memory_limit(1)


def with_a_budget_for_one_page(world):
    world.mheap.xcommit_budget = layout.PAGE_SIZE


def that_returns_lazily(world):
    world.runtime.scavenge_lazily = 1


@pytest.mark.parametrize("prepare", [at_its_limit, with_a_budget_for_one_page, that_returns_lazily])
def test_no_page_is_committed_ahead_by_a_heap(world, prepare):
    node = world.new(0, 16)  # what handles and types need is there
    world.drop(node)
    world.collect()
    scavenge.scavenge(1 << 20, 1 << 20, 1, scavenge.ALWAYS)
    prepare(world)
    assert world.mheap.xheap_committed == 0
    world.new(0, SIZE)
    assert world.mheap.xheap_committed == layout.PAGE_SIZE
    world.mheap.xcommit_budget = ENDLESS  # the verifier takes memory, too
    world.verify()


def test_what_was_committed_ahead_goes_back_with_what_cannot_be_committed(world):
    first, size = world.new(0, SIZE), NEXT * layout.PAGE_SIZE
    assert world.mheap.xheap_committed == AHEAD
    world.mheap.xcommit_budget = 0
    assert boundary.new_object(world._free_slot(0), size, 0, 0) <= -boundary.WAIT_BASE  # only a collection can help
    assert world.mheap.xheap_committed == given(world) == layout.PAGE_SIZE
    world.mheap.xcommit_budget = ENDLESS
    world.verify()
    world.collect()
    big = world.new(0, size)
    at = world.address(big)
    assert at == world.address(first) + layout.PAGE_SIZE
    assert span_of(world, big).needzero == 0
    assert all(load64(addr) == 0 for addr in range(at, at + size, 8))
    assert world.mheap.xheap_committed == given(world) == layout.PAGE_SIZE + size
    world.verify()


def test_a_page_that_was_committed_ahead_is_zeroed_once_somebody_has_had_it(world):
    first = world.new(0, SIZE)
    second = [world.new(0, SIZE) for _ in range(7)][-1]  # in the next page
    assert span_of(world, second).needzero == 0
    at = world.address(second)
    dirty(world, second)
    world.drop(second)
    world.collect()
    roots = []
    while at not in map(world.address, roots):
        roots.append(world.new(0, SIZE))
    assert all(is_zero(world, root) for root in roots)
    world.drop(first)
    world.verify()


def test_what_a_flushed_cache_has_known_of_pages_is_forgotten(world):
    world.new(0, SIZE)  # and the next seven pages are committed, and zero
    world.collect()
    others = [world.new(1, layout.PAGE_SIZE) for _ in range(7)]
    for root in others:
        for addr in range(world.address(root), world.address(root) + layout.PAGE_SIZE, 8):
            store64(addr, -1)
        world.drop(root)
    world.collect()
    big = world.new(0, 20 * layout.PAGE_SIZE)  # those pages among others
    at = world.address(big)
    assert span_of(world, big).needzero == 1
    assert all(load64(addr) == 0 for addr in range(at, at + 20 * layout.PAGE_SIZE, 8))
    world.verify()
