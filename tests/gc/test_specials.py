"""Finalizers, cleanups and weak pointers as the kernels have them: states, lists, queues, and what lives."""

from __future__ import annotations

import time

import numpy as np
import pytest
from special_world import drop_all_but, lifetimes

from gomp.core.gc import repair
from gomp.core.gc.mark import PIECE
from gomp.core.gc.rebuild import rebuild_derived_stw
from gomp.core.mutator import boundary, weak
from gomp.core.mutator import lifetimes as kernels
from gomp.core.mutator.lifecycle import init_p
from gomp.core.mutator.pool import bind_pool, pool_put
from gomp.core.sched.status import OK, RETRY, start_world, stop_world
from gomp.core.shm import layout, records
from gomp.core.shm.atomics import store64
from gomp.core.shm.records import GC_TRIGGER_HEAP, SPECIAL_ARMED, SPECIAL_FREE, SPECIAL_QUEUED

SIZES = (5, 8, 16, 64, 512, 600, 3000, 40_000)
IN_FIRST = (128 << 10) // 8 - 1  # elements of an array that are looked at where its finalizer is
LONG = IN_FIRST + PIECE // 8 + 3


@pytest.mark.parametrize("size", SIZES)
def test_an_object_with_a_finalizer_lives_one_cycle_longer(size):
    with lifetimes() as x:
        root = x.world.new(0, size)
        assert x.finalizer(root, 7, 1) > 0
        assert x.collect_and_run() == []
        x.world.drop(root)
        before = x.world.verify().objects
        assert x.collect_and_run() == [("finalizer", 7)]
        assert x.world.verify().objects == before
        assert x.collect_and_run() == []
        assert x.world.verify().objects == before - 1
        assert set(x.states()) == {SPECIAL_FREE}


@pytest.mark.parametrize("size", SIZES)
def test_a_cleanup_runs_in_the_cycle_that_frees_its_object(size):
    with lifetimes() as x:
        root = x.world.new(0, size)
        assert x.cleanup(root, 1) > 0
        assert x.cleanup(root, 2, size - 1) > 0
        assert x.cleanup(root, 3) > 0
        assert x.collect_and_run() == []
        x.world.drop(root)
        assert x.collect_and_run() == [("cleanup", 3), ("cleanup", 1), ("cleanup", 2)]
        assert x.world.verify().objects == 0


@pytest.mark.parametrize("swept", [False, True])
def test_a_weak_pointer_is_nil_as_soon_as_marking_has_not_found_its_object(swept):
    with lifetimes() as x:
        kept, lost = x.world.new(0, 64), x.world.new(0, 64)
        boxes = [x.weak(kept), x.weak(lost), x.weak(lost, 8)]
        assert all(x.value(box) for box in boxes)
        drop_all_but(x, [kept, *boxes])
        x.world.collect(records.GC_TRIGGER_FORCED if swept else GC_TRIGGER_HEAP)
        assert x.value(boxes[0]) is not None
        assert [x.value(box) for box in boxes[1:]] == [None, None]
        x.world.verify()


def test_a_place_has_one_weak_handle_while_its_object_lives():
    with lifetimes() as x:
        root = x.world.new(0, 64)
        first = x.weak(root)
        assert x.world.address(x.weak(root)) == x.world.address(first)
        assert x.world.address(x.weak(root, 8)) != x.world.address(first)


def test_a_weak_pointer_is_nil_before_the_finalizer_that_resurrects_runs():
    with lifetimes() as x:
        root = x.world.new(0, 64)
        box = x.weak(root)
        x.finalizer(root, 1)
        drop_all_but(x, [box])
        x.world.collect(GC_TRIGGER_HEAP)
        assert x.value(box) is None
        x.world.be(0)
        slot = x.world._free_slot(0)
        x.world.collect()
        x.world.be(0)
        n = kernels.take_finalizer(slot)
        assert n > 0
        assert x.value(box) is None
        again = x.weak((0, slot))
        assert x.world.address(again) != x.world.address(box)
        assert x.value(again) is not None
        assert kernels.finish_special(n, 0) == OK
        x.world.verify()


def test_a_weak_pointer_that_is_asked_while_the_heap_is_marked_keeps_its_object():
    with lifetimes() as x:
        root = x.world.new(0, 64)
        box = x.weak(root)
        drop_all_but(x, [box])
        x.world.begin_marking()
        x.world.scan_p(0)
        strong = x.value(box)
        assert strong
        assert x.world.finish_marking() == ()
        x.world.verify()
        x.world.collect()
        assert x.world.address(strong)
        assert x.value(box)


