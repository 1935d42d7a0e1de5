"""How many Ps run programs, GOMAXPROCS, and when that changes. Decisions only: the coordinator starts and ends their processes.

Unless somebody has set it, it follows what Go 1.25 and later follow, looked at each PERIOD_S: the processors this process may run on, and the CPU
quota of its cgroup (:func:`gomp.config.default_procs`), as long as there is a descriptor to look with. Who sets it ends that, until it is set to
DEFAULT_PROCS.

It never changes while the heap is marked: a cycle goes by one number from its beginning to its end. And it never exceeds ``slots``, the number of
Ps whose records were made at the start.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from gomp.cgroup import can_look
from gomp.config import DEFAULT_PROCS, RuntimeSettings, default_procs

log = logging.getLogger("gomp.coordinator")

PERIOD_S = 1.0


class MaxProcs:
    """``default()`` is how many there are to be unless somebody sets it."""

    def __init__(self, settings: RuntimeSettings, default: Callable[[], int] = default_procs) -> None:
        self.slots = settings.most_procs
        self.wanted = settings.procs
        self.reason = ""  # for the last change, in words
        self.is_auto = "procs" not in settings.model_fields_set
        self._default = default
        self._due = time.monotonic() + PERIOD_S

    def look(self) -> None:
        """Where it follows the system, see what that says, if it is time."""
        if self.is_auto and time.monotonic() >= self._due:
            self._follow()

    def set(self, procs: int) -> None:
        """Have ``procs`` Ps from as soon as may be, or DEFAULT_PROCS: what the system says, and from now on."""
        self.is_auto = procs == DEFAULT_PROCS
        if self.is_auto:
            self._follow()
        else:
            self.wanted, self.reason = procs, "somebody has set it"

    def _follow(self) -> None:
        self._due = time.monotonic() + PERIOD_S
        if not can_look():
            return
        found = self._default()
        if found > self.slots and self.wanted < self.slots:
            log.warning("gomaxprocs would be %d, but there is room for %d Ps: max_procs is that", found, self.slots)
        self.wanted, self.reason = min(found, self.slots), "so many processors there are, by affinity and the CPU quota"
