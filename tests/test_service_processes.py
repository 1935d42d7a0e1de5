"""The memory of processes, that no scrape waits for."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading

import pytest

from gomp.runtime.processes import PERIOD_S, ProcessMemories
from gomp.runtime.residency import ProcessMemory

PROCESSES = [("P0", 10), ("P1", 0), ("service", 30)]


class System:
    """Processes whose memory grows by the look, and whose page tables take as long as a test likes."""

    def __init__(self) -> None:
        self.looks, self.now = 0, 100.0
        self.unreadable: set[int] = set()
        self.may_look = threading.Event()
        self.may_look.set()

    def read(self, pid: int) -> ProcessMemory | None:
        self.may_look.wait(10)
        self.looks += 1
        if pid in self.unreadable:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return ProcessMemory(pid + self.looks, 0) if pid else None


@pytest.fixture
def system() -> System:
    return System()


@pytest.fixture
def memories(system: System) -> ProcessMemories:
    return ProcessMemories(read=system.read, now_s=lambda: system.now)


def test_the_first_look_is_waited_for_and_the_next_are_not(system: System, memories: ProcessMemories) -> None:
    first = memories.of(PROCESSES)
    assert first == [("P0", ProcessMemory(11, 0)), ("service", ProcessMemory(33, 0))]
    system.now += PERIOD_S / 2
    assert (memories.of(PROCESSES), system.looks) == (first, 3)
    system.may_look.clear()
    system.now += PERIOD_S
    assert memories.of(PROCESSES) == memories.of(PROCESSES) == first
    (looks,) = (thread for thread in threading.enumerate() if thread.name == "processes")
    system.may_look.set()
    looks.join(10)
    assert memories.of(PROCESSES) == [("P0", ProcessMemory(14, 0)), ("service", ProcessMemory(36, 0))]


def test_where_the_system_allows_no_thread_a_scrape_gets_what_was_found_last(
    system: System, memories: ProcessMemories, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    first = memories.of(PROCESSES)
    system.now += 2 * PERIOD_S
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert memories.of(PROCESSES) == first
    memories.of(PROCESSES)
    assert memories._looks
    memories._looks.join(10)
    assert memories.of(PROCESSES) == [("P0", ProcessMemory(14, 0)), ("service", ProcessMemory(36, 0))]


def test_where_no_thread_is_to_be_every_look_is_waited_for(system: System) -> None:
    memories = ProcessMemories(beside=False, read=system.read, now_s=lambda: system.now)
    threads = threading.active_count()
    memories.of(PROCESSES)
    assert (memories.of(PROCESSES), system.looks) == (memories.of(PROCESSES), 3)
    system.now += PERIOD_S
    assert memories.of(PROCESSES) == [("P0", ProcessMemory(14, 0)), ("service", ProcessMemory(36, 0))]
    assert threading.active_count() == threads


def test_without_a_descriptor_all_are_told_of_as_before(system: System) -> None:
    memories = ProcessMemories(beside=False, read=system.read, now_s=lambda: system.now)
    first = memories.of(PROCESSES)
    system.now, system.unreadable = system.now + PERIOD_S, {30}
    assert memories.of(PROCESSES) == first, "P0 was read, the service was not"
    system.now, system.unreadable = system.now + PERIOD_S, set()
    assert memories.of(PROCESSES) != first


def test_another_process_of_the_same_name_is_not_taken_for_it(memories: ProcessMemories) -> None:
    memories.of(PROCESSES)
    assert memories.of([("P0", 11), ("service", 30)]) == [("service", ProcessMemory(33, 0))]


WHAT_A_SERVICE_IMPORTS = """
import sys
from gomp.service import process
process.prepare()
import asyncio
before = set(sys.modules)
import uvicorn
from gomp.service import app, control
from gomp.service.connections import Connection
from gomp.service.live import routes
from gomp.service.shared import Shared
shared = Shared("x")
for application in (app.make_app(shared, routes.Page("x", "unix")), control.make_app(shared, b"word")):
    uvicorn.Config(application, http=Connection, ws="none", log_config=None, lifespan="off").load()
asyncio.run(shared.scrapes.serve(None, lambda: 0))
print(sorted(set(sys.modules) - before))
"""


def test_the_coordinator_has_imported_all_that_a_service_needs() -> None:
    done = subprocess.run([sys.executable, "-c", WHAT_A_SERVICE_IMPORTS], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
