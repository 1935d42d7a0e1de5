"""Nothing is wrong: a steady live set, garbage at a steady pace, and a heap that has room."""

from __future__ import annotations

import time

import gomp
from workers.scenarios.live import blocks_in, compile_all, forget, keep, litter

ALERT = None
SETTINGS = {"procs": 2, "gogc": 100, "memory_limit": "1GiB"}


def main(seconds: float = 60.0) -> None:
    compile_all()
    keep(blocks_in(32))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        litter(blocks_in(1))
        gomp.sleep(0.02)
    forget()
