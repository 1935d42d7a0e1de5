"""What is done about who does not release a lock."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import Mock

import pytest

from gomp.core.shm import layout
from gomp.core.shm.atomics import store64
from gomp.core.shm.records import p_dtype, view
from gomp.core.shm.segments import Segments
from gomp.runtime.dying import Dying
from gomp.runtime.ending import Ending
from gomp.runtime.stopping import Stopping

LOCK = layout.MAP_LOCKS_BASE  # those of dead owners are released when they are repaired
LIVING, DEAD, SCRIPT = 0, 1, 2
SLOTS = 2


def _pidfd(p: int) -> int:
    return 100 + p


def nothing(ending: Ending, killed: list[int]) -> bool:
    return not ending.is_near and not killed


def owner_is_killed(ending: Ending, killed: list[int]) -> bool:
    return not ending.is_near and killed == [_pidfd(LIVING)]


def runtime_ends(ending: Ending, killed: list[int]) -> bool:
    return ending.is_near and not killed


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
    ],
    ids=["it lives", "another has it now", "its repair is to come", "its repair has left it", "a script"],
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
    monkeypatch.setattr("gomp.runtime.stopping.signal.pidfd_send_signal", lambda pidfd, number: killed.append(pidfd))
    family, ending = Mock(ps={LIVING: Mock(pid=LIVING)}), Ending()
    stopping = Stopping(Mock(), ending, family, Mock(), Mock(), Dying(), Mock(), SLOTS, SCRIPT)
    for p in (LIVING, SCRIPT):
        view(p_dtype, layout.p_addr(p))[0].pidfd = _pidfd(p)
    view(p_dtype, layout.p_addr(owner))[0].xdead = is_buried
    store64(LOCK, owner + 1)
    stopping.on_lost_lock(LOCK, told)
    assert outcome(ending, killed)
