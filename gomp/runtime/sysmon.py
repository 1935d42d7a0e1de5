"""What Go's sysmon does for goroutines that are ready: they get their turn even where programs go on and on (proc.go, sysmon and retake)."""

from __future__ import annotations

import math
import time

from gomp.core.mutator.goroutine import SLICE_NS
from gomp.core.sched.parking import watch_queues
from gomp.core.shm.records import SCHED, sched_dtype, view


class Sysmon:
    """The coordinator's: it looks every slice while there is something ready that nobody was woken for."""

    def __init__(self) -> None:
        self._due = 0.0

    def step(self) -> float:
        """Look, if it is time; for how many seconds it need not be called."""
        if not view(sched_dtype, SCHED)[0].xsysmon:
            return math.inf
        now = time.monotonic()
        if self._due == 0.0:
            self._due = now + SLICE_NS / 1e9  # a slice for whoever is about to look by himself
        elif now >= self._due:
            self._due = now + SLICE_NS / 1e9
            if not watch_queues():
                self._due = 0.0
                return math.inf
        return max(self._due - now, 0.0)
