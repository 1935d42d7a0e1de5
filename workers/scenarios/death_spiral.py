"""The live heap is near the memory limit: collection without end, for what little room is left."""

from __future__ import annotations

from workers.scenarios.live import allocate_on_all, blocks_in, compile_all, forget, keep

ALERT = "GompDeathSpiral"
SETTINGS = {"procs": 2, "gogc": 100, "memory_limit": "160MiB"}
_LIVE_MIB = 106


def main(seconds: float = 60.0) -> None:
    compile_all()
    keep(blocks_in(_LIVE_MIB))
    allocate_on_all(seconds)
    forget()
