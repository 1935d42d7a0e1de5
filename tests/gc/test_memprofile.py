"""The memory profile as the kernels have it: which objects are sampled, when they are seen in it, and what a death leaves of it."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager

import pytest
from heap_world import heap_world
from kernel_heap import in_machine_code
from special_world import Lifetimes

from gomp.core.gc import repair
from gomp.core.gc.memprofile import find_or_make_bucket_locked, publish
from gomp.core.gc.specials import profile_locked
from gomp.core.heap import mspan
from gomp.core.heap.mcache import entry_addr
from gomp.core.heap.sizeclass import SIZES as CLASS_SIZES
from gomp.core.sched.status import OK
from gomp.core.shm import layout, records
from gomp.core.shm.atomics import store64
from gomp.core.shm.records import GC_TRIGGER_FORCED, GC_TRIGGER_HEAP
from gomp.runtime import memprofile

CLASS_OF_64 = 2 * CLASS_SIZES.index(64) + 1  # without references
SIZES = (5, 8, 16, 64, 512, 600, 3000, 40_000)


@contextmanager
def profiled_heap(rate, nprocs=1):
    with heap_world(nprocs) as world:
        records.view(records.memprofile_dtype, records.MEMPROFILE)[0].rate = rate
        for p in world.ps:
            p.cheaprand = 12345
        yield world


def in_use():
    """By size, how many sampled objects are in use as the profile has it."""
    return {r.object_bytes: r.in_use for r in memprofile.read() if r.in_use}


def made():
    return {r.object_bytes: r.allocs for r in memprofile.read()}


@pytest.mark.parametrize("size", SIZES)
def test_with_rate_1_each_block_is_sampled_and_dies_with_its_object(size):
    with profiled_heap(1) as world:
        roots = [world.new(0, size) for _ in range(70)]
        page = mspan.find_span(world.address(roots[0]))
        slot = int(records.view(records.span_dtype, mspan.span_addr(page))[0].elem_size)
        n = -(-70 // (slot // size if size < 16 else 1))  # small ones share a block
        assert in_use() == {slot: n}
        world.collect()
        assert in_use() == {slot: n}
        for root in roots:
            world.drop(root)
        world.collect()
        world.verify()
        assert in_use() == {}
        assert made() == {slot: n}


def test_with_rate_0_nothing_is_sampled():
    with profiled_heap(0) as world:
        for size in SIZES:
            world.new(0, size)
        assert memprofile.read() == []


def test_it_is_published_when_the_sweep_of_its_cycle_is_over():
    """An object counts for the marking that comes after it is made; and that is shown once its sweep is over: by a forced collection, or the next."""
    with profiled_heap(1) as world:
        first = world.new(0, 64)
        assert in_use() == {64: 1}, "before the first cycle there is nothing but the future"
        world.collect(GC_TRIGGER_HEAP)
        second = world.new(0, 64)
        world.collect(GC_TRIGGER_HEAP)
        assert in_use() == {64: 1}, "the first cycle, whose sweep is over"
        world.collect(GC_TRIGGER_HEAP)
        assert in_use() == {64: 2}
        world.drop(first)
        world.drop(second)
        world.collect(GC_TRIGGER_HEAP)
        assert in_use() == {64: 2}, "what dies in a cycle is seen in the next"
        world.collect(GC_TRIGGER_HEAP)
        assert in_use() == {}
        world.new(0, 64)
        world.collect(GC_TRIGGER_FORCED)
        assert in_use() == {64: 1}
        world.verify()


@in_machine_code
@pytest.mark.parametrize("size", [16, 64, 1024, 40_000])
def test_what_is_sampled_stands_for_all(size):
    """The samples of a Poisson process: four times the standard deviation is a generator that is wrong."""
    rate, n = 32 << 10, 40_000 if size < 1024 else 400_000 // (size // 100)
    with profiled_heap(rate) as world:
        for i in range(n):
            world.drop(world.new(0, size))
            if i % 10_000 == 9_999:
                world.collect()
        (found,) = memprofile.read()
        chance = 1 - math.exp(-found.object_bytes / rate)
        deviation = math.sqrt(n * chance * (1 - chance)) / chance
        assert abs(found.alloc_objects - n) < 4 * deviation + 1 / chance
        assert found.alloc_bytes == pytest.approx(found.alloc_objects * found.object_bytes, rel=0.001)


def test_what_is_held_back_of_a_window_is_free():
    """The fast path has the slots before the sampled one: what follows is neither lost nor given out twice."""
    with profiled_heap(700) as world:
        roots = [world.new(0, 64) for _ in range(300)]
        assert len({world.address(root) for root in roots}) == 300
        entry = records.view(records.mcache_dtype, entry_addr(layout.p_addr(0), CLASS_OF_64))[0]
        assert entry.free & entry.held == 0
        world.verify()
        world.collect()
        world.verify()
        assert sum(in_use().values()) == sum(r.in_use for r in memprofile.read()) > 10


def test_who_is_resurrected_stays_in_it():
    with profiled_heap(1) as world:
        x, root = Lifetimes(world), world.new(0, 64)
        x.finalizer(root, 7)
        x.cleanup(root, 8)
        world.drop(root)
        world.collect()
        assert in_use() == {64: 1}
        assert x.run() == [("finalizer", 7)]
        world.collect()
        assert in_use() == {}
        assert x.run() == [("cleanup", 8)]
        world.verify()


def test_an_object_that_a_killed_process_was_about_to_make_is_dead():
    with profiled_heap(1, nprocs=2) as world:
        kept = world.new(0, 64)
        world.be(1)
        lost = world.new(1, 64)
        entry = entry_addr(layout.p_addr(1), CLASS_OF_64)
        slot = mspan.obj_addr(mspan.find_span(world.address(lost)), 1)
        assert records.view(records.mcache_dtype, entry)[0].window == 0
        assert profile_locked(slot, 1) > 0
        world.be(layout.COORDINATOR_P)
        repair.bury(layout.p_addr(1))
        assert repair.repair(time.monotonic_ns() + 10**10) == OK
        world.verify()
        world.be(0)
        world.collect()
        assert in_use() == {64: 1}
        world.drop(kept)
        world.collect()
        assert in_use() == {}
        assert made() == {64: 3}


@in_machine_code
def test_when_the_table_is_full_objects_count_by_their_size():
    with profiled_heap(1) as world:
        stack = world.address(world.new(0, 16))  # any two words

        def bucket(i, size):
            store64(stack, i + 1)
            return find_or_make_bucket_locked(stack, 1, size)

        most = layout.MAX_BUCKETS - 512
        first = [bucket(i, 64) for i in range(most - 1)]
        assert len(set(first)) == most - 1
        assert [bucket(i, 64) for i in (0, 100, most - 2)] == [first[0], first[100], first[-1]]
        without = bucket(most, 64)
        assert without not in first
        assert bucket(most + 1, 64) == without != bucket(most + 1, 128)
        publish(0)
        world.verify()
