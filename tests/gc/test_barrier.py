"""What keeps an object while the heap is marked beside the programs: both halves of the write barrier, and birth in black.

Each test breaks one of them, and the check of the marks finds the object that is lost; with all of them it finds nothing.
"""

from __future__ import annotations

import pytest
from heap_world import heap_world

from gomp.core import kernel
from gomp.core.gc import roots
from gomp.core.gc.wbbuf import flush_own, record_write
from gomp.core.heap import mspan
from gomp.core.mutator import boundary
from gomp.core.shm import layout
from gomp.core.shm.atomics import and_acq_rel, load64, store64, store_relaxed
from gomp.core.shm.records import INLINE_SCANS, POLL_RAGGED, WB_ENTRIES

NODE, NEXT = 16, 0
SOUND, NO_DELETION, NO_INSERTION = 0, 1, 2


@kernel("void(int64, int64, int64)")
def store(slot: int, value: int, how: int) -> None:
    """As a program stores a reference."""
    if how == NO_DELETION:
        old = load64(slot)
        store64(slot, 0)
        record_write(slot, value)
        store64(slot, old)
    elif how == NO_INSERTION:
        record_write(slot, 0)
    else:
        record_write(slot, value)
    store_relaxed(slot, value)


@kernel("void(int64)")
def whiten(addr: int) -> None:
    """Undo the birth in black."""
    page = mspan.find_span(addr)
    idx = mspan.obj_idx_of(page, addr)
    marks = mspan.mark_bits_addr(page) + 8 * (idx >> 6)
    and_acq_rel(marks, ~(1 << (idx & 63)))
    and_acq_rel(marks + INLINE_SCANS, ~(1 << (idx & 63)))


@pytest.fixture
def world():
    with heap_world(nprocs=2) as made:
        yield made


def node(world, p=0):
    return world.new(p, NODE, world.struct_type(NODE, (0, 1)))


def link(world, holder, target, how=SOUND):
    world.be(holder[0])
    store(world.address(holder) + NEXT, world.address(target) if target else 0, how)


@pytest.mark.parametrize(("how", "lost"), [(SOUND, False), (NO_DELETION, True), (NO_INSERTION, False)])
def test_a_reference_that_is_overwritten_is_kept(world, how, lost):
    """A black stack takes the only reference to an object out of a grey one."""
    holder, target = node(world), node(world)
    link(world, holder, target)
    addr = world.address(target)
    world.drop(target)
    world.begin_marking()
    world.scan_p(0)
    world.hold(0, addr)
    link(world, holder, None, how)
    assert bool(world.finish_marking()) == lost


@pytest.mark.parametrize(("how", "lost"), [(SOUND, False), (NO_DELETION, False), (NO_INSERTION, True)])
def test_a_reference_that_is_stored_is_kept(world, how, lost):
    """A stack that has not been scanned puts its only reference to an object into a black one, and forgets it."""
    holder, target = node(world, 0), node(world, 1)
    world.begin_marking()
    world.scan_p(0)
    world.mark(1 << 20)
    world.be(1)
    store(world.address(holder) + NEXT, world.address(target), how)
    world.drop(target)
    assert bool(world.finish_marking()) == lost


@pytest.mark.parametrize("white", [False, True])
@pytest.mark.parametrize("size", [NODE, 512])
def test_an_object_is_born_black(world, size, white):
    """A black stack is not scanned again for what is allocated."""
    world.begin_marking()
    world.scan_p(0)
    born = world.new(0, size, world.struct_type(size, (0, 1)))
    if white:
        whiten(world.address(born))
    assert bool(world.finish_marking()) == white


@pytest.mark.parametrize("size", [1, 8, 16, 600, 40_000])
def test_objects_of_every_kind_are_born_black(world, size):
    world.begin_marking()
    world.scan_p(0)
    kept = [world.new(0, size) for _ in range(3)]
    assert world.finish_marking() == ()
    world.collect()
    assert world.verify().reached == len({world.address(root) & -16 for root in kept})


def test_an_object_that_was_not_handed_out_is_not_marked(world):
    """Opening a window marks all of it; what is left of it is given back white."""
    world.begin_marking()
    node(world)
    assert world.finish_marking() == ()
    assert world.pacer.heap_marked == NODE
    world.verify()


def test_a_full_buffer_is_shaded_at_once(world):
    holder, targets = node(world), [node(world) for _ in range(WB_ENTRIES)]
    world.begin_marking()
    for target in targets:
        link(world, holder, target)
    assert 0 < world.ps[0].wb_n <= WB_ENTRIES
    assert world.ps[0].objects_marked >= WB_ENTRIES // 2
    world.be(0)
    flush_own()
    assert world.ps[0].wb_n == 0
    assert world.finish_marking() == ()


def test_each_stack_is_scanned_once_a_cycle(world):
    before = [int(p.scans) for p in world.ps]
    world.begin_marking()
    world.scan_p(1)
    world.scan_p(1)
    world.finish_marking()
    assert [int(p.scans) for p in world.ps] == [n + 1 for n in before]
    world.collect()
    assert [int(p.scans) for p in world.ps] == [n + 2 for n in before]


def test_stacks_are_asked_for_by_the_last_root_job(world):
    world.begin_marking()
    assert not any(p.xpoll & POLL_RAGGED for p in world.ps)
    with world.as_coordinator():
        while roots.run_root_job(layout.p_addr(layout.COORDINATOR_P)) != roots.NO_JOB:
            pass
    assert all(p.xpoll & POLL_RAGGED for p in world.ps)
    assert world.finish_marking() == ()


def test_what_a_program_stores_through_a_handle_goes_through_the_barrier(world):
    holder, target = node(world), node(world)
    world.begin_marking()
    world.be(0)
    assert boundary.write_reference(holder[1], NEXT, target[1]) == 0
    assert world.ps[0].wb_n == 1  # nothing was overwritten
    assert world.finish_marking() == ()
