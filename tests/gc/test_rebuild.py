"""Everything derived is filled with garbage and made again; and what a P leaves that was killed in the middle of something is put right."""

from __future__ import annotations

import ctypes
import random

import numpy as np
import pytest
from heap_world import heap_world
from spoil import span_at, spoil

from gomp.core import COMPILED
from gomp.core.gc.rebuild import rebuild_derived_stw
from gomp.core.gc.sweep import try_own
from gomp.core.heap import mspan
from gomp.core.heap.mheap import take_pages
from gomp.core.mutator import boundary
from gomp.core.shm import layout
from gomp.core.shm.atomics import load64
from gomp.core.shm.records import (
    GC_TRIGGER_HEAP,
    MHEAP_XLOCK,
    SPAN_ALLOC_BEFORE_CACHE,
    STEP_CLEARING,
    STEP_SWEEPING,
)

SIZES = (8, 16, 40, 112, 512, 600, 1024, 3000, 9000, 32_000, 50_000, 300_000)


def page_of(world, root):
    return int(mspan.find_span(world.address(root)))


class Contents:
    """A program that allocates, links, drops and remembers what each of its objects holds."""

    def __init__(self, world, rng):
        self.world, self.rng = world, rng
        self.kept = {}

    def step(self):
        world, rng = self.world, self.rng
        size = rng.choice(SIZES)
        words = rng.choice([(), (0,), (size // 8 - 1,)])
        root = world.new(rng.randrange(world.nprocs), size, world.struct_type(size, words) if words else 0)
        if root is None or rng.random() < 0.4:
            if root:
                world.drop(root)
            return
        at = world.address(root)
        fill = rng.randbytes(size)
        if words:  # a reference to something that is kept
            p, slot = root
            target = rng.choice(list(self.kept)) if self.kept else root
            value = world.hold(p, world.address(target))
            fill = bytearray(size)
            fill[8 * words[0] : 8 * words[0] + 8] = world.address(target).to_bytes(8, "little")
            world.be(p)
            assert boundary.write_reference(slot, 8 * words[0], value[1]) == 0
            world.drop(value)
        else:
            ctypes.memmove(at, bytes(fill), size)
        self.kept[root] = bytes(fill)

    def drop_some(self):
        for root in self.rng.sample(list(self.kept), len(self.kept) // 3):
            self.world.drop(root)
            del self.kept[root]

    def check(self):
        for root, data in self.kept.items():
            assert ctypes.string_at(self.world.address(root), len(data)) == data


@pytest.mark.parametrize("seed", range(40 if COMPILED else 2))
def test_a_program_goes_on_after_all_that_is_derived_was_thrown_away(seed):
    rng = random.Random(seed)
    steps = 60 if COMPILED else 12
    with heap_world(nprocs=1 + seed % 3, max_pages=4 * layout.CHUNK_PAGES, gc_percent=5) as world:
        contents = Contents(world, rng)
        for _ in range(4):
            for _ in range(rng.randrange(steps)):
                contents.step()
            contents.drop_some()
            if rng.random() < 0.6:
                world.collect(rng.choice([GC_TRIGGER_HEAP, 2]))
            before = world.verify()
            spoil(world, rng)
            rebuild_derived_stw()
            after = world.verify()
            assert (before.objects, before.reached) == (after.objects, after.reached)
            contents.check()
        world.collect()
        contents.check()
        report = world.verify()
        assert report.objects == report.reached


@pytest.fixture
def world():
    with heap_world(nprocs=2, max_pages=4 * layout.CHUNK_PAGES) as made:
        yield made


def test_rebuilding_twice_changes_nothing(world):
    contents = Contents(world, random.Random(7))
    for _ in range(30):
        contents.step()
    rebuild_derived_stw()
    once = [bytes(ctypes.string_at(layout.CHUNKS_BASE, 512)), bytes(ctypes.string_at(layout.MCENTRALS_BASE, 128 * 136))]
    rebuild_derived_stw()
    assert once == [ctypes.string_at(layout.CHUNKS_BASE, 512), ctypes.string_at(layout.MCENTRALS_BASE, 128 * 136)]
    world.verify()


def test_released_pages_are_zero_and_given_back(world):
    """Whatever a free page held: the next span on it is not zeroed again, because it counts as released."""
    root = world.new(0, 1 << 20)
    addr = world.address(root)
    ctypes.memset(addr, 0xFF, 1 << 20)
    world.drop(root)
    world.collect()
    spoil(world, random.Random(1))
    rebuild_derived_stw()
    assert load64(addr) == 0
    again = world.new(0, 1 << 20)
    assert world.address(again) == addr
    assert ctypes.string_at(addr, 1 << 20) == bytes(1 << 20)
    assert world.mheap.xheap_inuse == 1 << 20


def test_pages_that_a_page_cache_knows_to_be_committed_stay_free(world):
    world.drop(world.new(0, 64 * layout.PAGE_SIZE))
    world.collect()
    world.new(0, 8192)
    assert (world.ps[0].cache_page, world.ps[0].cache_free, world.ps[0].cache_scav) == (0, -2, 0)
    rebuild_derived_stw()
    assert world.ps[0].cache_free == 0
    assert world.mheap.xheap_committed - world.mheap.xheap_inuse == 63 * layout.PAGE_SIZE
    world.verify()


def test_pages_that_are_being_taken_stay_taken(world):
    world.be(0)
    page = take_pages(20, 0)
    rebuild_derived_stw()
    assert world.mheap.pages_in_use == 20
    other = world.new(1, 20 * layout.PAGE_SIZE)
    assert page_of(world, other) >= page + 20 or page_of(world, other) + 20 <= page


def half_swept(world, size, step):
    """Two objects of ``size`` in the span of the one that lives; a sweep of it was begun and got as far as ``step``."""
    live, dead = world.new(0, size), world.new(0, size)
    page = page_of(world, live)
    world.drop(dead)
    world.collect(GC_TRIGGER_HEAP)
    world.be(1)
    assert try_own(page)
    h = int(world.runtime.sweepgen)
    parity = int(mspan.parity_of(mspan.state_of(page)))
    if step == STEP_CLEARING:
        for i in range(8 * int(mspan.bit_words(page)) // 8):
            at = int(mspan.spare_bits_addr(page)) + 8 * i
            ctypes.memmove(at, ctypes.string_at(int(mspan.mark_bits_addr(page)) + 8 * i, 8), 8)
        world.ps[1].small_free[int(span_at(page).span_class) >> 1] += 1
        mspan.set_state(page, mspan.pack_state(h - 1, 1 - parity, STEP_CLEARING, 2))
    return page


@pytest.mark.parametrize("step", [STEP_SWEEPING, STEP_CLEARING])
@pytest.mark.parametrize("size", [64, 2048])
def test_a_sweep_that_its_process_did_not_finish_is_undone_or_finished(world, size, step):
    page = half_swept(world, size, step)
    rebuild_derived_stw()
    report = world.verify()
    swept = step == STEP_CLEARING
    assert report.objects == (1 if swept else 2)
    assert (mspan.sweepgen_of(mspan.state_of(page)) == world.runtime.sweepgen) == swept
    world.collect()
    assert world.verify().objects == 1


def test_a_large_object_that_was_not_counted_yet_goes_away(world):
    """Its process died after the span was made and before the totals were stored: nobody has seen its address."""
    root = world.new(0, 100_000)
    page = page_of(world, root)
    world.drop(root)
    world.ps[0].large_alloc_count -= 1
    world.ps[0].large_alloc -= int(span_at(page).elem_size)
    ctypes.c_int64.from_address(int(mspan.span_addr(page)) + SPAN_ALLOC_BEFORE_CACHE).value = 0
    rebuild_derived_stw()
    assert world.verify().objects == 0
    assert world.mheap.pages_in_use == 0


def test_the_heap_lock_of_a_dead_owner_is_free_afterwards(world):
    world.mheap.xlock = 2
    rebuild_derived_stw()
    assert load64(MHEAP_XLOCK) == 0
    assert world.new(0, 100_000) is not None


def test_an_empty_heap_is_rebuilt(world):
    rebuild_derived_stw()
    assert world.verify().spans == 0
    assert np.all(np.array([p.cache_free for p in world.ps]) == 0)
