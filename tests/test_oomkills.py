"""Processes that the kernel kills for want of memory: told from others, restarted later and later, and at last given up."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from real_cgroup import make_cgroup
from served import run_in

from gomp.cgroup import MemoryCgroup, memory_level
from gomp.core import COMPILED
from gomp.runtime.oomkills import HEALTHY_S, HOPELESS, PERIOD_S, OomKills

KILLED, TOLD_TO_END, EXITED = int(signal.SIGKILL), int(signal.SIGTERM), 3 << 8


class Cgroup:
    """A directory as the kernel would fill it."""

    def __init__(self, directory: Path) -> None:
        (directory / "memory.max").write_text(f"{120 << 20}\n")
        self._events = directory / "memory.events"
        self.memory = MemoryCgroup([memory_level(directory, is_v2=True)])
        self.has_killed(0)

    def has_killed(self, times: int, met: int | None = None) -> None:
        """``met``: how often the limit was; else once more for each kill."""
        self._events.write_text(f"max {9 + times if met is None else met}\noom_kill {times}\n")


@pytest.fixture
def cgroup(tmp_path: Path) -> Cgroup:
    return Cgroup(tmp_path)


def test_a_kill_is_the_kernels_if_the_cgroup_has_counted_it(cgroup: Cgroup) -> None:
    kills = OomKills(cgroup.memory)
    assert kills.explain(KILLED) == ""
    cgroup.has_killed(2)
    assert kills.explain(TOLD_TO_END) == kills.explain(EXITED) == ""
    told = "was killed by the kernel for want of memory in its cgroup, whose limit is 120.0 MiB"
    assert [kills.explain(KILLED) for _ in range(3)] == [told, told, ""]


def test_a_kill_for_want_of_memory_on_the_whole_machine_is_not_laid_to_the_cgroup(cgroup: Cgroup) -> None:
    kills = OomKills(cgroup.memory)
    cgroup.has_killed(1, met=9)
    assert kills.explain(KILLED) == (
        "was killed by the kernel for want of memory outside its cgroup, whose limit is 120.0 MiB and was not met"
    )


def test_a_cgroup_that_does_not_count_how_often_its_limit_was_met_may_have_met_it(tmp_path: Path) -> None:
    files = {"limit_in_bytes": 1 << 20, "memsw.limit_in_bytes": 1 << 20, "failcnt": 0, "oom_control": "oom_kill 0"}
    for name, value in files.items():
        (tmp_path / f"memory.{name}").write_text(f"{value}\n")
    kills = OomKills(MemoryCgroup([memory_level(tmp_path, is_v2=False)]))
    (tmp_path / "memory.oom_control").write_text("oom_kill 1\n")
    assert "for want of memory in its cgroup" in kills.explain(KILLED)


def test_a_limit_that_was_met_long_before_a_kill_explains_nothing(cgroup: Cgroup) -> None:
    kills, now = OomKills(cgroup.memory), 100.0
    cgroup.has_killed(0, met=1000)
    for i in range(4):
        kills.look(True, now + i * (HEALTHY_S + 1))
    cgroup.has_killed(1, met=1000)
    assert "outside its cgroup" in kills.explain(KILLED)
    cgroup.has_killed(2, met=1001)
    assert "outside" not in kills.explain(KILLED)


def test_of_who_was_killed_while_nobody_looked_it_is_only_suspected(cgroup: Cgroup) -> None:
    kills = OomKills(cgroup.memory)
    assert kills.suspect() == ""
    cgroup.has_killed(1)
    assert kills.suspect() == (
        "was killed by SIGKILL, perhaps by the kernel for want of memory in its cgroup, whose limit is 120.0 MiB"
    )


def test_without_a_cgroup_nobody_knows() -> None:
    assert OomKills(MemoryCgroup([])).explain(KILLED) == OomKills(MemoryCgroup([])).suspect() == ""


def test_a_kill_of_somebody_else_is_forgotten_but_not_at_once(cgroup: Cgroup) -> None:
    kills, now = OomKills(cgroup.memory), 100.0
    kills.look(True, now)
    now += HEALTHY_S + 1
    kills.look(True, now)
    cgroup.has_killed(1)
    kills.look(True, now + PERIOD_S / 2)
    assert kills.explain(KILLED), "of ours, which has not been noticed yet"
    cgroup.has_killed(2)
    for i in range(1, 4):
        kills.look(True, now + 2 * i * PERIOD_S)
    assert not kills.explain(KILLED)


def test_a_successor_waits_twice_as_long_each_time_until_all_is_well(cgroup: Cgroup) -> None:
    kills = OomKills(cgroup.memory)
    assert [kills.delay(0) for _ in range(7)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert kills.delay(1) == 0.1
    for at, is_whole in (
        (0.0, True),
        (HEALTHY_S - 1, True),
        (HEALTHY_S, False),
        (HEALTHY_S + 1, True),
        (HEALTHY_S + 2, True),
    ):
        kills.look(is_whole, at)
    assert kills.delay(1) == 0.2, "it was never whole for so long"
    kills.look(True, 3 * HEALTHY_S)
    assert kills.delay(1) == 0.1


def test_a_runtime_that_was_never_well_is_given_up_and_one_that_was_is_not(cgroup: Cgroup) -> None:
    kills, well = OomKills(cgroup.memory), OomKills(cgroup.memory)
    well.look(True, 1.0)
    well.look(True, 2.0 + HEALTHY_S)
    for _ in range(HOPELESS):
        assert not kills.is_hopeless
        kills.delay(0)
        well.delay(0)
    assert kills.is_hopeless
    assert not well.is_hopeless


# --- real ones --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_script_learns_that_its_container_is_too_small(environment: dict[str, str]) -> None:
    if not COMPILED:
        pytest.skip("runs processes of its own")
    with make_cgroup(120 << 20) as cgroup:
        done = run_in(cgroup, environment, "run", "churn", "live=100")
        assert cgroup.oom_kills() >= 1
    first, *others = done.stderr.splitlines()
    assert "limit of 120.0 MiB is less than the 160 MiB that the interpreters take" in first
    assert "give the container 240 MiB or more" in first
    if done.returncode != -signal.SIGKILL:  # the kernel's choice was the command itself
        assert done.returncode == 1
        assert "was killed by the kernel for want of memory in its cgroup, whose limit is 120.0 MiB" in others[-1]


@pytest.mark.slow
@pytest.mark.parametrize("mib", [136, 142])
def test_a_service_in_a_container_that_holds_no_ps_ends_and_its_coordinator_says_why(
    environment: dict[str, str], mib: int
) -> None:
    if not COMPILED:
        pytest.skip("runs processes of its own")
    with make_cgroup(mib << 20) as cgroup:
        done = run_in(cgroup, environment | {"GOMP_PROCS": "2", "GOMP_METRICS_PORT": "0"}, "serve")
        assert cgroup.oom_kills() >= 2
    first, *_, last = done.stderr.splitlines()
    assert "give the container 240 MiB or more" in first
    assert done.returncode == 3, done.stderr[-2000:]
    assert "killed by the kernel for want of memory in its cgroup, whose limit is" in last
    assert "the runtime ends" in last


EATS = """
def main():
    eaten = bytearray(b"x" * (400 << 20))
"""


@pytest.mark.slow
def test_a_service_that_cannot_live_in_its_container_ends_and_says_why(
    environment: dict[str, str], tmp_path: Path
) -> None:
    package = tmp_path / "hungry"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "eats.py").write_text(EATS)
    config = tmp_path / "service.toml"
    config.write_text('procs = 1\nmetrics_port = 0\n[[programs]]\nprogram = "hungry.eats"\n')
    with make_cgroup(256 << 20) as cgroup:
        done = run_in(cgroup, environment | {"PYTHONPATH": str(tmp_path)}, "serve", "--config", str(config))
        kills = cgroup.oom_kills()
    assert (done.returncode, kills) == (3, HOPELESS), done.stderr[-2000:]
    assert "the runtime ends, for it cannot live here: 8 times in a row P0" in done.stderr


def test_a_p_that_is_killed_all_day_is_started_again_all_day(cgroup: Cgroup) -> None:
    kills = OomKills(cgroup.memory)
    for now in (0.0, HEALTHY_S + 1):
        kills.look(True, now)
    assert {kills.delay(0) for _ in range(2000)} == {0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0}
    assert not kills.is_hopeless
