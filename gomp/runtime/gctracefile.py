"""Reading lines of ``GODEBUG=gctrace=1``, Go's or ours, out of whatever else a program has written.

Go 1.6 to 1.18 wrote no stacks and globals; since 1.26 a cycle that looks for leaked goroutines says so. What stands before a line, as the time that a
collector of logs puts there, and lines of other kinds do not matter. Several runs in one file are told apart by their numbers and times, which begin
anew.

A line that begins as one of these and is none is left out and counted: two processes have written into one file, or a log was cut. So is one with a
number that no runtime writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from gomp.config import ENDLESS
from gomp.errors import GompError

_BEGIN = re.compile(r"\bgc [0-9]+ @")
_WHOLE = r"([0-9]{1,15})"  # what there are more of would be lost in sums, or is no number
_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,15})?)"
_LINE = re.compile(
    rf"\bgc {_WHOLE} @{_NUMBER}s {_WHOLE}%( \(checking for goroutine leaks\))?: {_NUMBER}\+{_NUMBER}\+{_NUMBER} ms clock, "
    rf"{_NUMBER}\+{_NUMBER}/{_NUMBER}/{_NUMBER}\+{_NUMBER} ms cpu, {_WHOLE}->{_WHOLE}->{_WHOLE} MB, {_WHOLE} MB goal, "
    rf"(?:{_WHOLE} MB stacks, {_WHOLE} MB globals, )?{_WHOLE} P( \(forced\))?"
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
    goal_mb: int | None  # None also where there is none: GOGC and the memory limit are off
    stacks_mb: int | None
    globals_mb: int | None
    procs: int
    looks_for_leaks: bool
    forced: bool

    @property
    def gc_cpu_ms(self) -> float:
        """Idle marking left out, as Go counts."""
        return self.first_pause_cpu_ms + self.assist_ms + self.dedicated_ms + self.last_pause_cpu_ms


@dataclass
class TraceFile:
    """What was read: the cycles of each run; and how many lines were left out, with what is wrong with the first of them."""

    runs: list[list[TracedCycle]] = field(default_factory=list)
    left_out: int = 0
    first_left_out: str = ""

    def add(self, cycle: TracedCycle) -> None:
        last = self.runs[-1][-1] if self.runs else None
        if last is None or cycle.number <= last.number or cycle.since_start_s < last.since_start_s:
            self.runs.append([])
        self.runs[-1].append(cycle)

    def leave_out(self, at: int, line: str) -> None:
        self.left_out += 1
        self.first_left_out = (
            self.first_left_out
            or f"line {at} is no gctrace line as Go 1.6 and later write it: {line.strip()[:_MOST_SHOWN]!r}"
        )

    def complaint(self) -> str:
        """For people; "" if no line was left out."""
        lines = "1 line was" if self.left_out == 1 else f"{self.left_out:,} lines were"
        return f"{lines} left out: {self.first_left_out}" if self.left_out else ""


def read_file(lines: Iterable[str], name: str) -> TraceFile:
    """What the text called ``name`` has. GompError if no line of it can be read."""
    found = TraceFile()
    for at, line in enumerate(lines, 1):
        if match := _LINE.search(line):
            found.add(_cycle(match))
        elif _BEGIN.search(line) and line.endswith("\n"):  # the last one may have been cut where the program ended
            found.leave_out(at, line)
    if not found.runs:
        why = found.complaint() or "run the program with GODEBUG=gctrace=1 and keep its stderr"
        raise GompError(f"{name}: no gctrace line in it: {why}")
    return found


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
        goal_mb=sizes[3] if sizes[3] << 20 < ENDLESS else None,
        stacks_mb=None if stacks is None else int(stacks),
        globals_mb=None if global_ is None else int(global_),
        procs=int(procs),
        looks_for_leaks=leaks is not None,
        forced=forced is not None,
    )
