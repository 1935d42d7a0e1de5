"""Each request leaves a goroutine behind that waits for ever, with all that its frame leads to."""

from __future__ import annotations

import time

import gomp
from workers.goroutine_leak import request

ALERT = "GompGoroutineLeak"
SETTINGS = {"procs": 2, "gogc": 100, "memory_limit": "off"}
_LOOK_S = 5.0


def main(seconds: float = 60.0, nbytes: int = 1024) -> None:
    end = time.monotonic() + seconds
    look = 0.0
    while time.monotonic() < end:
        for _ in range(10):
            request(nbytes)
        if time.monotonic() > look:
            gomp.debug.leaked_goroutines()
            look = time.monotonic() + _LOOK_S
        gomp.sleep(0.05)
