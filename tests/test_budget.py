"""What may be committed, as a cgroup fills: pages of files that are in use come last."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gomp.cgroup import MemoryCgroup, memory_level
from gomp.config import NO_LIMIT
from gomp.core.shm.commit import ENDLESS
from gomp.runtime import limits
from gomp.runtime.limits import Limits

MIB = 1 << 20
RESERVE = 16 * MIB


class Cgroup:
    """30 MiB are left of its limit, and files that are in use take another 40."""

    def headroom(self, at_worst: bool = False) -> int:
        return (70 if at_worst else 30) * MIB


@pytest.fixture
def rooms(monkeypatch):
    """What has been allowed so far."""
    found: list[int] = []
    monkeypatch.setattr(limits, "budget_left", lambda: 0)
    monkeypatch.setattr(limits, "committed_so_far", lambda: 0)
    monkeypatch.setattr(limits, "renew_budget", lambda before, room: found.append(room))
    return found


def test_files_in_use_are_room_as_a_last_resort_and_while_its_collection_lasts(rooms, monkeypatch):
    now = SimpleNamespace(monotonic=lambda: now.s, s=100.0)
    monkeypatch.setattr(limits, "time", now)
    settings = SimpleNamespace(memory_limit=NO_LIMIT, memory_limit_share=0.9)
    kept = Limits(settings, Cgroup(), None, None, None)
    kept.set_budget()
    kept.set_last_budget()
    now.s += 0.1
    kept.set_budget()
    now.s += 10
    kept.set_budget()
    assert rooms == [30 * MIB - RESERVE, 70 * MIB - RESERVE, 70 * MIB - RESERVE, 30 * MIB - RESERVE]


@pytest.mark.parametrize(("limit", "rooms_after"), [("max", [ENDLESS]), ("nonsense", []), (None, [])])
def test_a_limit_that_is_lifted_is_none_any_more_and_one_that_cannot_be_read_stays(rooms, tmp_path, limit, rooms_after):
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text(f"{200 * MIB}\n")
    cgroup = MemoryCgroup([memory_level(tmp_path, is_v2=True)])
    kept = Limits(SimpleNamespace(memory_limit=NO_LIMIT, memory_limit_share=0.9), cgroup, None, None, None)
    kept.set_budget()
    assert rooms == [200 * MIB - 1000 - RESERVE]
    if limit is None:
        (tmp_path / "memory.max").unlink()
    else:
        (tmp_path / "memory.max").write_text(limit)
    kept.set_budget()
    assert rooms[1:] == rooms_after
