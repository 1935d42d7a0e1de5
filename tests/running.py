"""Which Ps run a goroutine that was started by a message. That a P does not sleep says less: one that waits looks around from time to time."""

from __future__ import annotations

import time

from gomp.core.shm import layout
from gomp.core.shm.records import RUNTIME, TASK_RUNNING, runtime_dtype, task_dtype, view


def busy_ps() -> set[int]:
    """The Ps of which the coordinator knows that they have begun one."""
    tasks = view(task_dtype, layout.TASKS_BASE, int(view(runtime_dtype, RUNTIME)[0].tasks_committed))
    return {int(task["p"]) for task in tasks if task["status"] == TASK_RUNNING}


def wait_until_busy(n: int, seconds: float = 20.0) -> set[int]:
    """Wait until ``n`` Ps run something; which."""
    deadline = time.monotonic() + seconds
    while len(busy := busy_ps()) < n:
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain until {n} Ps run something: {busy}"
        time.sleep(0.001)
    return busy
