"""Allocation: which slot a request gets, that it is zero, what is counted when, when memory runs out, and what the fast path is made of."""

from __future__ import annotations

import ctypes
import json
import platform
import re
from itertools import pairwise
from pathlib import Path

import pytest
from heap_world import heap_world
from numba import njit

from gomp.core import COMPILED, kernel
from gomp.core.heap import mspan, scavenge
from gomp.core.heap.mcache import release_all_stw
from gomp.core.heap.sizeclass import SPAN_NELEMS, TINY_SPAN_CLASS
from gomp.core.mutator import boundary
from gomp.core.mutator.malloc import new_bytes, new_small, new_typed
from gomp.core.mutator.types import find_type
from gomp.core.sched.status import enter, leave
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_relaxed, load64, store64
from gomp.core.shm.records import GC_TRIGGER_LAST_RESORT, self_p, span_dtype, spans
from gomp.core.shm.records import view as view_of

DATA = Path(__file__).parents[1] / "data" / "sizeclasses"
MIB = 1 << 20


@kernel("int64(int64, int64)")
def place(size, type_addr):
    """Allocate garbage: the address, or what ``new`` said."""
    enter()
    addr = new_bytes(size, 0) if type_addr == 0 else new_typed(size, type_addr, 0)
    leave()
    return addr


def span_at(addr):
    return view_of(span_dtype, mspan.span_addr(mspan.find_span(addr)))[0]


@pytest.fixture
def world():
    with heap_world(nprocs=2, max_pages=layout.ARENA_PAGES) as made:
        yield made


# --- which slot ---------------------------------------------------------------------------------------------------------


def go_slots(kind):
    """(lowest request, highest, slot bytes, header bytes, size class), as real Go placed them."""
    return json.loads((DATA / "observed.json").read_text())[kind]


