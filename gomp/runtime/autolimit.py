"""``memory_limit = "auto"``: the limit on the runtime's memory that its cgroup's limit leaves room for.

A share of the cgroup's limit, 0.9 unless the settings say otherwise, less what the cgroup's processes take for themselves: the interpreters, and
what the kernel keeps for them. That is measured, in the cgroup whose limit is the strictest, and grows when programs load; limits are changed while
a container runs. So both are looked at again each second, and the limit follows when either has moved by more than a trifle.

Below FLOOR there is no limit. But one that has been set does not go when interpreters grow: it stays at the floor, as there is no more memory than
before.
Where the cgroup does not tell what its processes take, it is what all of it is charged at the start, when the heap is empty.
"""

from __future__ import annotations

import logging
import time

from gomp.cgroup import MemoryCgroup, MemoryLevel
from gomp.config import NO_LIMIT

log = logging.getLogger("gomp.coordinator")

FLOOR = 64 << 20  # with less the heap could hardly turn round
PERIOD_S = 1.0
_TRIFLE = 32  # one part in so many of the cgroup's limit
_MIB = 1 << 20


class AutoLimit:
    """What to set, looked at each PERIOD_S."""

    def __init__(self, cgroup: MemoryCgroup, share: float) -> None:
        self._cgroup = cgroup
        self._share = share
        self._due = 0.0
        self._decided: tuple[int, int] | None = None  # from which limit of the cgroup and which taken bytes
        self._is_set = False
        self._taken_at_first: int | None = None  # where it cannot be measured

    def again(self) -> None:
        """Decide anew, whatever was decided before."""
        self._decided, self._due, self._is_set = None, 0.0, False

    def look(self) -> int | None:
        """The limit to set now, in bytes; None if the last one stands. A new one is in the log with its reason."""
        if time.monotonic() < self._due:
            return None
        self._due = time.monotonic() + PERIOD_S
        level = self._cgroup.strictest()
        limit = level.limit() if level else None
        taken = self._taken(level) if level and limit is not None else 0
        now = (NO_LIMIT if limit is None else limit, taken)
        if self._decided and not _differ(self._decided, now):
            return None
        self._decided = now
        return self._decide(*now)

    def _taken(self, level: MemoryLevel) -> int:
        taken = level.anonymous()
        if taken is not None:
            return taken
        if self._taken_at_first is None:
            self._taken_at_first = level.usage() or 0
            log.warning(
                "%s cannot be read: %.1f MiB, what is charged now, is taken for what the processes take for themselves",
                level.directory / "memory.stat",
                self._taken_at_first / _MIB,
            )
        return self._taken_at_first

    def _decide(self, limit: int, taken: int) -> int:
        was_set, self._is_set = self._is_set, False
        if limit == NO_LIMIT:
            log.info("memory_limit is off: it is auto, and no cgroup limits this process's memory")
            return NO_LIMIT
        leaves = int(self._share * limit) - taken
        reason = "%.3g of the cgroup's %.1f MiB, less %.1f MiB that its processes take for themselves"
        figures = (self._share, limit / _MIB, taken / _MIB)
        self._is_set = leaves >= FLOOR or was_set
        if leaves < FLOOR and was_set:
            log.warning(
                f"memory_limit stays at %d MiB: auto is {reason}, and that leaves less", FLOOR // _MIB, *figures
            )
            return FLOOR
        if leaves < FLOOR:
            log.warning(
                f"memory_limit is off: auto is {reason}, and that leaves less than %d MiB; give the container more memory, or set memory_limit",
                *figures,
                FLOOR // _MIB,
            )
            return NO_LIMIT
        log.info(f"memory_limit is %.1f MiB: auto is {reason}", leaves / _MIB, *figures)
        return leaves


def _differ(before: tuple[int, int], now: tuple[int, int]) -> bool:
    return before[0] != now[0] or abs(before[1] - now[1]) > now[0] // _TRIFLE
