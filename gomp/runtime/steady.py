"""Unix time for what is compared with one another, points of a chart for example: the clock may be set, forward or back, and moves none of them.

It is what the clock said when this process began, and what has gone by since on the one that nobody sets.
"""

from __future__ import annotations

import time

_BOOT_MS = time.time() * 1e3 - time.monotonic_ns() / 1e6


def unix_ms(monotonic_ns: float | None = None) -> float:
    """Of now, or of that moment."""
    return _BOOT_MS + (time.monotonic_ns() if monotonic_ns is None else monotonic_ns) / 1e6
