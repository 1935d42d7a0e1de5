"""What is done about who does not release a lock."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from unittest.mock import Mock

import pytest

from gomp.core.shm import layout
from gomp.core.shm.atomics import store64
from gomp.core.shm.records import STATUS_KERNEL, STATUS_SAFE, p_dtype, view
from gomp.core.shm.segments import Segments
from gomp.runtime.dying import Dying
from gomp.runtime.ending import Ending
from gomp.runtime.stopping import Stopping

LOCK = layout.MAP_LOCKS_BASE  # those of dead owners are released when they are repaired
LIVING, DEAD, SCRIPT, BORROWER, DEAD_BORROWER = range(5)
SLOTS = 2


def _pidfd(p: int) -> int:
    return 100 + p


def nothing(ending: Ending, killed: list[int]) -> bool:
    return not ending.is_near and not killed


def owner_is_killed(ending: Ending, killed: list[int]) -> bool:
    return not ending.is_near and killed == [_pidfd(LIVING)]


def runtime_ends(ending: Ending, killed: list[int]) -> bool:
    return ending.is_near and not killed


def borrower_is_killed(ending: Ending, killed: list[int]) -> bool:
    return not ending.is_near and killed == [_pidfd(BORROWER)]


def script_is_killed(ending: Ending, killed: list[int]) -> bool:
    return ending.is_near and killed == [_pidfd(SCRIPT)]


@pytest.mark.parametrize(
    ("owner", "told", "is_buried", "outcome"),
    [
        (LIVING, LIVING, False, owner_is_killed),
        (LIVING, DEAD, False, nothing),
        (DEAD, DEAD, True, nothing),
        (DEAD, DEAD, False, runtime_ends),
        (SCRIPT, SCRIPT, False, script_is_killed),
        (BORROWER, BORROWER, False, borrower_is_killed),
        (DEAD_BORROWER, DEAD_BORROWER, True, nothing),
        (DEAD_BORROWER, DEAD_BORROWER, False, runtime_ends),
    ],
    ids=[
        "it lives",
        "another has it now",
        "its repair is to come",
        "its repair has left it",
        "a script",
        "an attached process",
        "the repair of one is to come",
        "the repair of one has left it",
    ],
)
def test_who_keeps_a_lock(
    mapped: Segments,
    monkeypatch: pytest.MonkeyPatch,
    owner: int,
    told: int,
    is_buried: bool,
    outcome: Callable[[Ending, list[int]], bool],
) -> None:
    killed: list[int] = []
    ending = Ending()
    stopping = make(monkeypatch, killed, ending, Dying())
    view(p_dtype, layout.p_addr(owner))[0].xdead = is_buried
    store64(LOCK, owner + 1)
    stopping.on_lost_lock(LOCK, told)
    stopping.on_lost_lock(LOCK, told)
    assert outcome(ending, killed)


def make(monkeypatch: pytest.MonkeyPatch, killed: list[int], ending: Ending, dying: Dying) -> Stopping:
    """Of a runtime with all these Ps. Whoever is killed is there still."""
    monkeypatch.setattr("gomp.runtime.stopping.signal.pidfd_send_signal", lambda pidfd, number: killed.append(pidfd))
    for p in (LIVING, SCRIPT, BORROWER):
        record = view(p_dtype, layout.p_addr(p))[0]
        record.xpid, record.pidfd = p + 1, _pidfd(p)
    return Stopping(Mock(), ending, Mock(ps={LIVING: Mock()}), Mock(), Mock(), dying, Mock(), SLOTS, SCRIPT)


@pytest.mark.parametrize(
    ("p", "status", "ends"),
    [
        (BORROWER, STATUS_SAFE, False),
        (BORROWER, STATUS_KERNEL, True),
        (LIVING, STATUS_SAFE, True),
        (DEAD_BORROWER, STATUS_SAFE, False),
    ],
    ids=["in nobody's way", "in the way of a stop", "whose work is to be done", "who has died"],
)
def test_who_is_killed_and_does_not_end(
    mapped: Segments, monkeypatch: pytest.MonkeyPatch, p: int, status: int, ends: bool
) -> None:
    ending, now_s = Ending(), count(1000.0, 1.0)
    stopping = make(monkeypatch, [], ending, Dying(now_s.__next__))
    view(p_dtype, layout.p_addr(p))[0].xstatus = status
    stopping.kill(p)
    for _ in range(10):
        stopping.end_overdue()
    assert ending.is_near is ends
    assert not stopping.is_held_up or ends
