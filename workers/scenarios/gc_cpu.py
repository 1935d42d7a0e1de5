"""GOGC is too low: the heap is collected again and again, for little garbage each time."""

from __future__ import annotations

import time

from workers.scenarios.live import blocks_in, compile_all, forget, keep, litter

ALERT = "GompGCCPUHigh"
SETTINGS = {"procs": 2, "gogc": 10, "memory_limit": "off"}


def main(seconds: float = 60.0) -> None:
    compile_all()
    keep(blocks_in(64))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        litter(blocks_in(1))
        time.sleep(0.002)
    forget()
