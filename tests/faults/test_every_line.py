"""A P is killed before each line of what it does, as plain Python; what the others have is intact, and what only it had is free again.

Runs with ``NUMBA_DISABLE_JIT=1``. Without ``--run-slow`` a part of the lines, the same ones each time. A failure names the scenario and the number of
the line: ``lines_of`` gives the line itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import random
import signal
from dataclasses import dataclass

import pytest
import victims
import victims_of_objects
from heap_world import heap_world
from killed import kill_at, lines_of, some_of
from special_world import Lifetimes
from victims import SEAL, SIZES, SURVIVOR, VICTIM, Kept, fill, in_transit, name_something

from gomp.core import COMPILED
from gomp.core.gc import rebuild, repair
from gomp.core.mutator import boundary, transit
from gomp.core.mutator.lifecycle import init_p
from gomp.core.sched.status import OK
from gomp.core.shm import layout, records

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


# --- the same without a step of the repair ----------------------------------------------------------------------------


def nothing(*args):
    return 0


def keep_what_it_was_taking(p):
    page = records.p_at(p).taking_page
    settle(p)
    records.p_at(p).taking_page = page


def keep_its_mcache(p):
    if p != layout.p_addr(VICTIM):
        flush_mcache(p)


def keep_its_page_cache(p):
    if p != layout.p_addr(VICTIM):
        return_cached_pages(p)


settle, flush_mcache, return_cached_pages = repair._settle, rebuild._flush_mcache, rebuild._return_cached_pages
LEFT_OUT = {
    "its locks are not released": (repair, "release_locks_of", nothing, victims.names, "mutator"),
    "its redo record is not applied": (repair, "apply_redo", nothing, victims.sweep_many, "redo"),
    "its handles are not dropped": (repair, "_drop_handles", nothing, victims.small_in_a_fresh_span, "status"),
    "what it was taking stays taken": (repair, "_settle", keep_what_it_was_taking, victims.growth, "mheap"),
    "its mcache is not emptied": (
        rebuild,
        "_flush_mcache",
        keep_its_mcache,
        victims.small_in_the_next_window,
        "mcache",
    ),
    "its page cache is not returned": (rebuild, "_return_cached_pages", keep_its_page_cache, victims.large, "mheap"),
    "spans in hand are not found": (rebuild, "_rebuild_spans", nothing, victims.sweep_many, "sweep"),
    "pages in hand are not released": (rebuild, "_punch_unknown_pages", nothing, victims.large, "mheap"),
    "summaries are not made again": (rebuild, "rebuild_summaries_locked", nothing, victims.growth, "palloc"),
    "counters are not made again": (rebuild, "_rebuild_counters", nothing, victims.growth, "mheap"),
    "work buffers are not made again": (
        rebuild,
        "_rebuild_work_buffers",
        nothing,
        victims.marking_with_work_given_away,
        "work",
    ),
    "lists of specials are not made again": (
        rebuild,
        "rebuild_specials_stw",
        nothing,
        victims_of_objects.sweep_of_specials,
        "specials",
    ),
    "functions of the dead are not lost": (
        repair,
        "lose_specials_of_stw",
        nothing,
        victims_of_objects.finalizers_run,
        "lifetimes",
    ),
    "marking is not started over": (repair, "restart_marking_stw", nothing, victims.marking, "worker"),
    "nothing is made again": (repair, "rebuild_derived_stw", nothing, victims.refill_by_sweeping, "refill"),
}


@pytest.mark.parametrize("left_out", LEFT_OUT)
def test_a_repair_without_one_of_its_steps_is_caught(left_out, monkeypatch):
    module, name, instead, scenario, within = LEFT_OUT[left_out]
    where = points(scenario, within)
    assert goes_on_in_a_child(scenario, where[0])
    monkeypatch.setattr(module, name, instead)
    assert any(not goes_on_in_a_child(scenario, n) for n in random.Random(2).sample(where, len(where)))


def goes_on_in_a_child(scenario, n, seconds=4):
    """Whether that process ends well: it may fail, crash or hang."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(seconds)
        with contextlib.suppress(BaseException):
            kill_and_go_on(scenario, n)
            os._exit(0)
        os._exit(1)
    return os.waitpid(pid, 0)[1] == 0
