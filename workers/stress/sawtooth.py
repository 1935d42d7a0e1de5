"""The live set grows to a share of the limit and falls to a tenth of that, over and over."""

from __future__ import annotations

import time
from contextlib import closing

from workers.stress.blocks import LiveSet, litter

_STEPS, _LEAST = 50, 0.1


def main(seconds: float = 60.0, share: float = 0.6, period: float = 5.0) -> None:
    """A tooth takes ``period`` seconds, or as long as its allocations take."""
    with closing(LiveSet(share)) as live:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            for step in range(_STEPS):
                due = time.monotonic() + period / _STEPS
                live.resize(_LEAST + (1 - _LEAST) * step / (_STEPS - 1))
                while time.monotonic() < due:
                    litter(1000)
