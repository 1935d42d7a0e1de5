"""Programs do the marking themselves: they allocate faster than the workers' quarter of the processors can follow."""

from __future__ import annotations

import time

import gomp
from workers.scenarios.live import blocks_in, compile_all, forget, keep, litter

ALERT = "GompAssistTax"
SETTINGS = {"procs": 2, "gogc": 25, "memory_limit": "off"}


def burst(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        litter(2000)


def main(seconds: float = 60.0) -> None:
    compile_all()
    keep(blocks_in(128))
    others = [gomp.go(burst, seconds) for _ in range(gomp.num_procs() - 1)]
    burst(seconds)
    for other in others:
        other.wait()
    forget()
