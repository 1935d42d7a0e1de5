"""The coordinator's part in lazy return (:mod:`gomp.core.heap.lazyscav`): when what is released has to leave memory after all.

Memory is short when

- a cgroup's limit leaves less than an eighth of it,
- the file system of the segments has less than an eighth free,
- or tasks have waited for memory since the last look, as the kernel's pressure figures say: those of the cgroup, or of the system where it has none.

For the first two as much goes as is missing, for the last everything. It is looked at each PERIOD_S, and given back in slices of a millisecond.
"""

from __future__ import annotations

import os
import time

from gomp.cgroup import MemoryCgroup
from gomp.core.heap import lazyscav
from gomp.pressure import read_pressure

PERIOD_S = 0.05
EVERYTHING = 1 << 62
_MARGIN = 8  # one part in so many
_SLICE_NS = 1_000_000
_STALLED_S = 0.001  # waiting that counts


class LazyReturn:
    """``heap_fd`` is the segment whose released pages these are."""

    def __init__(self, cgroup: MemoryCgroup, heap_fd: int) -> None:
        self._cgroup = cgroup
        self._heap_fd = heap_fd
        self._due = 0.0
        self._stalled_s = self._read_stalled()
        self.wanted = 0  # bytes that are to leave memory

    @property
    def rest_s(self) -> float:
        """For how many seconds there is nothing to do."""
        return 0.0 if self.wanted > 0 else max(self._due - time.monotonic(), 0.0)

    def step(self) -> None:
        """Look, if it is time, and give back for a millisecond at most what is wanted."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + PERIOD_S
            self.wanted = max(self.wanted, self._missing())
        if self.wanted > 0:
            freed = lazyscav.reclaim(self.wanted, time.monotonic_ns() + _SLICE_NS)
            self.wanted = max(self.wanted - freed, 0) if freed else 0

    def _missing(self) -> int:
        stalled_s = self._read_stalled()
        has_stalled = stalled_s - self._stalled_s > _STALLED_S
        self._stalled_s = stalled_s
        if has_stalled:
            return EVERYTHING
        return max(self._missing_of_cgroup(), self._missing_of_file_system())

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
