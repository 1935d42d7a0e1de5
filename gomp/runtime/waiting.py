"""Waiting for the collector from Python, with a deadline and a diagnosis. Signals are handled between naps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from gomp.core.mutator.poll import request_collection, sleep_for_credit, sleep_idle_until, sleep_until
from gomp.core.sched.status import shut_down_if_orphaned
from gomp.core.shm.records import (
    GC_TRIGGER_FORCED,
    RT_XCYCLE_DONE,
    RT_XCYCLES,
    RUNTIME,
    runtime_dtype,
    view,
)
from gomp.errors import RuntimeLost
from gomp.runtime import mapping

_NAP_NS = 100_000_000
_CREDIT_NAP_NS = 1_000_000
DEADLINE_S = 120.0


class Collector:
    """What an allocation may have to wait for (see :mod:`gomp.core.mutator.boundary`)."""

    def wait_for_begin(self, begun: int) -> None:
        """Return once more than ``begun`` cycles have begun. Raises RuntimeLost if the runtime ends, or none does within two minutes."""
        self._wait(RT_XCYCLES, begun, "begun", sleep_until)

    def wait_for_end(self, ended: int) -> None:
        """Return once more than ``ended`` cycles have ended. Raises RuntimeLost as :meth:`wait_for_begin` does."""
        is_main = threading.current_thread() is threading.main_thread()  # the P's own, which does nothing else
        self._wait(RT_XCYCLE_DONE, ended, "ended", sleep_idle_until if is_main else sleep_until)

    def wait_for_credit(self) -> None:
        """Leave the collector a millisecond to earn what this process owes. The debt stays, and its next allocation waits again."""
        with mapping.asleep():
            sleep_for_credit(_CREDIT_NAP_NS)

    @staticmethod
    def _wait(word: int, more_than: int, what: str, sleep: Callable[[int, int, int], int]) -> None:
        rt = view(runtime_dtype, RUNTIME)[0]
        deadline = time.monotonic() + DEADLINE_S
        while _nap(sleep, word, more_than) <= more_than:
            shut_down_if_orphaned()
            if rt.xshutdown:
                raise RuntimeLost("the runtime has ended")
            if time.monotonic() > deadline:
                raise RuntimeLost(
                    f"no collection has {what} for {DEADLINE_S:.0f} s: see the log of the coordinator (pid {rt.coordinator_pid})"
                )


def _nap(sleep: Callable[[int, int, int], int], word: int, more_than: int) -> int:
    with mapping.asleep():
        return int(sleep(word, more_than, _NAP_NS))


def collect() -> None:
    """Run a whole collection, sweep included, and return when it is done: Go's runtime.GC."""
    Collector().wait_for_end(request_collection(GC_TRIGGER_FORCED) - 1)
