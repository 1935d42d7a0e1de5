"""The coordinator's children: their beginning, their end, and what is not waited for meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from gomp import forked
from gomp.core.shm.segments import Segments
from gomp.forked import how_it_ended
from gomp.runtime import family
from gomp.runtime.family import Child, Family


@pytest.fixture
def sleeper(monkeypatch: pytest.MonkeyPatch) -> subprocess.Popen[bytes]:
    """A child that does not end by itself."""
    monkeypatch.setattr(family, "_GRACE_S", 0.05)
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


@pytest.fixture
def ps(mapped: Segments, monkeypatch: pytest.MonkeyPatch) -> Iterator[Family]:
    """Ps that say that they have begun, and for how long that is; this process may have threads."""
    monkeypatch.setattr(Family, "_fork", staticmethod(forked.fork))
    monkeypatch.setattr(family.p, "run", lambda idx, shared, wake_fd, channel, log_end, parent: channel.send(b"I am"))
    family_of_ps = Family(mapped, -1)
    yield family_of_ps
    for idx in list(family_of_ps.ps):
        family_of_ps.abandon_p(idx)


def has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def heard(child: Child, seconds: float) -> bytes:
    assert child.channel
    child.channel.sock.settimeout(seconds)
    return child.channel.sock.recv(16)


def test_a_p_does_nothing_before_it_is_told_to_begin(ps: Family) -> None:
    child = ps.fork_p(0)
    with pytest.raises(TimeoutError):
        heard(child, 0.1)
    child.begin()
    assert heard(child, 10) == b"I am"


@pytest.mark.parametrize("refuses", ["pidfd_open", "nothing"])
def test_a_p_that_has_not_begun_leaves_nothing_behind(
    ps: Family, monkeypatch: pytest.MonkeyPatch, refuses: str
) -> None:
    def refuse(pid: int) -> int:
        raise OSError(24, "Too many open files")

    before = descriptors()
    if refuses == "nothing":
        ps.fork_p(0)
        ps.abandon_p(0)
    else:
        monkeypatch.setattr(family.os, "pidfd_open", refuse)
        with pytest.raises(OSError, match="Too many"):
            ps.fork_p(0)
    deadline = time.monotonic() + 10
    while has_children() and time.monotonic() < deadline:  # on a busy machine a killed process may take its time
        ps.reap_late()
        time.sleep(0.01)
    assert (ps.ps, descriptors(), has_children()) == ({}, before, False)


TRACER = """
import ctypes, sys, time
libc = ctypes.CDLL(None, use_errno=True)
SEIZE = 0x4206
print(libc.ptrace(SEIZE, int(sys.argv[1]), 0, 0), flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def traced(pid: int) -> Iterator[None]:
    """A debugger that never takes note of anything. What it traces is not its parent's to reap when it has died."""
    with subprocess.Popen([sys.executable, "-c", TRACER, str(pid)], stdout=subprocess.PIPE, text=True) as tracer:
        assert tracer.stdout
        if tracer.stdout.readline() != "0\n":
            tracer.kill()
            pytest.skip("nobody may trace another process here")
        yield
        tracer.kill()


def test_a_dead_p_that_a_debugger_keeps_is_not_waited_for_and_reaped_later(ps: Family) -> None:
    child = ps.fork_p(0)
    with traced(child.pid):
        os.kill(child.pid, signal.SIGKILL)
        began = time.monotonic()
        assert ps.bury_p(0) is None
        assert time.monotonic() - began < 5
        ps.reap_late()
        assert os.path.exists(f"/proc/{child.pid}")
        assert ps._unreaped == [child.pid]
    deadline = time.monotonic() + 10
    while ps._unreaped and time.monotonic() < deadline:
        ps.reap_late()
    assert (ps._unreaped, os.path.exists(f"/proc/{child.pid}")) == ([], False)
    assert how_it_ended(None).startswith("has ended")


def test_a_service_that_does_not_read_keeps_no_p_from_being_started(
    ps: Family, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(b"log")
        ours.setblocking(True)
        ps._service_socket = ours
        before = descriptors()
        ps.fork_p(0).begin()
        assert heard(ps.ps[0], 10) == b"I am"
        ps.bury_p(0)
        assert descriptors() == before
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("a P logs to stderr, for the service does not take its connection: ")


def test_a_child_that_does_not_end_is_killed(sleeper: subprocess.Popen[bytes]) -> None:
    Family._reap([sleeper.pid])
    with pytest.raises(ChildProcessError):
        os.waitpid(sleeper.pid, os.WNOHANG)
    sleeper.wait()


def test_a_child_that_cannot_be_killed_is_left_and_named(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(family.os, "kill", lambda pid, number: None)
        Family._reap([sleeper.pid])
    assert caplog.messages == [f"killed, but still there after 0 s: {sleeper.pid}"]
    os.kill(sleeper.pid, signal.SIGKILL)
    sleeper.wait()
