"""A P is killed before each line of what it does, as plain Python; what the others have is intact, and what only it had is free again.

Runs with ``NUMBA_DISABLE_JIT=1``. Without ``--run-slow`` a part of the lines, the same ones each time. A failure names the scenario and the number of
the line: ``lines_of`` gives the line itself.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import random
from dataclasses import dataclass

import pytest
import victims
import victims_of_objects
from heap_world import heap_world
from killed import kill_at, lines_of, some_of
from special_world import Lifetimes
from victims import SEAL, SIZES, SURVIVOR, VICTIM, Kept, fill, in_transit, name_something

from gomp.core import COMPILED
from gomp.core.gc import repair
from gomp.core.mutator import boundary, transit
from gomp.core.mutator.lifecycle import init_p
from gomp.core.sched.status import OK
from gomp.core.shm import layout

if COMPILED:
    pytest.skip("needs NUMBA_DISABLE_JIT=1", allow_module_level=True)

POINTS = 12  # of a scenario, in the short run


# --- death, repair, and what must be true then ------------------------------------------------------------------------


@dataclass
class Scene:
    """A world in which the survivor has things, and what the victim is about to do."""

    world: object
    kept: Kept
    body: object


def scene(world, scenario):
    kept = Kept(world, random.Random(5), 2 * len(SIZES))
    return Scene(world, kept, scenario(world))


def be_repaired(world):
    world.be(layout.COORDINATOR_P)
    repair.bury(layout.p_addr(VICTIM))
    assert repair.repair(10**18) == OK
    assert world.runtime.xthrow == 0


def go_on(s):
    """Nothing of the survivor's is lost, nothing of the dead one's is left, and a new process can be it."""
    world = s.world
    world.verify()
    assert not any(world.handles(VICTIM))
    assert world.finish_marking() == ()
    s.kept.check()
    getattr(world, "also_check", bool)()
    ran = []
    for _ in range(3):
        world.collect()
        ran += Lifetimes(world).run(SURVIVOR)
    assert sorted(ran) == sorted(getattr(world, "expected", []))
    world.collect()
    report = world.verify()
    assert report.objects == report.reached
    s.kept.check()
    check_accounts(world)
    world.be(VICTIM)
    shared = world.segments
    assert init_p(VICTIM, os.getpid(), shared.heap_fd, shared.meta_fd, world.ps[SURVIVOR].wake_fd, -1) == 1
    for size in SIZES:
        fill(world, VICTIM, size, 3)
    name_something(world, world.new(VICTIM, 64), 7)
    world.verify()
    drop_everything(world)
    world.collect()
    world.collect()
    assert world.verify().spans == 0
    assert (world.mheap.pages_in_use, world.mheap.xheap_inuse) == (0, 0)
    check_accounts(world)


def check_accounts(world):
    """What counts as committed is what the file system has given; each work buffer is somebody's."""
    assert 512 * os.fstat(world.segments.heap_fd).st_blocks == world.mheap.xheap_committed
    runtime = world.runtime
    assert runtime.wbuf_made == runtime.wbuf_empty + runtime.xwbuf_full + 2 * (world.nprocs + 1)


def drop_everything(world):
    for p in (SURVIVOR, VICTIM):
        ctypes.memset(layout.handles_addr(p), 0, 8 * int(world.ps[p].handles))
    for idx in range(int(boundary.count_globals())):
        ctypes.c_int64.from_address(int(boundary.global_addr(idx))).value = 0


def kill_and_go_on(scenario, n):
    with heap_world(nprocs=2, max_pages=8 * layout.CHUNK_PAGES) as world:
        s = scene(world, scenario)
        if not kill_at(s.body, n):
            return False
        be_repaired(world)
        go_on(s)
        return True


def points(scenario, within=""):
    """Where to kill in a scenario: before lines of the files with ``within`` in their name."""
    with heap_world(nprocs=2, max_pages=8 * layout.CHUNK_PAGES) as world:
        lines = lines_of(scene(world, scenario).body)
        return [n for n in some_of(lines) if within in lines[n][0]]


@pytest.mark.parametrize(
    "scenario",
    [
        *victims.SCENARIOS,
        *victims_of_objects.SCENARIOS,
        *(pytest.param(scenario, marks=pytest.mark.slow) for scenario in victims_of_objects.SLOW_SCENARIOS),
    ],
)
def test_the_others_go_on_wherever_one_is_killed(scenario, pytestconfig):
    where = points(scenario)
    if pytestconfig.getoption("--run-slow"):
        faulthandler.cancel_dump_traceback_later()  # it takes minutes, and a dump of a process that is traced crashes it
    else:
        where = random.Random(1).sample(where, min(POINTS, len(where)))
    killed = 0
    for n in where:
        try:
            killed += kill_and_go_on(scenario, n)
        except BaseException as error:
            raise AssertionError(f"{scenario.__name__}, killed before line {n}: {error}") from error
    assert killed >= len(where) - 3  # a run in which the limiter looks, by the clock, has some lines more than another


@pytest.mark.parametrize("is_marking", [False, True])
def test_what_a_killed_receiver_was_about_to_take_is_still_there_or_gone_with_it(is_marking):
    """And the sender can tell: it gets its two slots back either way."""
    outcomes = set()
    n = 0
    while True:
        with heap_world(nprocs=2) as world:
            slot, ticket, number = in_transit(world)
            into = world._free_slot(VICTIM)
            if is_marking:
                world.begin_marking()
                world.scan_p(VICTIM)

            def body(into=into, sent=(slot, ticket, number), world=world):
                world.be(VICTIM)
                transit.receive_reference(SURVIVOR, *sent, into)

            if not kill_at(body, n):
                break
            n += 1
            world.ps[VICTIM].deaths += 1  # the coordinator's part
            be_repaired(world)
            assert world.finish_marking() == ()
            world.collect()
            world.be(SURVIVOR)
            mine = world._free_slot(SURVIVOR)
            status = transit.receive_reference(SURVIVOR, slot, ticket, number, mine)
            outcomes.add(status)
            if status == OK:
                assert ctypes.string_at(world.address((SURVIVOR, mine)) + 8, len(SEAL)) == SEAL
                assert world.address((SURVIVOR, slot)) == 0
            else:
                deaths, p = divmod(transit.CLAIMED - world.handles(SURVIVOR)[ticket], 256)
                assert (p, deaths) == (VICTIM, 0) != (VICTIM, world.ps[VICTIM].deaths)
            world.verify()
    assert outcomes == {OK, transit.GONE}
