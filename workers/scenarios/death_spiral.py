"""The live heap is just under the memory limit: collection without end, for what little room is left."""

from __future__ import annotations

import time

from workers.scenarios.live import blocks_in, compile_all, forget, keep, litter

ALERT = "GompDeathSpiral"
SETTINGS = {"procs": 2, "gogc": 100, "memory_limit": "160MiB"}
_LIVE_MIB = 140


def main(seconds: float = 60.0) -> None:
    compile_all()
    keep(blocks_in(_LIVE_MIB))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        litter(blocks_in(1))
        time.sleep(0.001)
    forget()
