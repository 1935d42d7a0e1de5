"""What ``gomp gctrace`` makes of a run's cycles: a table, a plot, and the figures that one asks for first."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import plotext
from rich.console import Console
from rich.table import Table

from gomp.runtime.gctracefile import TracedCycle, TraceFile

_PLOT_ROWS, _MOST_COLUMNS = 16, 110
_MOST_POINTS = 100
_COLUMNS = (
    "gc",
    "at",
    "CPU",
    "pauses ms",
    "mark",
    "assist",
    "worker",
    "idle",
    "heap MB",
    "live",
    "goal",
    "landed",
    "P",
    "",
)


@dataclass(frozen=True)
class Summary:
    """Of one run, between its first cycle and the end of its last."""

    cycles: int
    forced: int
    seconds: float
    gc_cpu_percent: float  # of the processors of its Ps, idle marking left out, between the first line and the last
    assist_percent: float  # of that
    pause_median_ms: float
    pause_max_ms: float
    live_min_mb: int
    live_max_mb: int
    goal_min_mb: int | None  # of the cycles that had one; None if none had
    goal_max_mb: int | None
    landing_percent: float  # the median heap at the end of marking, of the goal; forced cycles left out

    def text(self) -> str:
        rate = f" ({self.cycles / self.seconds:.3g} a second)" if self.cycles > 1 and self.seconds else ""
        cycles = "1 cycle" if self.cycles == 1 else f"{self.cycles} cycles"
        goals = "no goal" if self.goal_min_mb is None else f"goals {self.goal_min_mb} to {self.goal_max_mb} MB"
        lines = [
            f"{cycles}, {self.forced} of them forced, in {self.seconds:.3f} s{rate}",
            f"GC CPU {self.gc_cpu_percent:.1f}% of what the Ps have, {self.assist_percent:.0f}% of that in assists",
            f"pauses {self.pause_median_ms:.3g} ms in the median, {self.pause_max_ms:.3g} ms the longest",
            f"live heap {self.live_min_mb} to {self.live_max_mb} MB, {goals}",
        ]
        if self.landing_percent:
            lines.append(f"marking ended at {self.landing_percent:.0f}% of the goal, in the median")
        return "\n".join(lines)


def summary_of(cycles: Sequence[TracedCycle]) -> Summary:
    first, last = cycles[0], cycles[-1]
    begun = first.since_start_s
    ended = last.since_start_s + (last.first_pause_ms + last.mark_ms + last.last_pause_ms) / 1e3
    cpu_ms = sum(cycle.gc_cpu_ms for cycle in cycles)
    assist_ms = sum(cycle.assist_ms for cycle in cycles)
    pauses = [pause for cycle in cycles for pause in (cycle.first_pause_ms, cycle.last_pause_ms)]
    goals = [cycle.goal_mb for cycle in cycles if cycle.goal_mb is not None]
    landings = [100 * c.heap_end_mb / c.goal_mb for c in cycles if c.goal_mb and not c.forced]
    ends = [*(cycle.since_start_s for cycle in cycles[1:]), ended]
    available_ms = 1e3 * sum((end - c.since_start_s) * c.procs for c, end in zip(cycles, ends, strict=True))
    return Summary(
        cycles=len(cycles),
        forced=sum(cycle.forced for cycle in cycles),
        seconds=ended - begun,
        gc_cpu_percent=100 * cpu_ms / available_ms if available_ms else 0.0,
        assist_percent=100 * assist_ms / cpu_ms if cpu_ms else 0.0,
        pause_median_ms=statistics.median(pauses),
        pause_max_ms=max(pauses),
        live_min_mb=min(cycle.live_mb for cycle in cycles),
        live_max_mb=max(cycle.live_mb for cycle in cycles),
        goal_min_mb=min(goals, default=None),
        goal_max_mb=max(goals, default=None),
        landing_percent=statistics.median(landings) if landings else 0.0,
    )


def show(cycles: Sequence[TracedCycle], last: int, title: str = "") -> None:
    """Print the ``last`` cycles of a run as a table, all of them as a plot, and the summary."""
    console = Console(highlight=False)
    width, console.width = console.width, max(console.width, _MOST_COLUMNS)  # no cell is cut
    if title:
        console.print(title)
    if len(cycles) > last:
        console.print(f"the last {last} of {len(cycles)} cycles:")
    console.print(_table(cycles[-last:]))
    if len(cycles) > 1:
        print(_plot(cycles, min(width, _MOST_COLUMNS)))
    console.print(summary_of(cycles).text())


def _table(cycles: Sequence[TracedCycle]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for c in cycles:
        notes = ["forced"] * c.forced + ["leaks"] * c.looks_for_leaks
        table.add_row(
            str(c.number),
            f"{c.since_start_s:.3f} s",
            f"{c.gc_cpu_percent}%",
            f"{c.first_pause_ms:g} + {c.last_pause_ms:g}",
            *(f"{ms:g}" for ms in (c.mark_ms, c.assist_ms, c.dedicated_ms, c.idle_ms)),
            f"{c.heap_start_mb} → {c.heap_end_mb}",
            str(c.live_mb),
            "none" if c.goal_mb is None else str(c.goal_mb),
            f"{100 * c.heap_end_mb / c.goal_mb:.0f}%" if c.goal_mb else "",
            str(c.procs),
            " ".join(notes),
        )
    return table


def _plot(cycles: Sequence[TracedCycle], width: int) -> str:
    """The goal, the heap when marking ended, and what was live, over time; of many cycles each so many. A goal far above the heap is left out."""
    shown = cycles[:: -(-len(cycles) // _MOST_POINTS)]
    at = [cycle.since_start_s for cycle in shown]
    top = 4 * max(cycle.heap_end_mb for cycle in cycles)
    goals = [
        (cycle.since_start_s, cycle.goal_mb) for cycle in shown if cycle.goal_mb is not None and cycle.goal_mb <= top
    ]
    plotext.clear_figure()
    plotext.plotsize(width, _PLOT_ROWS)
    if goals:
        plotext.plot(*zip(*goals, strict=True), marker=".", label="goal")
    plotext.plot(at, [cycle.heap_end_mb for cycle in shown], marker="x", label="heap at the end of marking")
    plotext.plot(at, [cycle.live_mb for cycle in shown], marker="braille", label="live")
    plotext.title("MB")
    plotext.xlabel("s")
    return str(plotext.uncolorize(plotext.build()))


def to_json(found: TraceFile) -> dict[str, Any]:
    """All that ``show`` has, for programs."""
    runs = [{"summary": asdict(summary_of(run)), "cycles": [asdict(c) for c in run]} for run in found.runs]
    return {"runs": runs, "lines_left_out": found.left_out}
