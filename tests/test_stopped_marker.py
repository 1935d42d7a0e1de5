"""A P that is stopped in the middle of marking: nobody wants the world to stop, and yet it is found out."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import gomp
from gomp.core.shm import layout
from gomp.core.shm.records import GC_MARK, RUNTIME, STATUS_KERNEL, p_dtype, runtime_dtype, view
from tests.attaching import chain

WAIT_S = 60


@pytest.fixture
def rt(monkeypatch: pytest.MonkeyPatch) -> Iterator[gomp.Runtime]:
    monkeypatch.setenv("GOMP_STOP_DEADLINE", "0.5")
    with gomp.Runtime(procs=1, max_procs=1, max_heap="1GiB", gogc=50) as runtime:
        yield runtime
        runtime.verify(3)


def make(rounds: int) -> None:
    kept = chain(500_000)
    for _ in range(rounds):
        chain(100_000)
    assert kept.number == 499_999


def test_it_is_killed_and_the_cycle_ends(rt: gomp.Runtime) -> None:
    running = rt.go(make, 100_000)
    p, runtime = view(p_dtype, layout.p_addr(0))[0], view(runtime_dtype, RUNTIME)[0]

    def marks() -> bool:
        return bool(p.xmarking) and p.xstatus == STATUS_KERNEL and runtime.xgcphase == GC_MARK and not runtime.xstop

    until = time.monotonic() + WAIT_S
    while True:
        assert time.monotonic() < until, "it was never in the middle of marking"
        pid = int(p.xpid)
        if not pid or not marks():
            continue
        os.kill(pid, signal.SIGSTOP)
        while "T (stopped)" not in Path(f"/proc/{pid}/status").read_text():
            pass
        if marks():
            break
        os.kill(pid, signal.SIGCONT)
    began = time.monotonic()
    rt.gc()
    assert time.monotonic() - began < 20
    assert int(p.xpid) != pid
    with pytest.raises(gomp.WorkerDied):
        running.wait(WAIT_S)
