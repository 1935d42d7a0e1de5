"""A peak of a share of the limit, then nothing to do: what is kept, and for how long."""

from __future__ import annotations

import time
from contextlib import closing

from workers.stress.blocks import LiveSet, litter

_BUSY = 0.2  # of each period


def main(seconds: float = 60.0, share: float = 0.6, period: float = 20.0) -> None:
    """A burst every ``period`` seconds."""
    with closing(LiveSet(share)) as live:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            start = time.monotonic()
            live.resize(1.0)
            while time.monotonic() - start < _BUSY * period:
                litter(2000)
            live.resize(0.0)
            time.sleep(max(start + period - time.monotonic(), 0.0))
