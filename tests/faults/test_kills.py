"""The harness of kills, for some seconds; ``make kills`` runs it until it has killed 2,000. And what it finds when something is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock, Mock

import pytest

import gomp
from gomp.core import COMPILED, killsites
from tests.faults import crowd
from tests.faults.coordinator_sites import Round
from tests.faults.harness import UP_S, Harness, p_record
from tests.faults.sites import Guests

ROOT = Path(__file__).parents[2]
SECONDS = 8

if not COMPILED:
    pytest.skip("kills real processes, which run compiled kernels", allow_module_level=True)


def test_ps_are_killed_under_load_and_nothing_is_lost(compiled_kernels):
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.harness", "--seconds", str(SECONDS), "--seed", "11"],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS + 120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    seed, report = done.stdout.splitlines()
    assert seed == "seed 11"
    assert json.loads(report)["verified"] > json.loads(report)["kills"] > 0


def test_a_p_that_dies_by_itself_is_found(compiled_kernels):
    with gomp.Runtime(procs=1, max_procs=1, max_heap="64MiB") as rt:
        harness = Harness(rt, 1, seed=1, seconds=0.0)
        pid = int(p_record(0).xpid)
        os.kill(pid, signal.SIGKILL)
        assert harness.wait_for(lambda: int(p_record(0).xpid) not in (0, pid), UP_S)
        with pytest.raises(AssertionError, match="1 processes of Ps have died, and 0 were killed"):
            harness.check()


def test_an_attached_process_that_ends_at_no_site_is_found():
    harness = object.__new__(Guests)
    harness.guest = Mock(returncode=1, poll=lambda: 1, communicate=lambda: ("", "AssertionError: lost"))
    with pytest.raises(AssertionError, match=r"at no site: 1 .*AssertionError: lost"):
        harness.victim(0)


def test_a_runtime_that_ends_though_its_coordinator_was_not_killed_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(gomp, "Runtime", Mock(side_effect=gomp.RuntimeLost("fatal: a list is broken")))
    with pytest.raises(AssertionError, match="killed at site -1, and told: 'fatal: a list is broken'"):
        Round(killsites.Table(str(tmp_path)), Mock(), 1).run()


@pytest.fixture
def jobs(monkeypatch):
    """A crowd of which only the script is there, for what it makes of answers and of the clock."""
    clock = SimpleNamespace(s=100.0, monotonic=lambda: clock.s)
    monkeypatch.setattr(crowd, "time", clock)
    monkeypatch.setattr(crowd, "gomp", MagicMock())
    made = crowd.Crowd()
    made.clock = clock
    return made


def test_a_job_that_comes_late_is_taken_once(jobs):
    jobs.given_up = {crowd.answer_of(7)}
    jobs._take(crowd.answer_of(7))
    assert (jobs.lost, jobs.hired_ahead, jobs.answered) == (0, 1, 1)
    with pytest.raises(AssertionError, match="a job was done twice, or wrongly"):
        jobs._take(crowd.answer_of(7))


def test_while_the_script_does_something_else_no_job_is_late(jobs):
    """Whoever has the lock then lives, and it is not taken from him."""
    jobs.given = {crowd.answer_of(7): (7, 0.0)}
    for seconds, unlocked in ((50.0, 0), (crowd.LOST_S, 0), (crowd.LOOK_S, 0), (crowd.LOOK_S, 1)):
        jobs.clock.s += seconds
        jobs._look_at_the_clock()
        jobs._replace_the_lost()
        assert jobs.mutex.unlock.call_count == unlocked
