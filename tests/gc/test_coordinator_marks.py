"""The coordinator's turns at marking and sweeping: how long one is before it looks at the rest of the world, and what it does when it is nobody's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from heap_world import heap_world

from gomp.config import Debug
from gomp.core.gc import sweep, worker
from gomp.core.gc.worker import DRY, RESTING, STEP_NS, WORKING
from gomp.core.shm.records import GC_MARK, GC_OFF, GC_TRIGGER_FORCED
from gomp.runtime import collector

MOST_NS = 3_000_000  # of a turn
SHORT_NS = 10_000


class Marking:
    """A heap of which others mark their part: a step of the coordinator takes ``step_ns`` and finds the next of ``states``, or the last once more."""

    def __init__(self, world, monkeypatch):
        self.now_ns = 10**9
        self.states, self.step_ns, self.is_called = [WORKING], STEP_NS, 0
        self.steps = []  # of each, whether it was to mark alone
        self.ends = 0  # how often it was asked whether all is marked
        self._runtime = world.runtime
        self._runtime.xgcphase = GC_MARK
        clock = SimpleNamespace(monotonic_ns=lambda: self.now_ns, monotonic=lambda: self.now_ns / 1e9)
        monkeypatch.setattr(collector, "time", clock)
        monkeypatch.setattr(worker, "mark_step", self._step)
        monkeypatch.setattr(worker, "rest", self._rest)
        self.collector = collector.Collector(Debug(), 10.0, None)
        monkeypatch.setattr(self.collector, "_try_to_end", self._try_to_end)

    def turn(self):
        """How long it took, and how many steps there were in it."""
        began, before = self.now_ns, len(self.steps)
        assert self.collector.step() == 0.0, "there is more to do"
        return self.now_ns - began, len(self.steps) - before

    def _step(self, alone):
        self.steps.append(alone)
        self.now_ns += self.step_ns
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def _rest(self, timeout_ns):
        self.now_ns += 0 if self.is_called else timeout_ns
        return self.is_called

    def sweeps(self, monkeypatch):
        """Marking is over, and there is more to sweep than anybody gets through."""
        self._runtime.xgcphase, self._runtime.xsweep_class, self.step_ns = GC_OFF, 0, SHORT_NS
        monkeypatch.setattr(sweep, "sweep_step", self._step)

    def _try_to_end(self):
        self.ends += 1
        self._runtime.xgcphase = GC_OFF


@pytest.fixture
def marking(monkeypatch):
    with heap_world() as world:
        yield Marking(world, monkeypatch)


@pytest.mark.parametrize("step_ns", [SHORT_NS, STEP_NS - 1, STEP_NS])
def test_it_goes_from_slice_to_slice_but_looks_at_the_rest_of_the_world_in_time(marking, step_ns):
    marking.step_ns = step_ns
    took, steps = marking.turn()
    assert steps > 1
    assert took <= MOST_NS


def test_when_it_is_nobodys_turn_it_rests_again_and_again_but_looks_in_time(marking):
    marking.states, marking.step_ns = [RESTING], SHORT_NS
    took, steps = marking.turn()
    assert took == steps * (SHORT_NS + collector._REST_NS) <= MOST_NS
    assert steps > 1


def test_whoever_calls_it_in_its_rest_has_it_go_on_at_once(marking):
    marking.states, marking.is_called = [RESTING, WORKING], 1
    assert marking.turn() == (2 * STEP_NS, 2)


def test_who_calls_it_all_the_time_does_not_keep_it_from_looking(marking):
    marking.states, marking.is_called, marking.step_ns = [RESTING], 1, SHORT_NS
    took, _ = marking.turn()
    assert took <= MOST_NS


def test_it_ends_the_marking_in_the_turn_in_which_nobody_finds_anything(marking):
    marking.states = [WORKING, DRY]
    assert marking.turn() == (2 * STEP_NS, 2)
    assert marking.ends == 1


def test_when_it_is_nobodys_turn_for_long_it_marks_alone_and_asks_everybody(marking):
    marking.states = [RESTING]
    while not marking.ends:
        marking.turn()
    assert marking.steps == [False] * (collector._PATIENCE + 1) + [True]


@pytest.mark.parametrize("is_wanted", [False, True])
def test_it_sweeps_on_for_a_cycle_that_is_wanted_but_looks_in_time(marking, monkeypatch, is_wanted):
    marking.sweeps(monkeypatch)
    marking.collector._wanted = GC_TRIGGER_FORCED if is_wanted else 0
    took, steps = marking.turn()
    assert took <= MOST_NS
    assert (steps > 1) == is_wanted
