"""``python -m benchmarks.scenarios [NAME...]``: the scenarios of docs/guide/memory-limit.md, run with ``gomp stress`` and drawn into docs/pictures.

Each is one or two runs, which differ in what the environment sets and are otherwise the same. They need what ``gomp stress`` does: a memory cgroup.
Two more are curves over a setting, of ``gomp run reference.churn``.
"""

from __future__ import annotations

import os
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.pictures import CHURN, measure
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


SCENARIOS: dict[str, tuple[Run, ...]] = {
    "container": (Run("ramp", 256, 60),),
    "bursts": (
        Run("burst_idle", 512, 60, {"GOMEMLIMIT": "off"}),
        Run("burst_idle", 512, 60, {"GOMEMLIMIT": "256MiB"}),
    ),
    "retained": (
        Run("burst_idle", 640, 80, {"GOMEMLIMIT": "off"}),
        Run("leak", 640, 80, {"GOMEMLIMIT": "off"}),
    ),
}
# The settings that a curve goes over, in what words, and how many of them.
CURVES: dict[str, tuple[str, str, list[int]]] = {
    "batch": ("gogc", "GOGC", [25, 50, 100, 200, 400, 800]),
    "measure": ("memory_limit", "memory limit, MiB", [80, 84, 92, 110, 150, 200, 300]),
}


def draw_scenario(name: str) -> None:
    """Run it; a line a run, and a picture."""
    runs = SCENARIOS[name]
    figure = Figure(figsize=(4.6 * len(runs) + 1.2, 3.4), layout="constrained")
    panels = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
    for axes, of in zip(panels, runs, strict=True):
        report = of.report()
        print(line(of, report), flush=True)
        draw_sizes(axes, of, report)
    panels[0].set_ylabel("MiB")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5 if len(runs) > 1 else 3, fontsize="small")
    figure.savefig(PICTURES / f"{name}.png", dpi=DPI)


def draw_curve(name: str) -> None:
    """Measure it; a line a setting, and a picture: time and memory above, collection's share of the CPU below."""
    setting, words, values = CURVES[name]
    unit = "" if setting == "gogc" else "MiB"
    others = {} if setting == "gogc" else {"gogc": "off"}
    costs = [measure(CHURN, **{setting: f"{value}{unit}"}, **others) for value in values]
    for value, cost in zip(values, costs, strict=True):
        print(
            f"{setting} {value}{unit}: {cost.wall_s:.2f} s, {cost.cycles} cycles, GC CPU {100 * cost.gc_share:.1f}%, {cost.peak_mib:.0f} MiB at most"
        )
    figure = Figure(figsize=(5.8, 3.4), layout="constrained")
    times, shares = figure.subplots(2, 1, sharex=True)
    times.plot(values, [cost.wall_s for cost in costs], "o-", color="C0", label="seconds")
    times.set_ylim(bottom=0)
    times.set_ylabel("seconds", color="C0")
    most = times.twinx()
    most.plot(values, [cost.peak_mib for cost in costs], "s:", color="C1", label="most mapped, MiB")
    most.set_ylim(bottom=0)
    most.set_ylabel("MiB at most", color="C1")
    shares.plot(values, [100 * cost.gc_share for cost in costs], "o-", color="C5")
    shares.set_ylim(bottom=0)
    shares.set_ylabel("GC, % of CPU", color="C5")
    shares.set_xscale("log")
    shares.set_xticks(values, map(str, values))
    shares.minorticks_off()
    shares.set_xlabel(words)
    figure.suptitle("gomp run reference.churn n=100000 m=600000 garbage=2", fontsize="small")
    figure.savefig(PICTURES / f"{name}.png", dpi=DPI)


def main(names: list[str]) -> None:
    """Those named, or all."""
    for name in names or (*SCENARIOS, *CURVES):
        (draw_scenario if name in SCENARIOS else draw_curve)(name)


if __name__ == "__main__":
    main(sys.argv[1:])
