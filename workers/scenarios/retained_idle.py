"""A peak is over, and its memory is still resident: the system takes it back only when it needs it. No leak."""

from __future__ import annotations

import time

import gomp
from workers.scenarios.live import blocks_in, compile_all, forget, keep, litter

ALERT = "GompRetainedIdle"
SETTINGS = {"procs": 2, "gogc": 100, "memory_limit": "off", "godebug": "madvdontneed=0"}


def main(seconds: float = 60.0) -> None:
    compile_all()
    end = time.monotonic() + seconds
    keep(blocks_in(256))
    litter(blocks_in(64))
    forget()
    gomp.debug.free_os_memory()
    while time.monotonic() < end:
        litter(blocks_in(1))
        gomp.sleep(0.2)
