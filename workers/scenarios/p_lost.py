"""Processes of Ps die: each loses the program that it ran, and is replaced."""

from __future__ import annotations

import os
import signal
import time

from workers.scenarios.live import blocks_in, compile_all, litter

ALERT = "GompPLost"
SETTINGS = {"procs": 2, "gogc": 100, "memory_limit": "off"}


def main(seconds: float = 60.0, every: float = 5.0) -> None:
    """The service starts it anew each time."""
    compile_all()
    end = time.monotonic() + min(every, seconds)
    while time.monotonic() < end:
        litter(blocks_in(1))
        time.sleep(0.02)
    if every < seconds:
        os.kill(os.getpid(), signal.SIGKILL)
