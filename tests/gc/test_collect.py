"""One cycle: what is a root, what is followed, what is counted, what dies."""

from __future__ import annotations

import pytest
from heap_world import heap_world

from gomp.core import COMPILED
from gomp.core.gc import goal, pacer, rebuild
from gomp.core.gc.mark import PIECE
from gomp.core.heap import mspan
from gomp.core.mutator import boundary
from gomp.core.shm import layout, records
from gomp.core.shm.atomics import store64
from gomp.core.shm.records import GC_TRIGGER_HEAP, WBUF_OBJECTS

NODE = 64


@pytest.fixture
def world():
    with heap_world(nprocs=2, max_pages=layout.ARENA_PAGES) as made:
        yield made


def node(world, p=0):
    return world.new(p, NODE, world.struct_type(NODE, (0, 3)))


def survivors(world):
    world.collect()
    report = world.verify()
    assert report.objects == report.reached
    return report.objects


def native_roots(world, p, words):
    """As a P leaves them that waits inside a program."""
    for i, word in enumerate(words):
        store64(layout.native_roots_addr(p) + 8 * i, word)
    world.ps[p].xnative_n = len(words)


def test_without_roots_everything_dies_and_its_pages_are_free(world):
    for size in (8, 64, 600, 40_000):
        world.drop(world.new(0, size))
    assert survivors(world) == 0
    assert world.mheap.xheap_inuse == world.pacer.xheap_live == 0


def test_a_handle_of_any_p_is_a_root(world):
    node(world, 0)
    dropped = node(world, 1)
    node(world, 1)
    world.drop(dropped)
    assert survivors(world) == 2


def test_a_global_is_a_root_until_it_is_cleared(world):
    root = node(world)
    idx = boundary.add_global(1, 2, 3, 4, 5, 6)
    assert boundary.write_global(idx, root[1], 9) == 0
    world.drop(root)
    assert survivors(world) == 1
    assert boundary.write_global(idx, boundary.NO_SLOT, 9) == 0
    assert survivors(world) == 0


def test_every_shard_of_the_globals_is_scanned(world):
    root = node(world)
    for i in range(1100 if COMPILED else 520):
        last = boundary.add_global(i + 1, 0, 0, 0, 0, 0)
    assert boundary.write_global(last, root[1], 9) == 0
    world.drop(root)
    assert survivors(world) == 1


@pytest.mark.parametrize("offset", [0, 1, NODE - 1])
def test_a_native_word_into_an_object_keeps_it(world, offset):
    root = node(world)
    native_roots(world, 0, [world.address(root) + offset])
    world.drop(root)
    assert survivors(world) == 1
    native_roots(world, 0, [])
    assert survivors(world) == 0


def test_native_words_that_lead_to_no_object_are_ignored(world):
    root = node(world)
    addr = world.address(root)
    page = mspan.find_span(addr)
    span_end = layout.page_to_addr(page + 1)
    beyond = layout.page_to_addr(layout.HEAP_PAGES - 1)
    native_roots(world, 1, [addr + NODE, span_end - 1, span_end - 300, span_end, beyond, layout.HEAP_LIMIT - 8, 7, -1])
    world.drop(root)
    assert survivors(world) == 0


def test_a_reference_into_the_middle_of_an_object_keeps_it(world):
    holder, target = node(world), node(world)
    store64(world.address(holder) + 24, world.address(target) + 40)
    world.drop(target)
    assert survivors(world) == 2


def test_a_word_that_is_no_reference_keeps_nothing(world):
    holder, target = node(world), node(world)
    store64(world.address(holder) + 8, world.address(target))
    world.drop(target)
    assert survivors(world) == 1


def test_a_cycle_of_garbage_dies(world):
    a, b = node(world), node(world)
    store64(world.address(a), world.address(b))
    store64(world.address(b), world.address(a))
    world.drop(a)
    assert survivors(world) == 2
    world.drop(b)
    assert survivors(world) == 0


@pytest.mark.parametrize("n", [10, 2 * WBUF_OBJECTS + 1, 5000] if COMPILED else [10, 600])
def test_more_grey_objects_than_fit_the_buffers(world, n):
    """A table whose elements are all nodes that have references themselves."""
    table = world.new_array(0, n, world.references)
    leaf = node(world)
    for i in range(n):
        child = node(world, i % 2)
        store64(world.address(child), world.address(leaf))
        store64(world.address(table) + 8 + 8 * i, world.address(child))
        world.drop(child)
    world.drop(leaf)
    assert survivors(world) == n + 2
    own = 2 * (world.nprocs + 1)
    assert world.runtime.wbuf_empty == world.runtime.wbuf_made - own


def test_a_long_list_is_followed_to_its_end(world):
    n = 20_000 if COMPILED else 100
    last = node(world)
    for _ in range(n - 1):
        head = node(world)
        store64(world.address(head) + 24, world.address(last))
        world.drop(last)
        last = head
    assert survivors(world) == n


