"""How figures are written on the screen: short, and as wide as their neighbours."""

from __future__ import annotations

import time

from gomp.config import ENDLESS
from gomp.runtime.units import format_bytes, format_time


def format_count(n: float) -> str:
    """A number of things, or of things in a second."""
    if n < 10_000:
        return f"{n:,.0f}" if n >= 100 or n == int(n) else f"{n:.3g}"
    for unit in ("k", "M", "G"):
        n /= 1000
        if n < 1000:
            return f"{n:.3g} {unit}"
    return f"{n / 1000:,.3g} T"


def format_share(share: float) -> str:
    """In percent, of at most four characters."""
    percent = 100 * share
    return f"{percent:.1f}%" if percent < 9.95 else f"{percent:.0f}%"


def format_mib(nbytes: int | None) -> str:
    """As MiB, without the unit, and in four characters up to 10 GiB."""
    if not nbytes:
        return "none" if nbytes is None else "0"
    mib = nbytes / 2**20
    digits = 2 if mib < 9.995 else 1 if mib < 99.95 else 0
    return f"{mib:.{digits}f}"


def format_value(value: float, unit: str, name: str = "") -> str:
    """A metric's value. Seconds are points in time where the metric's ``name`` says so, as Prometheus has it."""
    if value >= ENDLESS:  # no limit, or no goal
        return "none"
    if unit == "bytes":
        return format_bytes(value)
    if unit in ("seconds", "cpu-seconds"):
        is_point = name.endswith("_time_seconds")
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value)) if is_point else format_time(value)
    if unit == "ratio":
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def format_rate(rate: float, unit: str) -> str:
    """What a counter grows by in a second."""
    if unit == "bytes":
        return f"{format_bytes(rate)}/s"
    if unit in ("seconds", "cpu-seconds"):
        return f"{format_time(rate)}/s"
    return f"{format_count(rate)}/s"
