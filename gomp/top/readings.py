"""What ``gomp top`` reads: the figures of the live page, and what has become of them since the reading before.

Sizes are in bytes, points in time in ms of Unix time, as in :mod:`gomp.runtime.reading`.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gomp.cgroup import MemoryCgroup
from gomp.core.jit import load_kernels
from gomp.runtime import doing, reading
from gomp.runtime.discovery import RuntimeInfo
from gomp.runtime.looking import Look
from gomp.runtime.metrics.description import Metric
from gomp.runtime.metrics.samples import Row, Samples, rows, sample
from gomp.runtime.metrics.snapshot import Snapshot, Sources

LOOK_S = 0.05  # between two looks at what the Ps do
CYCLES_KEPT = LOOKS_KEPT = 200
_OF_A_P = ("mark", "assist", "sweep", "stopped")


@dataclass(frozen=True)
class Reading:
    """``figures``: see :func:`gomp.runtime.reading.read`. ``rates``: see :func:`rates_between`. ``cycles``: the last ones, the latest last.

    ``lately``: by the name of a P, its last looks. ``metrics``: of those that were asked for; None if none was.
    """

    name: str
    interval_s: float
    figures: dict[str, Any]
    rates: dict[str, Any]
    cycles: Sequence[dict[str, Any]]
    lately: dict[str, str]
    metrics: list[Row] | None


def rates_between(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What has happened in a second, on the average. ``cpu``: shares of the time that all Ps had; ``ps``: each one's, of the clock's.

    A total that has gone back a little, as :func:`gomp.runtime.reading.read` may have it, has stood still.
    """
    seconds = max(now["uptime_s"] - before["uptime_s"], 1e-9)

    def share(group: str, name: str, of: float) -> float:
        return max(float(now[group][name] - before[group][name]), 0.0) / of

    available = max(now["cpu"]["available"] - before["cpu"]["available"], 1)
    was = {p["name"]: p for p in before["ps"]}
    return {
        "cycles": share("cycles", "count", seconds),
        "allocated": share("heap", "allocated", seconds),
        "mallocs": share("heap", "mallocs", seconds),
        "cpu": {name: share("cpu", name, available) for name in now["cpu"] if name != "available"},
        "ps": {
            p["name"]: {
                name: max(p[f"{name}_s"] - was.get(p["name"], p)[f"{name}_s"], 0.0) / seconds for name in _OF_A_P
            }
            for p in now["ps"]
        },
    }


class Readings:
    """One after the other of the runtime that ``look`` is at; with the ``metrics`` in each."""

    def __init__(self, look: Look, info: RuntimeInfo, metrics: Sequence[Metric]) -> None:
        load_kernels()  # which takes a moment: else it would be within the first interval
        self._look_at = look
        self._name = info.name
        self._metrics = metrics
        self._cgroup = MemoryCgroup.of_this_process(Path(f"/proc/{info.pid}"))
        self._sources = Sources(self._cgroup)
        self._looks: list[str] = []
        self._lately: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=LOOKS_KEPT))
        self._cycles: deque[dict[str, Any]] = deque(maxlen=CYCLES_KEPT)
        self._figures, self._samples, self._at_s = self._read()

    def look(self) -> None:
        """See what each P does. Raises RuntimeLost if the runtime has ended."""
        self._look_at.check()
        self._looks.append(doing.look())
        self._look_at_cycles()

    def read(self) -> Reading:
        """The figures of now."""
        before, samples_before, at_s = self._figures, self._samples, self._at_s
        self._figures, self._samples, self._at_s = self._read()
        self._looks = []
        for p in self._figures["ps"]:
            self._lately[p["name"]].extend(p["did"])
        interval_s = self._at_s - at_s
        return Reading(
            self._name,
            interval_s,
            self._figures,
            rates_between(before, self._figures),
            tuple(self._cycles),
            {name: "".join(looks) for name, looks in self._lately.items()},
            rows(self._samples, samples_before, interval_s) if self._metrics else None,
        )

    def _read(self) -> tuple[dict[str, Any], Samples, float]:
        self._look_at_cycles()
        snapshot = Snapshot(self._sources, self._look_at.heap_fd, self._look_at.meta_fd)
        samples = sample(self._metrics, snapshot)
        return reading.read(self._looks, self._look_at.heap_fd, self._cgroup), samples, time.monotonic()

    def _look_at_cycles(self) -> None:
        self._cycles.extend(reading.read_cycles(self._cycles[-1]["number"] if self._cycles else 0))
