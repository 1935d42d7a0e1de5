"""Pressure stall information: for how long tasks have waited for memory, of a cgroup v2 or of the whole system."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SYSTEM = Path("/proc/pressure/memory")
MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Pressure:
    """One line: ``avg10`` is the percentage of the last ten seconds, ``total_s`` all of it in seconds."""

    avg10: float
    total_s: float


def read_pressure(cgroup: Path | None, system: Path = SYSTEM) -> dict[str, Pressure]:
    """By ``some`` (a task waited) and ``full`` (all did), of ``cgroup`` if it has a file, else of the system; empty where that does not tell."""
    own = cgroup / "memory.pressure" if cgroup else system
    try:
        return dict(_parse(line) for line in (own if own.exists() else system).read_text().splitlines())
    except (OSError, ValueError, KeyError):  # not there, or PSI is switched off, or no descriptor is left
        return {}


def is_system_short(margin: int, meminfo: Path = MEMINFO) -> bool:
    """Whether less than one part in ``margin`` of the system's memory is available; so too where it does not tell."""
    try:
        sizes = {
            name: int(value.split()[0])
            for name, value in (line.split(":") for line in meminfo.read_text().splitlines())
        }
        return sizes["MemAvailable"] * margin < sizes["MemTotal"]
    except (OSError, ValueError, KeyError, IndexError):
        return True


def _parse(line: str) -> tuple[str, Pressure]:
    kind, *rest = line.split()
    values = dict(item.split("=", 1) for item in rest)
    return kind, Pressure(float(values["avg10"]), int(values["total"]) / 1e6)
