"""Waiting for the collector from Python, with a deadline and a diagnosis. Signals are handled between naps."""

from __future__ import annotations

import time

from gomp.core.mutator.poll import request_collection, sleep_until_cycle
from gomp.core.sched.status import shut_down_if_orphaned
from gomp.core.shm.records import GC_TRIGGER_FORCED, RUNTIME, runtime_dtype, view
from gomp.errors import RuntimeLost
from gomp.runtime import mapping

_NAP_NS = 100_000_000
DEADLINE_S = 120.0


def wait_for_cycle(done: int) -> None:
    """Return once more than ``done`` mark phases have ended. Raises RuntimeLost if the runtime ends, or none ends within two minutes."""
    rt = view(runtime_dtype, RUNTIME)[0]
    deadline = time.monotonic() + DEADLINE_S
    while _nap(done) <= done:
        shut_down_if_orphaned()
        if rt.xshutdown:
            raise RuntimeLost("the runtime has ended")
        if time.monotonic() > deadline:
            raise RuntimeLost(
                f"no collection has ended for {DEADLINE_S:.0f} s: see the log of the coordinator (pid {rt.coordinator_pid})"
            )


def _nap(done: int) -> int:
    with mapping.asleep():
        return int(sleep_until_cycle(done, _NAP_NS))


def collect() -> None:
    """Run a whole collection, sweep included, and return when it is done: Go's runtime.GC."""
    wait_for_cycle(request_collection(GC_TRIGGER_FORCED) - 1)
