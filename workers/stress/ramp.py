"""The live set grows to a share of the limit, and stays."""

from __future__ import annotations

import time
from contextlib import closing

from workers.stress.blocks import LiveSet, litter


def main(seconds: float = 60.0, share: float = 0.6) -> None:
    """Half of the time it grows."""
    with closing(LiveSet(share)) as live:
        began = time.monotonic()
        while (elapsed := time.monotonic() - began) < seconds:
            live.resize(min(2 * elapsed / seconds, 1.0))
            litter(2000)
