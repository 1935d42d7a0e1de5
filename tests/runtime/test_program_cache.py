"""The child that compiles for a P: whatever becomes of it, its P is told in one line and none of it stays."""

from __future__ import annotations

import os
import re
import select
import signal
import time

import pytest

from gomp import forked
from gomp.errors import CompileError
from gomp.runtime import program_cache
from gomp.runtime.program_cache import do_in_child


def test_a_child_that_is_killed_is_a_compile_error_that_says_so():
    with pytest.raises(CompileError, match=r"the compiler \(pid \d+\) was killed by SIGKILL"):
        do_in_child(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_a_child_that_does_not_come_to_an_end_is_killed(monkeypatch):
    monkeypatch.setattr(program_cache, "_DEADLINE_S", 0.1)
    with pytest.raises(CompileError, match=r"the compiler \(pid \d+\) was not done within") as caught:
        do_in_child(signal.pause)
    with pytest.raises(ProcessLookupError):
        os.kill(int(re.findall(r"\d+", str(caught.value))[0]), 0)


def test_a_child_has_none_of_its_parents_descriptors():
    kept = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(CompileError, match="Bad file descriptor"):
        do_in_child(lambda: os.fstat(kept))
    os.close(kept)


def test_a_child_dies_with_its_p(tmp_path):
    told = tmp_path / "pid"

    def tell_and_wait():
        told.write_text(f"{os.getpid()} ")
        signal.pause()

    p = forked.fork(lambda: do_in_child(tell_and_wait))
    while not told.exists() or not told.read_text().endswith(" "):
        time.sleep(0.001)
    child = os.pidfd_open(int(told.read_text()))
    os.kill(p, signal.SIGKILL)
    os.waitpid(p, 0)
    assert select.select([child], [], [], 2.0)[0], "it has ended"
    os.close(child)
