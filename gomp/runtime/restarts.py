"""When the process of a P that died is started again: at once, unless it keeps dying. Decisions only; time is an argument."""

from __future__ import annotations

SHORT_LIFE_S = 0.5
_PATIENCE = 3  # short lives in a row that are put up with
_FIRST_S = 0.1
_LONGEST_S = 10.0


class Restarts:
    """One P's. After some short lives in a row each start waits twice as long as the one before, ten seconds at most."""

    def __init__(self) -> None:
        self._started_s = 0.0
        self.short_lives = 0

    def started(self, now_s: float) -> None:
        self._started_s = now_s

    def died(self, now_s: float) -> float:
        """Seconds to wait before it is started again."""
        self.short_lives = self.short_lives + 1 if now_s - self._started_s < SHORT_LIFE_S else 0
        if self.short_lives <= _PATIENCE:
            return 0.0
        return min(_FIRST_S * 2.0 ** (self.short_lives - _PATIENCE - 1), _LONGEST_S)
