"""Something is kept that nobody needs: what each collection leaves live is more than what the one before did."""

from __future__ import annotations

import time

import gomp
from workers.scenarios.live import blocks_in, compile_all, forget, keep, litter

ALERT = "GompHeapFloorRises"
SETTINGS = {"procs": 2, "gogc": 100, "memory_limit": "off"}
_GROWTH = 1.01  # each tenth of a second


def main(seconds: float = 60.0, most_mib: int = 1024) -> None:
    compile_all()
    kept = keep(blocks_in(8))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if kept < blocks_in(most_mib):
            kept += keep(int((_GROWTH - 1) * kept))
        litter(blocks_in(8))
        gomp.sleep(0.1)
    forget()
