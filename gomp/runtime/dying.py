"""Processes of Ps that will be gone in a moment: because they were killed, or their sockets have hung up. Decisions only.

The coordinator waits for none of them: a process may take its time to end, for the kernel takes its memory down first. It asks which are overdue.
What counts is the time in which the coordinator itself ran: who was frozen together with it has not had that time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

HUNG_UP_S = 1.0  # from the hang-up of its socket to the end of a process
KILLED_S = 5.0  # from SIGKILL to the end
_LONGEST_NAP_S = 1.0  # between two looks of a coordinator that runs


class Dying:
    """Those of one runtime, by P. ``now_s`` is the clock."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._looked_s = now_s()
        self._lived_s = 0.0
        self._hung_up: dict[int, tuple[float, str]] = {}  # until when that may take, and what was said when it hung up
        self._killed: dict[int, float] = {}

    def has_hung_up(self, idx: int, why: str) -> None:
        """P ``idx`` cannot be heard any more: it has probably died, which its pidfd will tell."""
        if idx not in self._killed:
            self._hung_up.setdefault(idx, (self._lived() + HUNG_UP_S, why))

    def was_killed(self, idx: int) -> None:
        self._hung_up.pop(idx, None)
        self._killed.setdefault(idx, self._lived() + KILLED_S)

    def forget(self, idx: int) -> None:
        """Its process has been buried, or its end is waited for no more."""
        self._hung_up.pop(idx, None)
        self._killed.pop(idx, None)

    @property
    def killed(self) -> Iterable[int]:
        """Who was killed and is still there."""
        return self._killed.keys()

    def is_killed(self, idx: int) -> bool:
        return idx in self._killed

    def overdue(self) -> tuple[dict[int, str], list[int]]:
        """Who hung up and lives, with what was said; and who was killed and lives."""
        now = self._lived()
        return {p: why for p, (until, why) in self._hung_up.items() if now >= until}, [
            p for p, until in self._killed.items() if now >= until
        ]

    @property
    def rest_s(self) -> float:
        """For how many seconds nobody will be overdue."""
        due = min((*(until for until, _ in self._hung_up.values()), *self._killed.values()), default=math.inf)
        return max(due - self._lived(), 0.0)

    def _lived(self) -> float:
        now = self._now_s()
        self._lived_s += min(now - self._looked_s, _LONGEST_NAP_S)
        self._looked_s = now
        return self._lived_s