def test_finalizers_run_in_the_order_of_what_leads_to_what():
    with lifetimes() as x:
        key = x.world.struct_type(64, (0, 1))
        a, b, c = (x.world.new(0, 64, key) for _ in range(3))
        x.link(a, 0, b)
        x.link(b, 0, c)
        for number, root in enumerate((a, b, c)):
            x.finalizer(root, number)
        drop_all_but(x, [])
        assert [x.collect_and_run() for _ in range(4)] == [[("finalizer", n)] for n in range(3)] + [[]]
        assert x.world.verify().objects == 0


@pytest.mark.parametrize("size", [64, 600, 40_000, 1 << 20])
def test_a_reference_to_itself_does_not_keep_an_object_from_its_finalizer(size):
    with lifetimes() as x:
        a = x.world.new(0, size, x.world.struct_type(size, (0, 1)))
        x.link(a, 0, a)
        x.finalizer(a, 1)
        drop_all_but(x, [])
        assert x.collect_and_run() == [("finalizer", 1)]
        assert x.collect_and_run() == []
        assert x.world.verify().objects == 0


def long_array(x):
    """With a finalizer."""
    array = x.world.new_array(0, LONG, x.world.references)
    x.finalizer(array, 1)
    return array


def store(x, array, n, root):
    store64(x.world.address(array) + 8 + 8 * n, x.world.address(root))


