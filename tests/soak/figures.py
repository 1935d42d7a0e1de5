"""What must not grow while a service works, as the system and the service itself say it, and the verdict on it."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

MIB = 1 << 20
OWN_PS = ("0", "1")  # all others are lent
CLASSES = "go_memory_classes_"
PAUSES = "go_sched_pauses_total_gc_seconds_bucket"
WINDOWS = {"start": (0.1, 0.25), "middle": (0.45, 0.6), "end": (0.85, 1.0)}  # parts of the run


@dataclass(frozen=True)
class Bound:
    """``least`` and a ``share`` of what a figure was: what it may be above that later."""

    share: float
    least: float


_COUNTED = Bound(0.0, 0.0)  # descriptors, threads, processes, names
_OF_CLIENTS = Bound(0.0, 4.0)  # sockets, some of which are those of who has just come
_BYTES = Bound(0.05, 2 * MIB)
_OF_THE_HEAP = Bound(0.25, 8 * MIB)  # as the settings are changed, which come and go at random
_MS = Bound(1.0, 5.0)


def bound_of(name: str) -> Bound:
    if name.startswith(("heap_", "total_")):
        return _OF_THE_HEAP
    if name.endswith("bytes"):
        return _BYTES
    if name.endswith("sockets"):
        return _OF_CLIENTS
    return _MS if name.endswith("ms") else _COUNTED


@dataclass
class Sample:
    """Figures by name, at one moment; ``pauses`` counts those of up to so many seconds, since the beginning."""

    at_s: float
    figures: dict[str, float]
    pauses: dict[float, float]


def take(client: httpx.Client, coordinator: int) -> Sample | None:
    """What there is now; None while a P has no process."""
    began = time.monotonic()
    text = client.get("/metrics").raise_for_status().text
    took_s = time.monotonic() - began
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    service = next(int(s.value) for s in samples if s.name == "gomp_service_pid")
    ps = [int(s.value) for s in samples if s.name == "gomp_p_pid" and s.labels["p"] in OWN_PS and s.value]
    figures: dict[str, float] = {"scrape, ms": 1000 * took_s}
    try:
        for name, pids in (("coordinator", [coordinator]), ("service", [service]), ("Ps", ps)):
            for figure, read in _OF_A_PROCESS.items():
                figures[f"{name}: {figure}"] = statistics.mean(read(pid) for pid in pids)
    except (OSError, statistics.StatisticsError):
        return None
    figures["processes"] = len(_children(coordinator))
    figures["names in /dev/shm"] = sum(name.startswith("gomp") for name in os.listdir("/dev/shm"))
    figures |= {f"{s.name.removeprefix(CLASSES)}": s.value for s in samples if s.name.startswith(CLASSES)}
    pauses = {float(s.labels["le"]): s.value for s in samples if s.name == PAUSES}
    return Sample(began, figures, pauses)


def _descriptors(pid: int) -> int:
    """But for sockets, and files of /proc, which it may just be reading."""
    return sum(not file.startswith(("/proc/", "socket:")) for file in _open_files(pid))


def _sockets(pid: int) -> int:
    return sum(file.startswith("socket:") for file in _open_files(pid))


def _open_files(pid: int) -> Iterator[str]:
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield os.readlink(fd)


def _threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def _private_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Anonymous:"))


_OF_A_PROCESS: dict[str, Callable[[int], int]] = {
    "descriptors": _descriptors,
    "sockets": _sockets,
    "threads": _threads,
    "private bytes": _private_bytes,
}


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@dataclass
class Report:
    """The samples of a run, and what they come to."""

    samples: list[Sample] = field(default_factory=list)

    def rows(self) -> Iterator[tuple[str, list[float]]]:
        """Each figure's medians at start, middle and end; of pauses, what 99 of 100 were at most."""
        windows = [self._window(*window) for window in WINDOWS.values()]
        for name in self.samples[0].figures:
            yield name, [statistics.median(s.figures[name] for s in window) for window in windows]
        yield "pauses of collections: 99%, ms", [1000 * _quantile(w[0].pauses, w[-1].pauses, 0.99) for w in windows]

    def growing(self) -> list[str]:
        """The figures that are more at the end than they were at the start, and in the middle."""
        return [name for name, values in self.rows() if _grows(bound_of(name), *values)]

    def table(self) -> str:
        lines = ["| | start | middle | end |", "|---|---|---|---|"]
        lines += [f"| {name} | {' | '.join(_show(name, value) for value in values)} |" for name, values in self.rows()]
        return "\n".join(lines)

    def _window(self, first: float, last: float) -> list[Sample]:
        begin, end = self.samples[0].at_s, self.samples[-1].at_s
        within = (begin + first * (end - begin), begin + last * (end - begin))
        return [s for s in self.samples if within[0] <= s.at_s <= within[1]]


def _grows(bound: Bound, start: float, middle: float, end: float) -> bool:
    return end > start + max(bound.share * start, bound.least) and end > middle


def _quantile(before: dict[float, float], after: dict[float, float], part: float) -> float:
    """The bucket's bound, in seconds, below which so much of what came between lies; 0 if nothing came."""
    total = max(after.values()) - max(before.values())
    return min((le for le in after if total and after[le] - before[le] >= part * total), default=0.0)


def _show(name: str, value: float) -> str:
    if name.endswith("bytes"):
        return f"{value / MIB:.1f} MiB"
    return f"{value:.1f}" if value % 1 else f"{value:.0f}"
