"""``python -m benchmarks.scenarios [NAME...]``: the scenarios of docs/guide/memory-limit.md, run with ``gomp stress`` and drawn into docs/pictures.

Each is one or two runs, which differ in what the environment sets and are otherwise the same. It needs what ``gomp stress`` does: a memory cgroup.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gomp.stress.report import Report
from gomp.stress.run import run

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
MIB = 1 << 20
DPI = 70
GOS = ("GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG")


@dataclass(frozen=True)
class Run:
    """``memory`` in MiB."""

    program: str
    memory: int
    seconds: float
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return " ".join((*(f"{key}={value}" for key, value in self.settings.items()), self.program))

    def report(self) -> Report:
        for name in GOS:
            os.environ.pop(name, None)
        os.environ.update(self.settings)
        return run(self.program, self.memory * MIB, self.seconds)


def line(of: Run, report: Report) -> str:
    """A row of figures."""
    charges = [sample.charge for sample in report.run]
    return (
        f"{of.name:44} in {of.memory:4} MiB: peak charge {report.peak_charge / MIB:.0f} MiB, median {statistics.median(charges) / MIB:.0f}, "
        f"GC CPU {100 * report.gc_share:.1f}% in {report.run[-1].cycles} cycles, {report.run[-1].allocated / MIB / report.seconds:.0f} MiB/s, "
        f"{report.oom_kills} kills, {report.error or 'no error'}"
    )


def draw_sizes(axes: Any, of: Run, report: Report) -> None:
    """What is charged, in memory, and live, over time."""
    times = [sample.t for sample in report.samples]
    for name, label, colour in (
        ("charge", "charge of the cgroup", "C0"),
        ("resident", "heap in memory", "C2"),
        ("live", "live at the last cycle", "C3"),
    ):
        axes.plot(
            times, [getattr(sample, name) / MIB for sample in report.samples], label=label, color=colour, linewidth=1
        )
    axes.axhline(report.memory / MIB, color="black", linestyle="--", linewidth=1, label="limit of the cgroup")
    axes.axhline((report.memory_limit or 0) / MIB, color="gray", linestyle=":", label="memory limit")
    axes.set_ylim(0, 1.05 * report.memory / MIB)
    axes.set_title(of.name, fontsize="small")
    axes.set_xlabel("seconds")


def draw_shares(axes: Any, of: Run, report: Report) -> None:
    """The charge and what collection takes of the CPU, over time."""
    times = [sample.t for sample in report.run]
    axes.plot(
        times,
        [sample.charge / MIB for sample in report.run],
        color="C0",
        label="charge of the cgroup, MiB",
        linewidth=1,
    )
    axes.set_ylim(0, 1.05 * report.memory / MIB)
    axes.set_title(f"{of.name}: {report.run[-1].allocated / MIB / report.seconds:.0f} MiB/s", fontsize="small")
    axes.set_xlabel("seconds")
    share = axes.twinx()
    share.plot(times[1:], [100 * share for share in report.gc_shares], color="C5", label="GC, % of CPU", linewidth=1)
    share.set_ylim(0, 50)


SCENARIOS: dict[str, tuple[Callable[[Any, Run, Report], None], tuple[Run, ...]]] = {
    "container": (draw_sizes, (Run("ramp", 256, 60),)),
    "bursts": (
        draw_sizes,
        (
            Run("burst_idle", 512, 60, {"GOMEMLIMIT": "off"}),
            Run("burst_idle", 512, 60, {"GOMEMLIMIT": "256MiB"}),
        ),
    ),
    "batch": (
        draw_shares,
        (
            Run("ramp", 1536, 40, {"GOMEMLIMIT": "off", "GOGC": "100"}),
            Run("ramp", 1536, 40, {"GOMEMLIMIT": "off", "GOGC": "400"}),
        ),
    ),
    "retained": (
        draw_sizes,
        (Run("burst_idle", 640, 80, {"GOMEMLIMIT": "off"}), Run("leak", 640, 80, {"GOMEMLIMIT": "off"})),
    ),
}


def main(names: list[str]) -> None:
    """Run them, print a line a run, draw a picture a scenario."""
    for name in names or SCENARIOS:
        draw, runs = SCENARIOS[name]
        figure = Figure(figsize=(4.6 * len(runs) + 1.2, 3.4), layout="constrained")
        panels = figure.subplots(1, len(runs), sharey=draw is draw_sizes, squeeze=False)[0]
        for axes, of in zip(panels, runs, strict=True):
            report = of.report()
            print(line(of, report), flush=True)
            draw(axes, of, report)
        panels[0].set_ylabel("MiB")
        handles = {
            label: handle
            for axes in figure.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, fontsize="small")
        figure.savefig(PICTURES / f"{name}.png", dpi=DPI)


if __name__ == "__main__":
    main(sys.argv[1:])
