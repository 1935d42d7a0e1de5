"""Each thing that can go wrong with a process, in each phase of a collection: afterwards all work goes on, collections end, and the heap is whole."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator

import pytest

import gomp
from gomp.core import COMPILED
from tests.attaching import Item, chain
from tests.faults.phases import PHASES, kill, pid_of, reach, runtime, wait_until
from tests.forked_children import Child, Server
from tests.real_cgroup import no_more_processes

if not COMPILED:
    pytest.skip("stops and kills real processes", allow_module_level=True)

NAME = f"phases-{os.getpid()}"
PROCS = 2
DEADLINE_S = 1.0  # for a process that holds up a stop
COLLECTED_S = 20.0  # for a whole cycle, a stop that has to wait for the deadline and a repair included
KEPT = 60_000
LIVE = [gomp.Global(f"phases.live{i}", Item) for i in range(PROCS)]


@pytest.fixture(scope="module")
def rt() -> Iterator[gomp.Runtime]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GOMP_STOP_DEADLINE", str(DEADLINE_S))
        with gomp.Runtime(
            procs=PROCS, max_procs=PROCS, max_heap="512MiB", gogc=30, name=NAME, max_attached=2
        ) as runtime:
            yield runtime
            assert runtime.verify(3).startswith("verified")


@pytest.fixture(scope="module")
def guests() -> Iterator[Server]:
    server = Server("tests.attaching")
    yield server
    server.close()


@pytest.fixture(autouse=True)
def load(rt: gomp.Runtime) -> Iterator[Load]:
    """Each P makes objects all the time, and again when it has died."""
    running = Load(rt)
    running.go_on()
    yield running
    running.end()


def churn(i: int) -> None:
    LIVE[i].set(chain(KEPT))
    while True:
        chain(20_000)


class Load:
    def __init__(self, rt: gomp.Runtime) -> None:
        self.rt = rt
        self.coordinator = int(runtime().coordinator_pid)
        self.working: dict[int, gomp.runtime.peer.Goroutine] = {}

    def go_on(self) -> None:
        """Each P makes objects, also in place of one that has died, and all is well."""
        wait_until(lambda: all(pid_of(i) for i in range(PROCS)), "a P has no process")
        for i in range(PROCS):
            if not self.works(i):
                self.working[i] = self.rt.go(churn, i)
        self.check()

    def check(self) -> None:
        """Collections end, and something is made meanwhile."""
        before = self.rt.stats()
        for _ in range(2):
            began = time.monotonic()
            self.rt.gc()
            assert time.monotonic() - began < COLLECTED_S
        wait_until(lambda: self.rt.stats().mallocs > before.mallocs + KEPT, "nothing is made any more")

    def end(self) -> None:
        """With the processes that work: nothing else ends it. One that had not begun yet does so with the next process of its P."""
        wait_until(lambda: all(pid_of(i) for i in range(PROCS)) and self._is_over(), "somebody works who was killed")
        for place in LIVE:
            place.set(None)

    def _is_over(self) -> bool:
        if not any(map(self.works, range(PROCS))):
            return True
        for i in range(PROCS):
            kill(pid_of(i))
        return False

    def works(self, i: int) -> bool:
        """Whether the one with this number has not been killed, with whichever P it ran on."""
        if i in self.working:
            with contextlib.suppress(TimeoutError):
                with contextlib.suppress(gomp.WorkerDied):
                    self.working[i].wait(0.0)
                del self.working[i]
        return i in self.working


# --- what can go wrong ------------------------------------------------------------------------------------------------


def a_p_is_killed(load: Load, guest: Child, phase: str) -> None:
    reach(phase)
    kill(pid_of(0))


def both_are_killed(load: Load, guest: Child, phase: str) -> None:
    reach(phase)
    kill(pid_of(0))
    kill(pid_of(1))


def a_p_is_stopped_for_a_while(load: Load, guest: Child, phase: str) -> None:
    pid = pid_of(0)
    reach(phase)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.2)
    os.kill(pid, signal.SIGCONT)


def a_p_is_stopped_for_good(load: Load, guest: Child, phase: str) -> None:
    pid = pid_of(0)
    reach(phase)
    os.kill(pid, signal.SIGSTOP)
    load.rt.gc()
    if pid_of(0) == pid:  # it was stopped outside of machine code, where it holds up nobody
        kill(pid)


def an_attached_process_is_killed(load: Load, guest: Child, phase: str) -> None:
    reach(phase)
    guest.kill()


def an_attached_process_is_stopped_for_good(load: Load, guest: Child, phase: str) -> None:
    reach(phase)
    os.kill(guest.pid, signal.SIGSTOP)
    load.rt.gc()
    guest.kill()


def the_coordinator_is_stopped_for_a_while(load: Load, guest: Child, phase: str) -> None:
    reach(phase)
    os.kill(load.coordinator, signal.SIGSTOP)
    time.sleep(0.2)
    os.kill(load.coordinator, signal.SIGCONT)


@contextlib.contextmanager
def limited(pid: int, what: int, most: int) -> Iterator[None]:
    soft, hard = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (most, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, what, (soft, hard))


def the_coordinator_has_no_descriptors_left_while_a_p_dies(load: Load, guest: Child, phase: str) -> None:
    with limited(load.coordinator, resource.RLIMIT_NOFILE, 3):
        reach(phase)
        kill(pid_of(0))
        time.sleep(0.5)


def the_coordinator_may_fork_nobody_while_a_p_dies(load: Load, guest: Child, phase: str) -> None:
    with no_more_processes(load.coordinator):
        reach(phase)
        kill(pid_of(0))
        time.sleep(0.5)


def a_p_has_no_descriptors_left(load: Load, guest: Child, phase: str) -> None:
    wait_until(lambda: all(place.get() is not None for place in LIVE), "a P has not loaded what it runs")
    pid = pid_of(0)
    with limited(pid, resource.RLIMIT_NOFILE, 3):
        reach(phase)
        load.check()
    assert pid_of(0) == pid


FAULTS = [
    a_p_is_killed, both_are_killed, a_p_is_stopped_for_a_while, a_p_is_stopped_for_good, an_attached_process_is_killed,
    an_attached_process_is_stopped_for_good, the_coordinator_is_stopped_for_a_while,
    the_coordinator_has_no_descriptors_left_while_a_p_dies, the_coordinator_may_fork_nobody_while_a_p_dies, a_p_has_no_descriptors_left,
]  # fmt: skip


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_in_every_phase(load: Load, guests: Server, fault: Callable[[Load, Child, str], None], phase: str) -> None:
    guest = guests.start(NAME, "stay")
    assert guest.stdout.readline() == "here\n"
    try:
        fault(load, guest, phase)
        load.go_on()
        load.rt.verify(3)
    finally:
        guest.kill()
        guest.communicate()
