"""The coordinator is killed in each phase of a collection: all processes of the runtime end, whoever waits is told, and nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gomp
from gomp.core import COMPILED
from tests.attaching import chain
from tests.faults.phases import PHASES, kill, pid_of, reach, runtime, wait_until
from tests.forked_children import Server

if not COMPILED:
    pytest.skip("kills processes of runtimes, which run compiled kernels", allow_module_level=True)

NAME = f"lost-{os.getpid()}"
PROCS = 2


@pytest.fixture(scope="module")
def guests() -> Iterator[Server]:
    server = Server("tests.attaching")
    yield server
    server.close()


def churn() -> None:
    while True:
        chain(20_000)


def is_there(pid: int) -> bool:
    """And no zombie, which only its parent can take away."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("phase", PHASES)
def test_all_end_and_all_who_wait_are_told(guests: Server, phase: str) -> None:
    def be_lost() -> None:
        with gomp.Runtime(procs=PROCS, max_procs=PROCS, max_heap="512MiB", gogc=30, name=NAME) as rt:
            working = [rt.go(churn) for _ in range(PROCS)]
            guest = guests.start(NAME, "lose")
            assert guest.stdout.readline() == "here\n"
            pids.extend([int(runtime().coordinator_pid), *map(pid_of, range(PROCS))])
            reach(phase)
            kill(pids[0])
            assert guest.communicate() == ("the runtime has ended\n", "")
            working[0].wait(10)

    pids: list[int] = []
    with pytest.raises(gomp.RuntimeLost):
        be_lost()
    wait_until(lambda: not any(map(is_there, pids)), "a process of the runtime is left")
    assert NAME not in [info.name for info in gomp.runtime.discovery.list_runtimes()]


def test_who_waits_for_a_stack_that_the_coordinator_was_scanning_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.orphan_script"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "lost\n", done.stderr
