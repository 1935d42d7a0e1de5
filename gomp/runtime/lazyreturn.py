"""The coordinator's part in lazy return (:mod:`gomp.core.heap.lazyscav`): when what is released has to leave memory after all.

Memory is short when

- a cgroup's limit leaves less than an eighth of it,
- the file system of the segments has less than an eighth free,
- or tasks have waited for memory since the last look, as the kernel's pressure figures say: those of the cgroup, or where it has none (v1) those of
  the system, while less than an eighth of its memory is available. (Else somebody thrashes under a limit of his own, whom our pages would not help.)

For the first two as much goes as is missing, for the last everything. It is looked at each PERIOD_S, and given back in slices of a millisecond.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from gomp.cgroup import MemoryCgroup
from gomp.core.heap import lazyscav
from gomp.pressure import is_system_short, read_pressure

PERIOD_S = 0.05
EVERYTHING = 1 << 62
_MARGIN = 8  # one part in so many
_SLICE_NS = 1_000_000
_STALLED_S = 0.001  # waiting that counts


class LazyReturn:
    """``heap_fd`` is the segment whose released pages these are. ``on_short`` is called when memory has become short, before any of them goes."""

    def __init__(self, cgroup: MemoryCgroup, heap_fd: int) -> None:
        self._cgroup = cgroup
        self._heap_fd = heap_fd
        self.on_short: Callable[[], None] = lambda: None
        self._due = 0.0
        self._stalled_s = self._read_stalled()
        self._everything = False
        self._missing_bytes = 0

    @property
    def wanted(self) -> int:
        """Bytes that are to leave memory."""
        return EVERYTHING if self._everything else self._missing_bytes

    def want_everything(self) -> None:
        """Have all that is released leave memory."""
        self._everything = True

    @property
    def rest_s(self) -> float:
        """For how many seconds there is nothing to do."""
        return 0.0 if self.wanted > 0 else max(self._due - time.monotonic(), 0.0)

    def step(self) -> None:
        """Look, if it is time, and give back for a millisecond at most what is wanted."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + PERIOD_S
            self._everything |= self._has_stalled()
            was_short = self.wanted > 0
            self._missing_bytes = max(self._missing_of_cgroup(), self._missing_of_file_system(), 0)
            if self.wanted > 0 and not was_short:
                self.on_short()
        if self.wanted > 0:
            freed = lazyscav.reclaim(self.wanted, time.monotonic_ns() + _SLICE_NS)
            if freed == lazyscav.NOTHING_LEFT:
                self._everything, self._missing_bytes = False, 0
            else:
                self._missing_bytes = max(self._missing_bytes - freed, 0)

    def _has_stalled(self) -> bool:
        """Whether tasks have waited since the last look, whom it may help."""
        before, self._stalled_s = self._stalled_s, self._read_stalled()
        return self._stalled_s - before > _STALLED_S and (self._has_own_pressure() or is_system_short(_MARGIN))

    def _has_own_pressure(self) -> bool:
        own = self._cgroup.own()
        return own is not None and (own.directory / "memory.pressure").exists()

    def _missing_of_cgroup(self) -> int:
        missing = [
            limit // _MARGIN - room
            for level in self._cgroup.levels
            if (limit := level.limit()) is not None and (room := level.headroom()) is not None
        ]
        return max(missing, default=0)

    def _missing_of_file_system(self) -> int:
        """A memfd's has no size."""
        of = os.fstatvfs(self._heap_fd)
        return (of.f_blocks // _MARGIN - of.f_bavail) * of.f_frsize if of.f_blocks else 0

    def _read_stalled(self) -> float:
        own = self._cgroup.own()
        some = read_pressure(own.directory if own else None).get("some")
        return some.total_s if some else 0.0
