"""The live heap does not fit into the memory limit: collection gets half of the processors, and the heap grows past it."""

from __future__ import annotations

from workers.scenarios.live import allocate_on_all, blocks_in, compile_all, forget, keep

ALERT = "GompHeapDoesNotFit"
SETTINGS = {"procs": 2, "gogc": 100, "memory_limit": "96MiB"}


def main(seconds: float = 60.0) -> None:
    compile_all()
    keep(blocks_in(128))
    allocate_on_all(seconds)
    forget()
