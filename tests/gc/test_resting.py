"""The coordinator's rest while others mark: until one of them has something for it."""

from __future__ import annotations

import os
import time

import pytest
from heap_world import heap_world

from gomp import forked
from gomp.core import COMPILED
from gomp.core.gc import ragged, worker
from gomp.core.sched.status import OK, enter, leave
from gomp.core.shm import segments
from gomp.core.shm.atomics import store64
from gomp.core.shm.libc import futex_wake
from gomp.core.shm.records import RESTS_FOR_TURN, RESTS_FOR_WORK, RESTS_NOT, RT_XRESTING

SOON_NS, LATE_NS = 2_000_000, 20_000_000_000


def test_who_is_called_before_it_rests_does_not():
    with heap_world() as world:
        world.runtime.xresting = RESTS_NOT
        assert worker.rest(LATE_NS) == 1


def test_a_rest_ends_by_itself():
    with heap_world() as world:
        world.runtime.xresting = RESTS_FOR_WORK
        assert worker.rest(SOON_NS) == 0


@pytest.mark.skipif(not COMPILED, reason="in plain Python nobody is woken: a sleep is a nap")
def test_a_rest_ends_when_somebody_calls():
    with heap_world() as world:
        world.runtime.xresting = RESTS_FOR_WORK

        def call():
            segments.map_segments(world.segments)
            time.sleep(0.05)
            world.runtime.xresting = RESTS_NOT
            futex_wake(RT_XRESTING)

        child = forked.fork(call)
        try:
            began = time.monotonic()
            assert worker.rest(LATE_NS) == 1
            assert time.monotonic() < began + 10
        finally:
            os.waitpid(child, 0)


def marks(world, kernel, *args):
    """P 0, in the middle of a program, after the barrier with which the marking has begun."""
    world.be(0)
    assert enter() == OK
    ragged.pass_ragged()
    kernel(*args)
    leave()


def test_who_has_something_to_mark_for_others_calls():
    with heap_world() as world:
        table = world.new_array(0, 100, world.references)
        for i in range(100):
            node = world.new(0, 600, world.struct_type(600, (0,)))
            store64(world.address(table) + 8 + 8 * i, world.address(node))
            world.drop(node)
        world.begin_marking()
        world.runtime.xresting = RESTS_FOR_WORK
        marks(world, worker.drain, 1)  # until it looks for the first time whether others want some
        assert world.runtime.xresting == RESTS_NOT
        assert world.runtime.xwbuf_full == 1
        assert world.finish_marking() == ()


def test_who_finds_nothing_to_mark_any_more_calls_whatever_it_rests_for():
    with heap_world() as world:
        world.begin_marking()
        world.runtime.xresting = RESTS_FOR_TURN
        marks(world, worker.run_worker)
        assert world.runtime.xresting == RESTS_NOT
        assert world.finish_marking() == ()
