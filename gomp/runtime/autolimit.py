"""``memory_limit = "auto"``: the limit on the runtime's memory that its cgroup's limit leaves room for.

A share of the cgroup's limit, 0.9 unless the settings say otherwise, less what the cgroup's processes take for themselves: the interpreters, and
what the kernel keeps for them. That is measured, in the cgroup whose limit is the strictest, and grows when programs load; limits are changed while
a container runs. So both are looked at again each second, and the limit follows when either has moved by more than a trifle.

A process that has just been forked has next to no pages of its own, and a program that asks for the limit in its first moment would fill memory that
the interpreters are about to take. So for the first seconds each process counts for what it usually comes to.
"""

from __future__ import annotations

import logging
import time

from gomp.cgroup import MemoryCgroup
from gomp.config import NO_LIMIT

log = logging.getLogger("gomp.coordinator")

FLOOR = 64 << 20  # with less the heap could hardly turn round
PERIOD_S = 1.0
_TRIFLE = 32  # one part in so many of the cgroup's limit
_MIB = 1 << 20
# What a process comes to beside the pages that it shares with the coordinator, in bytes: measured with idle programs, a second after the fork.
P_TAKES, SERVICE_TAKES = 12 * _MIB, 20 * _MIB
_SETTLED_S = 10.0  # after that, what is measured counts alone


class AutoLimit:
    """What to set, looked at each PERIOD_S."""

    def __init__(self, cgroup: MemoryCgroup, share: float) -> None:
        self._cgroup = cgroup
        self._share = share
        self._due = 0.0
        self._decided: tuple[int, int] | None = None  # from which limit of the cgroup and which taken bytes
        self._expected = 0  # bytes that count as taken at least,
        self._expected_until = 0.0

    def expect(self, nbytes: int) -> None:
        """Processes are about to be forked that will take so much: it counts as taken for _SETTLED_S, whatever is measured."""
        level = self._cgroup.strictest()
        self._expected = (level.anonymous() if level else 0) + nbytes
        self._expected_until = time.monotonic() + _SETTLED_S

    def again(self) -> None:
        """Decide anew, whatever was decided before."""
        self._decided, self._due = None, 0.0

    def look(self) -> int | None:
        """The limit to set now, in bytes; None if the last one stands. A new one is in the log with its reason."""
        if time.monotonic() < self._due:
            return None
        self._due = time.monotonic() + PERIOD_S
        level = self._cgroup.strictest()
        limit = level.limit() if level else None
        taken = level.anonymous() if level and limit is not None else 0
        if time.monotonic() < self._expected_until:
            taken = max(taken, self._expected)
        now = (NO_LIMIT if limit is None else limit, taken)
        if self._decided and not _differ(self._decided, now):
            return None
        self._decided = now
        return self._decide(*now)

    def _decide(self, limit: int, taken: int) -> int:
        if limit == NO_LIMIT:
            log.info("memory_limit is off: it is auto, and no cgroup limits this process's memory")
            return NO_LIMIT
        leaves = int(self._share * limit) - taken
        reason = "%.3g of the cgroup's %.1f MiB, less %.1f MiB that its processes %s for themselves"
        figures = (self._share, limit / _MIB, taken / _MIB, "will take" if taken == self._expected else "take")
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
