"""Who is to be gone in a moment, and is not waited for."""

from __future__ import annotations

import math

import pytest

from gomp.runtime.dying import HUNG_UP_S, KILLED_S, Dying


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run_for(dying: Dying, clock: Clock, seconds: float) -> tuple[dict[int, str], list[int]]:
    """As a coordinator that looks twice a second."""
    found = dying.overdue()
    for _ in range(int(seconds * 2)):
        clock.now += 0.5
        found = dying.overdue()
    return found


def test_who_hangs_up_has_a_moment_to_die_and_then_a_kill_has(clock: Clock) -> None:
    dying = Dying(clock)
    assert (list(dying.killed), dying.rest_s) == ([], math.inf)
    dying.has_hung_up(1, "it hung up")
    assert (dying.rest_s, list(dying.killed)) == (pytest.approx(HUNG_UP_S), [])
    assert run_for(dying, clock, HUNG_UP_S - 0.5) == ({}, [])
    assert run_for(dying, clock, 0.5) == ({1: "it hung up"}, [])
    dying.was_killed(1)
    assert (list(dying.killed), dying.is_killed(1), dying.is_killed(0)) == ([1], True, False)
    assert run_for(dying, clock, KILLED_S - 0.5) == ({}, [])
    assert run_for(dying, clock, 0.5) == ({}, [1])
    dying.forget(1)
    assert (list(dying.killed), dying.overdue(), dying.rest_s) == ([], ({}, []), math.inf)


def test_a_second_kill_gives_no_more_time(clock: Clock) -> None:
    dying = Dying(clock)
    dying.was_killed(0)
    run_for(dying, clock, KILLED_S - 0.5)
    dying.was_killed(0)
    dying.has_hung_up(0, "it hung up")
    assert run_for(dying, clock, 0.5) == ({}, [0])


def test_time_in_which_nobody_ran_does_not_count(clock: Clock) -> None:
    dying = Dying(clock)
    dying.was_killed(0)
    clock.now += 3600
    assert dying.overdue() == ({}, [])
    assert run_for(dying, clock, KILLED_S - 1.0) == ({}, [0])
