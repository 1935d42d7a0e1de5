"""Processes that the kernel kills because their cgroup has no memory left: which those are, and when their successors are started.

SIGKILL alone does not say who sent it; the cgroup counts the kernel's, also those for want of memory elsewhere: then no limit of the cgroup was met.
Who is killed so again and again lives in too small a container, where
starting it at once would only go on until somebody looks: its successors wait longer and longer, until all Ps have lived for a while. If that never
comes, the runtime gives up. Decisions only; time is an argument.
"""

from __future__ import annotations

import math
import os
import signal
from collections import Counter

from gomp.cgroup import MemoryCgroup

HOPELESS = 8  # kills of one P in a row, before all have lived HEALTHY_S
HEALTHY_S = 10.0
PERIOD_S = 1.0
ADVICE = "give the container more memory, or the runtime fewer Ps"
_FIRST_S, _LONGEST_S, _MOST_DOUBLINGS = 0.1, 5.0, 10
_MIB = 1 << 20


class OomKills:
    """Those of one runtime."""

    def __init__(self, cgroup: MemoryCgroup) -> None:
        self._cgroup = cgroup
        self._known = self._counted = self._count()
        self._known_met = self._counted_met = self._count_met()
        self._looked_s = 0.0
        self._in_a_row: Counter[int] = Counter()  # by P
        self._whole_since: float | None = None
        self._was_healthy = False

    def explain(self, status: int | None) -> str:
        """Why a process with this wait status has ended, in words, if the kernel has killed it for want of memory; "" if not. Once for each."""
        was_killed = status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if not was_killed or self._count() <= self._known:
            return ""
        self._known += 1
        if self._counts_meetings() and self._count_met() <= self._known_met:
            return f"was killed by the kernel for want of memory outside its cgroup{self._limit(' and was not met')}"
        return f"was killed by the kernel for want of memory in its cgroup{self._limit()}"

    def suspect(self) -> str:
        """As :meth:`explain`, of a process that was killed while nobody looked whom the kernel had killed before: "" if it has killed nobody."""
        if self._count() <= self._known:
            return ""
        return f"was killed by SIGKILL, perhaps by the kernel for want of memory in its cgroup{self._limit()}"

    def _limit(self, more: str = "") -> str:
        level = self._cgroup.strictest()
        limit = level.limit() if level else None
        return "" if limit is None else f", whose limit is {limit / _MIB:.1f} MiB{more}"

    def delay(self, idx: int) -> float:
        """Seconds until the successor of P ``idx``, which the kernel has killed, is to be started."""
        self._in_a_row[idx] += 1
        return min(math.ldexp(_FIRST_S, min(self._in_a_row[idx] - 1, _MOST_DOUBLINGS)), _LONGEST_S)

    @property
    def is_hopeless(self) -> bool:
        """Whether the runtime has never been well, and will not be."""
        return not self._was_healthy and max(self._in_a_row.values(), default=0) >= HOPELESS

    def look(self, is_whole: bool, now_s: float) -> None:
        """Each P has a process, or not: to be told every now and then."""
        if not is_whole:
            self._whole_since = None
        elif self._whole_since is None:
            self._whole_since = now_s
        elif now_s - self._whole_since > HEALTHY_S:
            self._was_healthy = True
            self._in_a_row.clear()
            self._forget_others(now_s)

    def _forget_others(self, now_s: float) -> None:
        """Kills of others in the cgroup are not taken for ours later. One of ours is counted a moment before it is noticed here."""
        if now_s - self._looked_s > PERIOD_S:
            self._looked_s = now_s
            self._known, self._counted = max(self._known, self._counted), self._count()
            self._known_met, self._counted_met = self._counted_met, self._count_met()

    def _count(self) -> int:
        own = self._cgroup.own()
        return own.events().get("oom_kill", 0) if own else 0

    def _counts_meetings(self) -> bool:
        """Whether each level that has a limit tells how often it was met."""
        return all("max" in level.events() for level in self._cgroup.levels if level.limit() is not None)

    def _count_met(self) -> int:
        """How often a limit was met, on any level: above the one whose limit it is, others count it too."""
        return sum(level.events().get("max", 0) for level in self._cgroup.levels)
