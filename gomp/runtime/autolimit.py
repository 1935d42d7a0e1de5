"""``memory_limit = "auto"``: the limit on the runtime's memory that its cgroup's limit leaves room for.

A share of the cgroup's limit, 0.9 unless the settings say otherwise, less what the cgroup's processes take for themselves: the interpreters, and
what the kernel keeps for them. That is measured, in the cgroup whose limit is the strictest, and grows when programs load; limits are changed while
a container runs. So both are looked at again four times a second, and the limit follows when either has moved by more than a trifle.

What counts as taken is the most of the last seconds. A compiler that runs for one of them moves the limit once and not at every look; and what
processes are about to take counts before they do (:meth:`AutoLimit.expect`): one that has just been forked has next to no pages of its own, and a
program that asks for the limit in its first moment would fill memory that the interpreters need.

Where the cgroup does not tell what its processes take, it is what all of it is charged at the start, when the heap is empty.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque

from gomp.cgroup import MemoryCgroup, MemoryLevel
from gomp.config import NO_LIMIT

log = logging.getLogger("gomp.coordinator")

FLOOR = 64 << 20  # with less the heap could hardly turn round
PERIOD_S = 0.25
MEMORY_S = 10.0  # for so long something counts as taken
_TRIFLE = 32  # one part in so many of the cgroup's limit
_MIB = 1 << 20
# What a process comes to beside the pages that it shares with the coordinator, in bytes: measured with idle programs, a second after the fork.
P_TAKES, SERVICE_TAKES = 12 * _MIB, 16 * _MIB


class AutoLimit:
    """What to set, looked at each PERIOD_S."""

    def __init__(self, cgroup: MemoryCgroup, share: float) -> None:
        self._cgroup = cgroup
        self._share = share
        self._due = 0.0
        self._taken: deque[tuple[float, int]] = deque()  # when, and how many bytes: of the last MEMORY_S
        self._decided: tuple[int, int] | None = None  # from which limit of the cgroup and which taken bytes
        self._is_set = False  # there has been room for a limit
        self._taken_at_first: int | None = None  # where it cannot be measured
        self._told: tuple[bool, float] | None = None  # that it is too little: whether there is a limit, of how many MiB

    def expect(self, nbytes: int) -> None:
        """Processes are about to be forked that will take so much."""
        level = self._cgroup.strictest()
        self._taken.append((time.monotonic(), (self._taken_now(level) if level else 0) + nbytes))

    def again(self) -> None:
        """Decide anew, whatever was decided before."""
        self._decided, self._due, self._is_set, self._told = None, 0.0, False, None

    def look(self) -> int | None:
        """The limit to set now, in bytes; None if the last one stands. A new one is in the log with its reason."""
        if time.monotonic() < self._due:
            return None
        self._due = time.monotonic() + PERIOD_S
        level = self._cgroup.strictest()
        limit = level.limit() if level else None
        if limit is None and self._is_set and self._cgroup.problems():
            return None  # it cannot be read just now: perhaps no descriptor is left
        now = (NO_LIMIT, 0) if level is None or limit is None else (limit, self._most_taken(self._taken_now(level)))
        if self._decided and not _differ(self._decided, now):
            return None
        self._decided = now
        return self._decide(*now)

    def _taken_now(self, level: MemoryLevel) -> int:
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

    def _most_taken(self, now: int) -> int:
        self._taken.append((time.monotonic(), now))
        while self._taken[0][0] < time.monotonic() - MEMORY_S:
            self._taken.popleft()
        return max(taken for _, taken in self._taken)

    def _decide(self, limit: int, taken: int) -> int:
        if limit == NO_LIMIT:
            self._is_set = False
            why = (
                "no cgroup's limit can be read" if self._cgroup.problems() else "no cgroup limits this process's memory"
            )
            log.info("memory_limit is off: it is auto, and %s", why)
            return NO_LIMIT
        leaves = int(self._share * limit) - taken
        reason = "%.3g of the cgroup's %.1f MiB, less %.1f MiB that its processes need for themselves"
        figures = (self._share, limit / _MIB, taken / _MIB)
        if leaves < FLOOR:
            return self._decide_for_too_little(reason, figures)
        log.info(f"memory_limit is %.1f MiB: auto is {reason}", leaves / _MIB, *figures)
        self._is_set, self._told = True, None
        return leaves

    def _decide_for_too_little(self, reason: str, figures: tuple[float, float, float]) -> int:
        """None at all from the start; but no service loses the limit that it had just when memory has become scarce: that stays at the floor."""
        was_told, self._told = self._told, (self._is_set, figures[1])
        log.log(
            logging.DEBUG if self._told == was_told else logging.WARNING,
            f"memory_limit is %s: auto is {reason}, and that leaves less than %d MiB; give the container %d MiB or more, or set memory_limit",
            f"{FLOOR / _MIB:.1f} MiB" if self._is_set else "off",
            *figures,
            FLOOR // _MIB,
            math.ceil((figures[2] + FLOOR / _MIB) / self._share),
        )
        return FLOOR if self._is_set else NO_LIMIT


def _differ(before: tuple[int, int], now: tuple[int, int]) -> bool:
    return before[0] != now[0] or abs(before[1] - now[1]) > now[0] // _TRIFLE
