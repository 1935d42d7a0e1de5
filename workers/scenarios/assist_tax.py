"""Programs do the marking themselves: they allocate faster than the workers' quarter of the processors can follow."""

from __future__ import annotations

from workers.scenarios.live import allocate_on_all, blocks_in, compile_all, forget, keep

ALERT = "GompAssistTax"
SETTINGS = {"procs": 2, "gogc": 100, "memory_limit": "off"}


def main(seconds: float = 60.0) -> None:
    compile_all()
    keep(blocks_in(64))
    allocate_on_all(seconds)
    forget()
