"""The end of the coordinator's children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from gomp.runtime import family
from gomp.runtime.family import Family


@pytest.fixture
def sleeper(monkeypatch: pytest.MonkeyPatch) -> subprocess.Popen[bytes]:
    """A child that does not end by itself."""
    monkeypatch.setattr(family, "_GRACE_S", 0.05)
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


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
