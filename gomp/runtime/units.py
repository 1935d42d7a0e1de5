"""How figures are written for people."""

from __future__ import annotations


def format_bytes(n: float) -> str:
    """``n`` with the unit in which it has three digits or fewer."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1024
    return f"{n:.4g} TiB"


def format_time(seconds: float) -> str:
    """``seconds`` in the unit that fits."""
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds // 60 % 60)} min"
    if seconds >= 60:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs" if seconds else "0"
