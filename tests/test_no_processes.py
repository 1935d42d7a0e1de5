"""A system that allows no more processes: who has died is started again later, and who is not there yet is refused in a line."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import gomp
from gomp.core import COMPILED
from gomp.core.shm import layout
from gomp.core.shm.records import RUNTIME, p_dtype, runtime_dtype, view
from gomp.runtime import verifyaside
from tests.attaching import chain
from tests.real_cgroup import no_more_processes

if not COMPILED:
    pytest.skip("starts processes", allow_module_level=True)

WAIT_S = 30.0


@pytest.fixture
def rt() -> Iterator[gomp.Runtime]:
    with gomp.Runtime(procs=2, max_procs=2, max_heap="64MiB") as runtime:
        yield runtime
        assert runtime.verify(3).startswith("verified")


def coordinator_pid() -> int:
    return int(view(runtime_dtype, RUNTIME)[0].coordinator_pid)


def pid_of(i: int) -> int:
    return int(view(p_dtype, layout.p_addr(i))[0].xpid)


def open_files(pid: int) -> list[str]:
    return sorted(os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir())


def wait_for_p(i: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while not (pid_of(i) and view(runtime_dtype, RUNTIME)[0].xready):
        assert time.monotonic() < deadline, f"P{i} has no process"
        time.sleep(0.01)


def test_a_p_that_has_died_is_started_again_when_it_can_be(rt: gomp.Runtime) -> None:
    before, killed = len(open_files(coordinator_pid())), pid_of(0)
    with no_more_processes(coordinator_pid()):
        os.kill(killed, signal.SIGKILL)
        deadline = time.monotonic() + WAIT_S
        while pid_of(0) == killed:
            assert time.monotonic() < deadline, "the death of P0 is not noticed"
            time.sleep(0.01)
        time.sleep(1.5)  # for more than one try
        assert pid_of(0) == 0
        for _ in range(4):  # the other P does what there is to do
            rt.run(chain, 1000)
        rt.gc()
        assert len(open_files(coordinator_pid())) == before - 2  # its pidfd and its socket
    wait_for_p(0)
    assert len(open_files(coordinator_pid())) == before


def test_a_heap_is_verified_by_the_coordinator_itself(rt: gomp.Runtime) -> None:
    before = open_files(coordinator_pid())
    with no_more_processes(coordinator_pid()):
        assert rt.verify(3).startswith("verified")
    assert open_files(coordinator_pid()) == before


def test_a_verifier_that_is_stopped_when_it_has_answered_is_waited_for_no_longer_than_others(
    rt: gomp.Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who stops processes of a group may meet it anywhere."""

    def stop(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    monkeypatch.setattr(verifyaside, "PATIENCE_S", 0.5)
    monkeypatch.setattr(verifyaside, "verify", lambda level: NotImplemented)
    monkeypatch.setattr(verifyaside, "asdict", lambda report: {"problems": []})
    monkeypatch.setattr(os, "_exit", stop)
    (problem,) = verifyaside.verify_aside(3)["problems"]
    assert problem.startswith("the verification was not over after 0 s")


def test_a_coordinator_that_may_fork_nobody_says_so_in_a_line_and_leaves_nothing() -> None:
    """The script is told, as of whatever else keeps a runtime from being."""
    script = """
import os, gomp
from tests.real_cgroup import no_more_processes
from gomp.runtime import runtime

started = runtime.subprocess.Popen
def popen(*args, **kwargs):
    process = started(*args, **kwargs)
    limits.enter_context(no_more_processes(process.pid))
    return process

import contextlib
with contextlib.ExitStack() as limits:
    runtime.subprocess.Popen = popen
    try:
        gomp.Runtime(procs=2, name="refused").start()
    except gomp.GompError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd=Path(__file__).parent.parent
    )
    if "Skipped" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.stdout == "the runtime cannot be started: Resource temporarily unavailable\n", done.stderr
    assert "Traceback" not in done.stderr
    assert not any("gomp-refused" in name or name.startswith("refused.") for name in os.listdir("/dev/shm"))


def test_a_script_that_may_start_nobody_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    sockets: list[socket.socket] = []

    def pair(*args: int) -> tuple[socket.socket, socket.socket]:
        made = real_pair(*args)
        sockets.extend(made)
        return made

    real_pair = socket.socketpair
    monkeypatch.setattr(socket, "socketpair", pair)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(gomp.GompError, match=r"^the runtime cannot be started: Resource temporarily unavailable$"):
        gomp.Runtime(procs=1).start()
    assert [sock.fileno() for sock in sockets] == [-1, -1]
