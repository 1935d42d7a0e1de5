"""The phases of a collection, as the record of the runtime says them that this process is in; and its processes."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from gomp.core.shm import layout
from gomp.core.shm.records import GC_MARK, RUNTIME, SWEEP_SETS, p_dtype, runtime_dtype, view

WAIT_S = 30.0


def runtime() -> Any:
    return view(runtime_dtype, RUNTIME)[0]


def pid_of(i: int) -> int:
    return int(view(p_dtype, layout.p_addr(i))[0].xpid)


def kill(pid: int) -> None:
    """If it is there: it may have been killed for what it has held up."""
    with contextlib.suppress(ProcessLookupError):
        if pid:
            os.kill(pid, signal.SIGKILL)


def wait_until(is_so: Callable[[], bool], otherwise: str, seconds: float = WAIT_S) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.001)


PHASES: dict[str, Callable[[], bool]] = {
    "between cycles": lambda: runtime().xgcphase != GC_MARK and runtime().xsweep_class >= SWEEP_SETS,
    "marking": lambda: runtime().xgcphase == GC_MARK,
    "sweeping": lambda: runtime().xgcphase != GC_MARK and runtime().xsweep_class < SWEEP_SETS,
    "stopping": lambda: runtime().xstop != 0,
}


def reach(phase: str) -> None:
    """Returns within that phase, or when it has just ended: the next thing is done then."""
    deadline = time.monotonic() + WAIT_S
    while not PHASES[phase]():
        assert time.monotonic() < deadline, f"it is never {phase}"
