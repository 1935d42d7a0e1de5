"""``python -m benchmarks.pictures``: the measured curves of docs/go-memory.md, drawn from runs of this machine."""

from __future__ import annotations

import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

import gomp
from benchmarks.reference import peak_mapped
from gomp.config import RuntimeSettings, load

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
MIB = 1 << 20
GOGCS = (25, 50, 100, 200, 400, 800)
LIMITS = (80, 84, 88, 92, 100, 110, 125, 150, 200, 300)  # MiB
CHURN = {"n": 100_000, "m": 600_000, "garbage": 2}
RUNS = 3


@dataclass(frozen=True)
class Cost:
    """What one run took."""

    wall_s: float
    cycles: int
    gc_share: float  # of the CPU time of all Ps
    peak_mib: float
    limited_s: float


def measure(parameters: dict[str, int], **settings: Any) -> Cost:
    """The median of some runs, by their time."""
    return sorted((_measure(parameters, settings) for _ in range(RUNS)), key=lambda cost: cost.wall_s)[RUNS // 2]


def _measure(parameters: dict[str, int], settings: dict[str, Any]) -> Cost:
    with gomp.Runtime.of(load(RuntimeSettings, procs=2, max_heap="2GiB", **settings)) as rt:
        rt.run("reference.churn", n=1, m=1)  # what is compiled is compiled
        with peak_mapped() as peak:
            before = rt.stats()
            rt.run("reference.churn", **parameters)
            after = rt.stats()
    wall_s = after.uptime_s - before.uptime_s
    busy_s = after.gc_cpu_s - before.gc_cpu_s
    return Cost(
        wall_s,
        after.num_gc - before.num_gc,
        busy_s / (2 * wall_s),
        peak[0] / MIB,
        after.limiter.seconds - before.limiter.seconds,
    )


def landings(program: str, parameters: dict[str, int]) -> list[float]:
    """Of each cycle, how far from its goal the heap was when marking ended, as a share of the goal."""
    with tempfile.TemporaryDirectory() as scratch:
        tape = Path(scratch) / "tape.jsonl"
        with gomp.Runtime.of(load(RuntimeSettings, procs=2, gogc=100, pacer_tape=tape)) as rt:
            rt.run(program, **parameters)
        rows = [json.loads(line) for line in tape.read_text().splitlines()]
    errors, live = [], 0
    for row in rows:
        if row["op"] == "start_cycle":
            live = row["in"]["heap_live"]
        elif row["op"] == "revise":
            live += row["in"][0]
        elif row["op"] == "end_cycle":
            goal = row["out"]["last_heap_goal"]
            errors.append((live - goal) / goal)
            live = row["out"]["heap_marked"]
    return errors


def draw_landing() -> None:
    figure, axes = plt.subplots(figsize=(7, 3))
    for program, parameters in (
        ("reference.churn", CHURN),
        ("reference.trees", {"depth": 16}),
        ("reference.sawtooth", {"rounds": 16, "n": 60000}),
    ):
        errors = landings(program, parameters)
        axes.plot(range(1, len(errors) + 1), [100 * e for e in errors], ".-", label=program, linewidth=0.8)
        print(f"{program}: {len(errors)} cycles, landing error {100 * statistics.median(map(abs, errors)):.1f}% median")
    axes.axhline(0, color="black", linewidth=0.5)
    axes.set(xlabel="cycle", ylabel="heap at the end of marking\nbeyond the goal, percent", ylim=(-60, 60))
    axes.legend(fontsize="small")
    _save(figure, "landing")


def draw_gogc() -> None:
    costs = [measure(CHURN, gogc=gogc) for gogc in GOGCS]
    figure, axes = plt.subplots(figsize=(7, 3))
    axes.plot([cost.peak_mib for cost in costs], [100 * cost.gc_share for cost in costs], "o-")
    for gogc, cost in zip(GOGCS, costs, strict=True):
        axes.annotate(f"  GOGC={gogc}", (cost.peak_mib, 100 * cost.gc_share), fontsize="small", va="bottom")
        print(
            f"| {gogc} | {cost.cycles} | {cost.peak_mib:.0f} MiB | {100 * cost.gc_share:.1f}% | {cost.wall_s:.2f} s |"
        )
    axes.set(xlabel="most memory mapped, MiB", ylabel="GC CPU, percent")
    axes.margins(0.18, 0.1)  # for the labels
    _save(figure, "gogc")


def draw_limit() -> None:
    costs = [measure(CHURN, gogc="off", memory_limit=limit * MIB) for limit in LIMITS]
    figure, axes = plt.subplots(figsize=(7, 3))
    axes.plot(LIMITS, [cost.cycles for cost in costs], "o-", label="cycles")
    shares = axes.twinx()
    shares.plot(LIMITS, [100 * cost.gc_share for cost in costs], "s--", color="tab:red", label="GC CPU, percent")
    for limit, cost in zip(LIMITS, costs, strict=True):
        print(
            f"| {limit} MiB | {cost.cycles} | {100 * cost.gc_share:.1f}% | {cost.wall_s:.2f} s | {cost.peak_mib:.0f} MiB | {cost.limited_s:.2f} s |"
        )
    axes.set(xlabel="memory limit, MiB (live data: 67 MiB)", ylabel="cycles")
    shares.set_ylabel("GC CPU, percent", color="tab:red")
    _save(figure, "limit")


def draw_remedies() -> None:
    """The program that thrashes, made to allocate less, and given more room."""
    for what, parameters, limit in (
        ("as it is", CHURN, 84),
        ("half of the garbage", CHURN | {"garbage": 1}, 84),
        ("no garbage", CHURN | {"garbage": 0}, 84),
        ("8 MiB more", CHURN, 92),
        ("41 MiB more", CHURN, 125),
    ):
        cost = measure(parameters, gogc="off", memory_limit=limit * MIB)
        print(f"| {what} | {limit} MiB | {cost.cycles} | {100 * cost.gc_share:.1f}% | {cost.wall_s:.2f} s |")


def _save(figure: Any, name: str) -> None:
    PICTURES.mkdir(exist_ok=True)
    figure.tight_layout()
    figure.savefig(PICTURES / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    mpl.rcParams["svg.hashsalt"] = "gomp"
    for draw in (draw_landing, draw_gogc, draw_limit, draw_remedies):
        draw()