def test_a_table_of_many_pieces_is_scanned_whole_and_once(world):
    n = 5 * PIECE // 8 + 3
    table = world.new_array(0, n, world.references)
    addr = world.address(table)
    spots = [0, PIECE // 8 - 2, PIECE // 8 - 1, PIECE // 8, 3 * PIECE // 8 - 1, n - 1]
    for spot in spots:
        child = world.new(0, 16)
        store64(addr + 8 + 8 * spot, world.address(child))
        world.drop(child)
    world.collect()
    assert world.verify().objects == 1 + len(spots)
    assert world.pacer.xheap_scan_work == 8 * n


def test_a_big_struct_is_scanned_once(world):
    size = 3 * PIECE
    root = world.new(0, size, world.struct_type(size, (0, size // 8 - 1)))
    child = world.new(0, 16)
    store64(world.address(root) + size - 8, world.address(child))
    world.drop(child)
    assert survivors(world) == 2
    assert world.pacer.xheap_scan_work == size


def test_what_a_cycle_leaves_unswept_is_swept_by_allocation(world):
    kept = [world.new(0, 1024) for _ in range(8 * 20)]
    for root in kept[::2]:
        world.drop(root)
    world.collect(GC_TRIGGER_HEAP)
    pages = int(world.mheap.pages_in_use)
    for _ in range(8 * 10):
        world.new(0, 1024)
    assert world.mheap.pages_in_use == pages
    assert world.verify().objects == 8 * 20


def test_sweeping_keeps_pace_with_allocation(world):
    """At 1000 pages a MiB each span of one page that is taken costs 7.8 pages of sweeping, here in spans of five."""
    for _ in range(100):
        world.new(0, 40_000)
    world.collect(GC_TRIGGER_HEAP)
    world.runtime.sweep_ratio = 1000 / (1 << 20)
    for k in range(1, 11):
        world.new(0, 8192)
        due = 1000 * 8192 * k // (1 << 20)
        assert world.runtime.xpages_swept == -(-due // 5) * 5
    for _ in range(60):
        world.new(0, 8192)
    assert (world.runtime.xsweep_class, world.runtime.sweep_ratio) == (records.SWEEP_SETS, 0)
    world.verify()


def test_the_ratio_of_sweeping_comes_from_the_pages_in_use(world):
    for _ in range(10):
        world.new(0, 1 << 20)
    pacer.set_gc_percent(100)
    world.collect(GC_TRIGGER_HEAP)
    live = 10 << 20
    assert 1.9 * live < goal.trigger() < goal.heap_goal()
    assert world.runtime.sweep_ratio == 1280 / (goal.trigger() - live - (1 << 20))


def test_counters_of_a_cycle(world):
    stats = records.view(records.gcstats_dtype, records.GCSTATS)[0]
    node(world)
    world.drop(node(world))
    world.collect(GC_TRIGGER_HEAP)
    world.collect()
    assert (stats.num_gc, stats.num_forced, world.runtime.xcycles, world.runtime.xcycle_done) == (2, 1, 2, 2)
    assert stats.heap2 == NODE
    assert stats.pause_total_ns == stats.pause_ns[0] + stats.pause_ns[1] > 0


def test_marking_finds_everything_when_there_is_no_memory_for_more_work_buffers(world):
    """A root with more children than the first sixteen buffers hold, too big to be queued by spans, each with a child of its own."""
    n = 20 * WBUF_OBJECTS if COMPILED else 17 * WBUF_OBJECTS
    root = world.new(0, 8 * n, world.struct_type(8 * n, range(n)))
    for i in range(n):
        child, grandchild = world.new(0, 600, world.struct_type(600, (0, 3))), world.new(0, 16)
        store64(world.address(child), world.address(grandchild))
        store64(world.address(root) + 8 * i, world.address(child))
        world.drop(child)
        world.drop(grandchild)
    world.collect(GC_TRIGGER_HEAP)
    assert world.runtime.wbuf_made > 16, "with memory it needs more"
    made, world.runtime.wbuf_made = int(world.runtime.wbuf_made), layout.MAX_WBUFS
    world.runtime.wbuf_empty = 4
    world.collect()
    world.runtime.wbuf_made, world.runtime.wbuf_empty = made, made
    assert world.verify().reached == 2 * n + 1
    rebuild.rebuild_derived_stw()
    assert survivors(world) == 2 * n + 1


def test_a_large_object_that_is_being_made_is_a_root(world):
    """Its address may be in no register and on no stack: only its page's number."""
    large = world.new(0, 1 << 20)
    world.ps[0].xpending = world.address(large)
    world.drop(large)
    assert survivors(world) == 1
    world.ps[0].xpending = 0
    assert survivors(world) == 0
