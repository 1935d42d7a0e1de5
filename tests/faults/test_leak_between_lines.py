"""A P is killed before each line of what it does for a cycle that looks for goroutines which wait for ever: exactly those are found all the same.

Runs with ``NUMBA_DISABLE_JIT=1``. Without ``--run-slow`` a part of the lines, the same ones each time.
"""

from __future__ import annotations

import os

import pytest
from heap_world import heap_world
from killed import kill_at, kill_before, lines_of
from waiting_world import Waiting

from gomp.core import COMPILED
from gomp.core.gc import ragged, repair, worker
from gomp.core.mutator.lifecycle import init_p
from gomp.core.sched.status import OK, enter, leave
from gomp.core.shm import layout
from gomp.core.shm.records import LEAKS_HIDE

if COMPILED:
    pytest.skip("needs NUMBA_DISABLE_JIT=1", allow_module_level=True)

SURVIVOR, VICTIM = 0, 1
POINTS = 2  # of a scenario, in the short run
NIL = 0


class Scene:
    """Two that wait where the survivor can come to, the second by way of the first; two where nobody can, the second as before; one at nothing."""

    def __init__(self, world):
        self.world, self.waiting = world, Waiting(world)
        first, second, third, fourth = (self.waiting.channel(SURVIVOR) for _ in range(4))
        at = [world.address(root) for root in (first, second, third, fourth)]
        self.kept = at[0]
        node = self.waiting.node(SURVIVOR, at[1])
        self.reached = [self.waiting.waiter(SURVIVOR, at[0], world.address(node)), self.waiting.waiter(SURVIVOR, at[1])]
        self.lost = {
            self.waiting.waiter(SURVIVOR, at[2], at[3]),
            self.waiting.waiter(SURVIVOR, at[3], at[1]),
            self.waiting.waiter(SURVIVOR, NIL),
        }
        for root in (second, third, fourth, node):
            world.drop(root)
        self.mine = world.hold(VICTIM, self.kept)

    def marks(self):
        """What the victim does: it marks as long as there is anything."""
        self.world.be(VICTIM)
        assert enter() == OK
        ragged.pass_ragged()  # before that it marks nothing
        assert worker.drain(1 << 40) > 0
        leave()


def roots_first(s):
    s.waiting.begin()
    s.world.scan_p(SURVIVOR)
    return s.marks


def another_round(s):
    s.waiting.begin()
    s.waiting.to_next_round()
    assert s.waiting.sched.leak_mode == LEAKS_HIDE
    return s.marks


def those_that_have_leaked(s):
    s.waiting.begin()
    s.waiting.to_reveal()
    return s.marks


def waking_who_is_hidden(s):
    s.waiting.begin()
    return lambda: s.waiting.send(VICTIM, s.kept)


SCENARIOS = (roots_first, another_round, those_that_have_leaked, waking_who_is_hidden)


def kill_and_look(scenario, n):
    with heap_world(nprocs=2) as world:
        s = Scene(world)
        if not kill_at(scenario(s), n):
            return False
        world.be(layout.COORDINATOR_P)
        repair.bury(layout.p_addr(VICTIM))
        assert repair.repair(10**18) == OK
        world.verify()
        assert world.finish_marking() == ()
        assert s.waiting.found() == s.lost
        world.verify()
        shared = world.segments
        assert init_p(VICTIM, os.getpid(), shared.heap_fd, shared.meta_fd, world.ps[SURVIVOR].wake_fd, -1) == 1
        assert s.waiting.look() == s.lost
        world.verify()
        return True


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_whoever_is_killed_the_same_are_found(scenario, pytestconfig):
    with heap_world(nprocs=2) as world:
        lines = lines_of(scenario(Scene(world)))
    most = None if pytestconfig.getoption("--run-slow") else POINTS
    kill_before(scenario.__name__, lines, lambda n: kill_and_look(scenario, n), most)
