"""GOGC is too low: the heap is collected again and again, for little garbage each time."""

from __future__ import annotations

from workers.scenarios.live import allocate_on_all, blocks_in, compile_all, forget, keep

ALERT = "GompGCCPUHigh"
SETTINGS = {"procs": 1, "gogc": 10, "memory_limit": "off"}


def main(seconds: float = 60.0) -> None:
    compile_all()
    keep(blocks_in(256))
    allocate_on_all(seconds)
    forget()
