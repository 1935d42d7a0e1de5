"""A live set just under the limit, and garbage as fast as can be: collection without end."""

from __future__ import annotations

import time
from contextlib import closing

from workers.stress.blocks import LiveSet, litter


def main(seconds: float = 60.0, share: float = 0.92) -> None:
    """What is live is so much of the limit."""
    with closing(LiveSet(share)) as live:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            live.resize(1.0)
            litter(1000)