@pytest.mark.parametrize("spot", [0, IN_FIRST - 1, IN_FIRST, IN_FIRST + PIECE // 8, LONG - 1])
def test_all_that_a_long_array_with_a_finalizer_leads_to_lives(spot):
    with lifetimes() as x:
        store(x, long_array(x), spot, x.world.new(0, 16))
        drop_all_but(x, [])
        x.world.collect()
        assert x.world.verify().objects == 2
        assert x.run() == [("finalizer", 1)]
        x.world.collect()
        assert x.world.verify().objects == 0


@pytest.mark.parametrize(("spot", "ran"), [(IN_FIRST - 1, [("finalizer", 1)]), (IN_FIRST, [])])
def test_a_reference_of_a_long_array_to_itself_counts_beyond_its_first_part_as_in_go(spot, ran):
    with lifetimes() as x:
        array = long_array(x)
        store(x, array, spot, array)
        drop_all_but(x, [])
        assert x.collect_and_run() == ran


@pytest.mark.parametrize("both", [False, True])
def test_a_cycle_through_another_object_keeps_one_with_a_finalizer_for_ever(both):
    with lifetimes() as x:
        key = x.world.struct_type(64, (0, 1))
        a, b = x.world.new(0, 64, key), x.world.new(0, 64, key)
        x.link(a, 0, b)
        x.link(b, 0, a)
        x.finalizer(a, 1)
        if both:
            x.finalizer(b, 2)
        drop_all_but(x, [])
        assert [x.collect_and_run() for _ in range(3)] == [[], [], []]
        assert x.world.verify().objects == 2


def test_objects_in_a_cycle_with_cleanups_die_together():
    with lifetimes() as x:
        key = x.world.struct_type(64, (0, 1))
        a, b = x.world.new(0, 64, key), x.world.new(0, 64, key)
        x.link(a, 0, b)
        x.link(b, 0, a)
        x.cleanup(a, 1)
        x.cleanup(b, 2)
        drop_all_but(x, [])
        assert x.collect_and_run() == [("cleanup", 1), ("cleanup", 2)]
        assert x.world.verify().objects == 0


def test_a_finalizer_that_is_set_while_the_heap_is_marked_keeps_what_its_object_leads_to():
    with lifetimes() as x:
        key = x.world.struct_type(64, (0,))
        a, b = x.world.new(0, 64, key), x.world.new(0, 64)
        x.link(a, 0, b)
        x.world.drop(b)
        box = x.weak(a)
        drop_all_but(x, [a, box])
        x.world.begin_marking()
        with x.world.as_coordinator():  # the shards of the table are taken before there is a finalizer in it
            from gomp.core.gc import roots

            while roots.run_root_job(layout.p_addr(layout.COORDINATOR_P)) != roots.NO_JOB:
                pass
        x.finalizer(a, 1)
        x.world.drop(a)
        assert x.world.finish_marking() == ()
        assert x.collect_and_run() in ([], [("finalizer", 1)])
        x.world.verify()


def test_what_is_due_on_another_p_waits_for_its_process():
    with lifetimes(2) as x:
        root = x.world.new(1, 64)
        x.finalizer(root, 5)
        other = x.world.new(1, 64)
        x.cleanup(other, 6)
        x.world.drop(root)
        x.world.drop(other)
        x.world.collect()
        assert x.run(0) == []
        assert x.run(1) == [("finalizer", 5), ("cleanup", 6)]


def test_what_a_dead_process_has_registered_runs_in_none_and_is_counted():
    with lifetimes(2) as x:
        kept = x.world.new(0, 64)
        mine = x.world.hold(1, x.world.address(kept))
        x.finalizer(mine, 1)
        x.cleanup(mine, 2)
        box = x.weak(kept)
        gone = x.world.new(1, 64)
        x.finalizer(gone, 3)
        x.world.drop(gone)
        x.world.collect()
        x.world.be(layout.COORDINATOR_P)
        repair.bury(layout.p_addr(1))
        assert repair.repair(10**18) == OK
        shared = x.world.segments
        assert init_p(1, 1, shared.heap_fd, shared.meta_fd, -1, -1)
        coordinator = records.view(records.p_dtype, layout.p_addr(layout.COORDINATOR_P))[0]
        assert coordinator.special_lost.tolist() == [2, 1]
        assert x.run(1) == []
        assert x.value(box) is not None
        assert x.finalizer(kept, 4) > 0
        drop_all_but(x, [])
        x.world.be(0)
        assert x.collect_and_run() == [("finalizer", 4)]
        assert x.collect_and_run() == []
        assert x.world.verify().objects == 0


def test_a_successor_is_not_taken_for_the_process_that_registered():
    with lifetimes(2) as x:
        root = x.world.new(1, 64)
        x.finalizer(root, 1)
        x.cleanup(root, 2)
        x.world.ps[1].epoch += 1
        x.world.drop(root)
        x.world.collect()
        assert x.run(1) == []
        assert sum(p.special_lost.sum() for p in all_ps(x)) == 2
        assert x.world.verify().objects == 0


def all_ps(x):
    return [*x.world.ps, records.view(records.p_dtype, layout.p_addr(layout.COORDINATOR_P))[0]]


def test_totals_say_what_was_queued_and_run():
    with lifetimes() as x:
        for n in range(5):
            root = x.world.new(0, 64)
            x.finalizer(root, n)
            x.cleanup(root, n)
            x.world.drop(root)
        x.collect_and_run()
        x.collect_and_run()
        assert sum(p.special_queued for p in all_ps(x)).tolist() == [5, 5]
        assert sum(p.special_run for p in all_ps(x)).tolist() == [5, 5]


def test_a_finalizer_that_is_cleared_does_not_run():
    with lifetimes(2) as x:
        root = x.world.new(0, 64)
        assert kernels.clear_finalizer(root[1], 0) == kernels.NOT_SET
        x.finalizer(root, 9)
        assert x.finalizer(root, 10) == kernels.ALREADY_SET
        assert kernels.clear_finalizer(root[1], 0) == 9
        x.finalizer(root, 11)
        other = x.world.hold(1, x.world.address(root))
        x.world.be(1)
        assert kernels.clear_finalizer(other[1], 0) == 0
        x.world.verify()
        x.world.be(0)
        slot = x.world._free_slot(0)
        n = kernels.take_finalizer(slot)
        assert n >= kernels.TO_FORGET
        assert kernels.function_of(n - kernels.TO_FORGET) == 11
        assert kernels.finish_special(n - kernels.TO_FORGET, 0) == OK
        assert x.world.address((0, slot)) == 0
        drop_all_but(x, [])
        x.world.drop(other)
        assert x.collect_and_run() == []


def test_a_cleanup_that_is_stopped_does_not_run():
    with lifetimes() as x:
        root = x.world.new(0, 64)
        first, second = x.cleanup(root, 1), x.cleanup(root, 2)
        assert kernels.stop_cleanup(second, 2) == 1
        assert kernels.stop_cleanup(second, 2) == 0
        assert kernels.stop_cleanup(first, 2) == 0
        x.world.drop(root)
        assert x.collect_and_run() == [("cleanup", 1)]


def test_what_has_a_finalizer_is_the_beginning_of_an_object():
    with lifetimes() as x:
        for size in (64, 600, 40_000):
            root = x.world.new(0, size, x.world.struct_type(size, (0, 1)))
            assert kernels.set_finalizer(root[1], 8, 1, 0, 0) == kernels.NOT_AT_START
            assert kernels.set_finalizer(root[1], 0, 1, 0, 0) > 0


def test_an_address_that_is_in_no_block_is_refused():
    with lifetimes() as x:
        root = x.world.new(0, 64)
        far = layout.ARENA_SIZE // 2
        assert kernels.set_finalizer(root[1], far, 1, 0, 0) == kernels.NOT_IN_BLOCK
        assert kernels.add_cleanup(root[1], far, 1) == kernels.NOT_IN_BLOCK


def test_nobody_looks_for_a_span_while_a_repair_makes_the_heads_of_pages_again():
    with lifetimes() as x:
        root, box = x.world.new(0, 64), x.world.new(0, 16)
        pool = bind_pool(1, 0, 0, 0, 0, 32)
        looks = {
            "set_finalizer": lambda: kernels.set_finalizer(root[1], 0, 1, 0, 0),
            "add_cleanup": lambda: kernels.add_cleanup(root[1], 0, 1),
            "add_weak": lambda: weak.add_weak(root[1], 0, box[1]),
            "is_in_slot_of": lambda: kernels.is_in_slot_of(root[1], box[1]),
            "pool_put": lambda: pool_put(pool, root[1]),
        }
        heads = records.view(np.dtype("i4"), layout.PAGE_HEADS_BASE, int(x.world.runtime.max_pages))
        assert stop_world(time.monotonic_ns() + 10**10) == OK
        before = heads.copy()
        heads[:] = 0
        answers = {name: look() for name, look in looks.items()}
        heads[:] = before
        start_world()
        assert answers == dict.fromkeys(looks, RETRY)
        assert [look() for look in looks.values()] == [1, 2, OK, 0, boundary.NULL]
        x.world.verify()


def test_tiny_objects_of_a_block_share_their_fate():
    with lifetimes() as x:
        roots = [x.world.new(0, 5) for _ in range(3)]
        for n, root in enumerate(roots):
            x.finalizer(root, n, 1)
            x.cleanup(root, n)
        boxes = [x.weak(root) for root in roots]
        drop_all_but(x, [roots[1], *boxes])
        assert x.collect_and_run() == []
        assert all(x.value(box) for box in boxes)
        drop_all_but(x, boxes)
        assert x.collect_and_run() == [("finalizer", n) for n in (2, 1, 0)]
        assert not any(x.value(box) for box in boxes)
        assert x.collect_and_run() == [("cleanup", n) for n in range(3)]


def test_the_table_grows_in_steps_that_are_counted_and_are_used_again():
    with lifetimes() as x:
        root = x.world.new(0, 64)
        before = int(x.world.mheap.xtable_bytes)
        made = [x.cleanup(root, n) for n in range(1500)]
        assert x.world.mheap.xtable_bytes - before == 2 * layout.TABLE_STEP
        x.world.verify()
        for n, record in enumerate(made):
            assert kernels.stop_cleanup(record, n) == 1
        for n in range(1500):
            x.cleanup(root, n)
        assert x.world.runtime.nspecials == 1500
        x.world.mheap.xcommit_budget = 0
        while (status := x.cleanup(root, 1)) > 0:
            pass
        assert status == boundary.OUT_OF_MEMORY
        assert x.world.runtime.nspecials == 2048
        x.world.verify()


@pytest.mark.parametrize("arm", ["finalizer", "cleanup"])
def test_no_room_is_made_for_a_record_while_the_world_is_stopped(arm):
    """Who makes room borrows pages, and whoever has stopped the world does not wait for a SAFE P to give them back."""
    with lifetimes() as x:
        root, big = x.world.new(0, 64), x.world.new(0, 1 << 20)
        x.world.drop(big)
        x.world.collect()
        limit, x.world.pacer.memory_limit = int(x.world.pacer.memory_limit), 0
        before = int(x.world.mheap.xheap_released)
        with x.world.as_coordinator():
            assert stop_world(time.monotonic_ns() + 10**10) == OK
        assert getattr(x, arm)(root, 1) == RETRY
        assert int(x.world.mheap.xheap_released) == before
        with x.world.as_coordinator():
            start_world()
        assert getattr(x, arm)(root, 1) > 0
        assert int(x.world.mheap.xheap_released) > before, "there was something to release"
        x.world.pacer.memory_limit = limit
        x.world.verify()


def test_lists_and_queues_are_made_again_from_the_records():
    with lifetimes() as x:
        kept = [x.world.new(0, size) for size in SIZES * 3]
        for n, root in enumerate(kept):
            x.cleanup(root, n)
            x.cleanup(root, n + 100)
            x.finalizer(root, n, 1)
        dead = x.world.new(0, 64)
        x.cleanup(dead, 999)
        x.world.drop(dead)
        x.world.collect()
        assert sorted(set(x.states())) == [SPECIAL_ARMED, SPECIAL_QUEUED]
        before = lists_of(x)
        rebuild_derived_stw()
        x.world.verify()
        assert lists_of(x) == before
        assert x.run() == [("cleanup", 999)]


def lists_of(x):
    table = records.view(records.special_dtype, layout.SPECIALS_BASE, int(x.world.runtime.nspecials))
    found = {}
    for page, span in enumerate(records.view(records.span_dtype, layout.SPANS_BASE, int(x.world.mheap.end_page))):
        n = int(span.specials) if span.state == records.SPAN_IN_USE else 0
        while n:
            found.setdefault(page, []).append(n)
            n = int(table[n - 1].next)
    return found
