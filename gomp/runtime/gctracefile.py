"""Reading lines of ``GODEBUG=gctrace=1``, Go's or ours, out of whatever else a program has written.

Go 1.6 to 1.18 wrote no stacks and globals; since 1.26 a cycle that looks for leaked goroutines says so. What stands before a line, as the time that a
collector of logs puts there, and lines of other kinds do not matter. Several runs in one file are told apart by their numbers, which begin anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gomp.errors import ConfigError

_MB = 1 << 20
_BEGIN = re.compile(r"\bgc \d+ @[\d.]*s? ?\d*%?")
_NUMBER = r"(\d+(?:\.\d+)?)"
_LINE = re.compile(
    rf"\bgc (\d+) @{_NUMBER}s (\d+)%( \(checking for goroutine leaks\))?: {_NUMBER}\+{_NUMBER}\+{_NUMBER} ms clock, "
    rf"{_NUMBER}\+{_NUMBER}/{_NUMBER}/{_NUMBER}\+{_NUMBER} ms cpu, (\d+)->(\d+)->(\d+) MB, (\d+) MB goal, "
    r"(?:(\d+) MB stacks, (\d+) MB globals, )?(\d+) P( \(forced\))?"
)
_MOST_SHOWN = 80


@dataclass(frozen=True)
class TracedCycle:
    """What one line says. Sizes are whole MiB, as the line has them; None where it says nothing."""

    number: int
    since_start_s: float
    gc_cpu_percent: int  # of all since the start of the program
    first_pause_ms: float
    mark_ms: float
    last_pause_ms: float
    first_pause_cpu_ms: float
    assist_ms: float
    dedicated_ms: float  # and fractional
    idle_ms: float
    last_pause_cpu_ms: float
    heap_start_mb: int
    heap_end_mb: int
    live_mb: int
    goal_mb: int
    stacks_mb: int | None
    globals_mb: int | None
    procs: int
    looks_for_leaks: bool
    forced: bool

    @property
    def gc_cpu_ms(self) -> float:
        """Idle marking left out, as Go counts."""
        return self.first_pause_cpu_ms + self.assist_ms + self.dedicated_ms + self.last_pause_cpu_ms


def read_runs(lines: Iterable[str], name: str) -> list[list[TracedCycle]]:
    """The cycles of each run in the text called ``name``. ConfigError, which names the line that is no whole one, or if there is none at all."""
    runs: list[list[TracedCycle]] = []
    for at, line in enumerate(lines, 1):
        found = _LINE.search(line)
        if found is None:
            if _BEGIN.search(line) and line.endswith("\n"):  # the last one may have been cut where the program ended
                shown = line.strip()[:_MOST_SHOWN]
                raise ConfigError(f"{name}, line {at}: no gctrace line as Go 1.6 and later write it: {shown!r}")
            continue
        cycle = _cycle(found)
        if not runs or cycle.number <= runs[-1][-1].number:
            runs.append([])
        runs[-1].append(cycle)
    if not runs:
        raise ConfigError(f"{name}: no gctrace line in it: run the program with GODEBUG=gctrace=1 and keep its stderr")
    return runs


def _cycle(found: re.Match[str]) -> TracedCycle:
    number, since, percent, leaks, *words, stacks, global_, procs, forced = found.groups()
    times, sizes = [float(word) for word in words[:8]], [int(word) for word in words[8:]]
    return TracedCycle(
        number=int(number),
        since_start_s=float(since),
        gc_cpu_percent=int(percent),
        first_pause_ms=times[0],
        mark_ms=times[1],
        last_pause_ms=times[2],
        first_pause_cpu_ms=times[3],
        assist_ms=times[4],
        dedicated_ms=times[5],
        idle_ms=times[6],
        last_pause_cpu_ms=times[7],
        heap_start_mb=sizes[0],
        heap_end_mb=sizes[1],
        live_mb=sizes[2],
        goal_mb=sizes[3],
        stacks_mb=None if stacks is None else int(stacks),
        globals_mb=None if global_ is None else int(global_),
        procs=int(procs),
        looks_for_leaks=leaks is not None,
        forced=forced is not None,
    )
