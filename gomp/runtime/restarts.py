"""When the process of a P that died is started again: at once, unless it keeps dying. Decisions only; time is an argument."""

from __future__ import annotations

from collections import deque

RECENT_S = 30.0
TOLERATED = 30  # recent deaths: one a second
_FIRST_S = 0.1
_LONGEST_S = 10.0


class Restarts:
    """One P's. Beyond so many deaths in half a minute each start waits twice as long as the one before, ten seconds at most."""

    def __init__(self) -> None:
        self._deaths: deque[float] = deque()

    def died(self, now_s: float) -> float:
        """Seconds to wait before it is started again."""
        self._deaths.append(now_s)
        while now_s - self._deaths[0] > RECENT_S:
            self._deaths.popleft()
        too_many = len(self._deaths) - TOLERATED
        return min(_FIRST_S * 2.0 ** (too_many - 1), _LONGEST_S) if too_many > 0 else 0.0