@pytest.mark.parametrize("kind", ["noscan", "scan"])
def test_every_request_gets_the_slot_that_go_gives_it(world, kind):
    type_addr = find_type(world.struct_type(8, (0,))) if kind == "scan" else 0
    for lo, hi, slot_bytes, header, size_class in go_slots(kind):
        for request in range(lo, hi + 1) if COMPILED else (lo, hi):
            size = -(-request // 8) * 8 if type_addr else request
            addr = place(size, type_addr)
            page = mspan.find_span(addr)
            span = view_of(span_dtype, mspan.span_addr(page))[0]
            slot = mspan.obj_addr(page, mspan.obj_idx_of(page, addr))
            assert (span.elem_size, span.span_class) == (slot_bytes, 2 * size_class + (type_addr == 0)), request
            if size >= 16 or type_addr:
                assert addr - slot == header, request
                assert addr % 8 == 0
            if request % 500 == 0:
                world.collect()
    world.verify()


def test_slots_are_handed_out_by_address(world):
    addresses = [place(48, 0) for _ in range(400)]
    assert addresses == sorted(addresses)
    assert {b - a for a, b in pairwise(addresses[:100])} == {48}


def test_a_slot_that_was_swept_is_used_again_lowest_first(world):
    roots = [world.new(0, 1024) for _ in range(24)]
    addresses = [world.address(root) for root in roots]
    for i in (3, 10, 17):
        world.drop(roots[i])
    world.collect()
    assert [place(1024, 0) for _ in range(3)] == [addresses[i] for i in (3, 10, 17)]


def test_an_object_above_512_bytes_with_references_names_its_type_before_it(world):
    key = world.struct_type(600, (70,))
    addr = world.address(world.new(0, 600, key))
    assert load64(addr - 8) == find_type(key)
    assert load64(addr + 600 - 8) == 0


def test_a_large_object_with_references_has_its_type_in_the_span(world):
    key = world.struct_type(50_000, (6000,))
    addr = world.address(world.new(0, 50_000, key))
    assert addr % layout.PAGE_SIZE == 0
    assert span_at(addr).large_type == find_type(key)
    assert span_at(addr).limit == addr + 50_000
    assert span_at(world.address(world.new(0, 50_000))).large_type == 0


# --- tiny objects -------------------------------------------------------------------------------------------------------


def test_tiny_objects_share_blocks_by_their_alignment(world):
    first = place(1, 0)
    assert first % 16 == 0
    assert [place(size, 0) - first for size in (2, 4, 1, 3)] == [2, 4, 8, 9]
    assert place(4, 0) - first == 12
    assert place(1, 0) == first + 16


def test_a_tiny_object_is_aligned_to_eight_if_its_size_is(world):
    first = place(3, 0)
    assert place(8, 0) - first == 8


def test_the_block_with_more_room_left_stays_the_current_one(world):
    first = place(5, 0)
    assert place(12, 0) == first + 16  # leaves 4 bytes, the first has 11
    assert place(6, 0) == first + 6
    assert place(8, 0) == first + 32  # 12 are used, 8 leave more room
    assert place(8, 0) == first + 40


def test_the_current_block_is_forgotten_when_the_cache_is_flushed(world):
    first = place(1, 0)
    release_all_stw(layout.p_addr(0))
    assert place(1, 0) == first + 16
    assert world.ps[0].tiny_alloc_count == 0
    assert place(1, 0) == first + 17
    release_all_stw(layout.p_addr(0))
    assert world.ps[0].tiny_alloc_count == 1


def test_a_block_lives_while_one_of_its_objects_does(world):
    roots = [world.new(0, 4) for _ in range(4)]
    block = world.address(roots[0])
    for root in roots[:3]:
        world.drop(root)
    world.collect()
    assert world.verify().objects == 1
    assert world.address(roots[3]) == block + 12


# --- zero ---------------------------------------------------------------------------------------------------------------


REUSERS = [
    (16, ()),
    (16, (1,)),
    (64, (0,)),
    (512, (63,)),
    (600, (1,)),
    (9000, ()),
    (32_760, (9,)),
    (100_000, ()),
    (100_000, (3,)),
]


@pytest.mark.parametrize(("size", "words"), REUSERS)
def test_pages_that_held_other_objects_are_zeroed(world, size, words):
    """One object fills 1 MiB with ones; it dies, and its pages become spans of every kind: their bits and objects start at zero."""
    old = world.new(0, MIB)
    ctypes.memset(world.address(old), 0xFF, MIB)
    world.drop(old)
    world.collect()
    key = world.struct_type(size, words) if words else 0
    for _ in range(min(300, MIB // size)) if COMPILED else range(5):
        root = world.new(0, size, key)
        assert ctypes.string_at(world.address(root), size) == bytes(size)
    world.verify()
    world.collect()
    world.verify()


def test_a_slot_is_zeroed_again_after_it_was_clobbered(world):
    world.runtime.clobberfree = 1
    root = world.new(0, 1024)
    keep = world.new(0, 1024)
    addr = world.address(root)
    world.drop(root)
    world.collect()
    assert ctypes.string_at(addr, 1024) == (0xDEADBEEFDEADBEEF).to_bytes(8, "little") * 128
    again = world.new(0, 1024)
    assert world.address(again) == addr
    assert ctypes.string_at(addr, 1024) == bytes(1024)
    assert world.address(keep) == addr + 1024


def test_a_large_object_is_opaque_until_it_is_zeroed(world):
    """A collection that meets it before its type is published keeps it, and does not follow what its pages held before."""
    root = world.new(0, 100_000, world.struct_type(100_000, (0, 1)))
    addr = world.address(root)
    nowhere = layout.page_to_addr(layout.ARENA_PAGES - 1)
    store64(addr, nowhere)
    type_addr = span_at(addr).large_type
    span_at(addr).large_type = 0
    world.collect()
    assert world.verify().objects == 1
    store64(addr, 0)
    span_at(addr).large_type = type_addr
    world.collect()
    assert world.verify().objects == 1


# --- what is counted when -----------------------------------------------------------------------------------------------


def test_heap_live_moves_at_refills_by_all_that_the_span_could_still_hold(world):
    place(1024, 0)
    assert world.pacer.xheap_live == layout.PAGE_SIZE
    for _ in range(7):
        place(1024, 0)
    assert world.pacer.xheap_live == layout.PAGE_SIZE
    place(1024, 0)
    assert world.pacer.xheap_live == 2 * layout.PAGE_SIZE


def test_heap_live_gives_back_the_slots_that_were_not_used_when_the_cache_is_flushed(world):
    place(100, 0)
    release_all_stw(layout.p_addr(0))
    nelems = SPAN_NELEMS[2 * 9 + 1]
    assert world.pacer.xheap_live == layout.PAGE_SIZE - (nelems - 1) * 112


def test_heap_live_counts_the_pages_of_a_large_object(world):
    place(40_000, 0)
    assert world.pacer.xheap_live == 40_960


def test_heap_scan_moves_when_the_span_is_changed_or_flushed(world):
    type_addr = find_type(world.struct_type(64, (1, 3)))
    place(64, type_addr)
    place(64, type_addr)
    assert (world.ps[0].scan_alloc, world.pacer.xheap_scan) == (64, 0)  # 32 bytes each, up to the last reference
    place(100_000, 0)  # a large object flushes, too
    assert (world.ps[0].scan_alloc, world.pacer.xheap_scan) == (0, 64)


@pytest.mark.parametrize(
    ("size", "words", "scan"), [(8, (0,), 8), (512, (0,), 8), (600, (0,), 640), (100_000, (0,), 106_496)]
)
def test_what_an_object_adds_to_heap_scan(world, size, words, scan):
    place(size, find_type(world.struct_type(size, words)))
    release_all_stw(layout.p_addr(0))
    assert world.pacer.xheap_scan == scan


def test_after_a_cycle_heap_live_is_what_was_marked(world):
    kept = [world.new(0, 100) for _ in range(10)]
    for root in kept[5:]:
        world.drop(root)
    world.new(0, 40_000)
    world.collect()
    assert world.pacer.xheap_live == world.pacer.heap_marked == 5 * 112 + 40_960
    assert world.pacer.xheap_scan == 0


def test_after_a_cycle_heap_scan_is_what_was_scanned(world):
    for size, words in ((64, (1, 3)), (600, (0, 2)), (8, (0,))):
        world.new(0, size, world.struct_type(size, words))
    world.collect()
    assert world.pacer.xheap_scan == world.pacer.xheap_scan_work == 32 + 24 + 8


# --- no memory ----------------------------------------------------------------------------------------------------------


def test_when_memory_runs_out_one_collection_is_tried_and_then_it_is_an_error():
    with heap_world(max_pages=layout.CHUNK_PAGES) as world:
        roots = [world.new(0, MIB) for _ in range(4)]
        assert None not in roots
        cycles = int(world.runtime.xcycles)
        assert world.new(0, MIB) is None
        assert world.runtime.xcycles == cycles + 1
        assert world.runtime.xgc_request in (0, GC_TRIGGER_LAST_RESORT)
        world.drop(roots[2])
        assert world.new(0, MIB) is not None
        assert world.verify().objects == 4


def test_garbage_is_found_before_memory_is_said_to_be_out():
    with heap_world(max_pages=layout.CHUNK_PAGES) as world:
        for _ in range(20):
            root = world.new(0, MIB)
            assert root is not None
            world.drop(root)
        world.verify()


def test_small_objects_run_out_too():
    with heap_world(max_pages=layout.CHUNK_PAGES) as world:
        world.new(0, 4 * MIB - 5 * layout.PAGE_SIZE)
        count = 0
        while world.new(0, 8192) is not None:
            count += 1
        assert count == 5
        assert world.new(0, 16) is None
        world.verify()


def test_a_heap_that_has_the_pages_but_not_in_a_row_says_so():
    with heap_world(max_pages=layout.CHUNK_PAGES) as world:
        roots = [world.new(0, MIB // 2) for _ in range(8)]
        for root in roots[::2]:
            world.drop(root)
        assert world.new(0, MIB) is None
        assert world.new(0, MIB // 2) is not None
        world.verify()


def test_pages_of_a_commit_that_failed_are_zero_when_they_are_used(world):
    """The system has room for a part of the request, whose first pages hold old data: all of them go back, and count as released."""
    old = world.new(0, MIB)
    ctypes.memset(world.address(old), 0xFF, MIB)
    world.drop(old)
    world.collect()
    world.mheap.xcommit_budget = MIB // 2
    assert world.new(0, 2 * MIB) is None
    world.verify()
    assert (world.mheap.xheap_inuse, world.mheap.xheap_committed) == (0, 0)
    world.mheap.xcommit_budget = 1 << 40
    again = world.new(0, 2 * MIB)
    assert ctypes.string_at(world.address(again), 2 * MIB) == bytes(2 * MIB)
    world.verify()


def test_what_is_free_elsewhere_makes_room_where_no_more_may_be_committed(world):
    """The lowest pages have been returned to the system, and the budget is used up."""
    low, high = world.new(0, MIB), world.new(0, MIB)
    for root in (low, high):
        world.drop(root)
        world.collect()
        if root == low:
            assert scavenge.scavenge(MIB, MIB, 1, scavenge.ALWAYS) == MIB
    world.mheap.xcommit_budget = 0
    assert world.new(0, MIB) is not None
    assert world.mheap.xcommit_budget == 0
    world.mheap.xcommit_budget = 1 << 40
    world.verify()


# --- the fast path ------------------------------------------------------------------------------------------------------

ATOMIC = {
    "x86_64": r"\block\b|\bxchg|\bmfence",
    "aarch64": r"\bld?(?:a|l)*xr|\bst(?:l)?xr|\b(?:cas|swp|ldadd|ldset|ldclr)[a-z]*\b",
}[platform.machine()]


def _fast_path(n):
    for _ in range(n):
        new_small(4, 16, 2, 3, 16, 1)
    return n


def _with_an_atomic(n):
    return add_relaxed(layout.RUNTIME_BASE, n)


def _assembly(function):
    compiled = njit("int64(int64)", error_model="numpy")(function)
    return "\n".join(compiled.inspect_asm().values())


if COMPILED:

    def test_the_fast_path_takes_no_lock_and_has_no_atomic_read_modify_write(world):
        assert world.pacer.xheap_live == 0  # the kernels are loaded, so that the slow path can be linked
        assert not re.search(ATOMIC, _assembly(_fast_path))
        assert re.search(ATOMIC, _assembly(_with_an_atomic))


def test_a_window_of_slots_is_taken_without_a_call_of_the_slow_path(world):
    place(32, 0)
    slow = int(world.ps[0].slow_allocs)
    for _ in range(63):
        place(32, 0)
    assert world.ps[0].slow_allocs == slow
    place(32, 0)
    assert world.ps[0].slow_allocs == slow + 1


# --- a cycle is asked for -----------------------------------------------------------------------------------------------


def test_the_trigger_is_tested_when_a_span_is_refilled(world):
    world.pacer.heap_marked = world.pacer.gc_percent_goal = 3 * layout.PAGE_SIZE
    slot = boundary.grow_handles(1)
    statuses = [boundary.new_object(slot, 4096, 0, 0) for _ in range(5)]
    assert statuses == [0, 0, 0, 0, boundary.WAIT_BASE]  # the third refill; its object is in the handle already
    assert world.runtime.xgc_request == 1


def test_a_large_allocation_always_tests_the_trigger(world):
    world.pacer.heap_marked = world.pacer.gc_percent_goal = 50_000
    slot = boundary.grow_handles(1)
    assert boundary.new_object(slot, 40_000, 0, 0) == 0
    assert boundary.new_object(slot, 40_000, 0, 0) == boundary.WAIT_BASE


@kernel("int64()")
def tiny_class_of_self():
    return self_p().idx * 1000 + spans()[0].span_class


def test_each_p_has_its_own_cache(world):
    mine = world.address(world.new(0, 8))
    theirs = world.address(world.new(1, 8))
    assert mspan.find_span(mine) != mspan.find_span(theirs)
    assert tiny_class_of_self() == 1000 + TINY_SPAN_CLASS


# --- when there is hardly any memory ------------------------------------------------------------------------------------


def test_what_is_free_at_the_end_counts_when_the_heap_may_hardly_grow():
    with heap_world(max_pages=2 * layout.CHUNK_PAGES) as world:
        kept = world.new(0, 300 * layout.PAGE_SIZE)
        assert world.new(0, 600 * layout.PAGE_SIZE) is not None
        assert kept
        world.verify()


def test_pages_in_the_cache_of_an_idle_p_are_found_by_another():
    with heap_world(nprocs=3, max_pages=layout.CHUNK_PAGES) as world:
        for p in (1, 2):
            for _ in range(2):
                world.drop(world.new(p, 8192))
            assert world.ps[p].cache_free != 0
        world.collect()
        assert world.new(0, layout.CHUNK_PAGES * layout.PAGE_SIZE - 1) is not None
