"""``make bench``: gomp beside real Go, the same work, in turn on the same machine.

Each pair runs Go, then gomp, so that a slow moment of the machine hits both. What is quoted are medians over the pairs and their ratio.
The table goes to docs/benchmarks.md, the runs as one JSON line each to build/benchmarks.jsonl.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

import gomp
from benchmarks import alloc, goroutines, marking, sharing, trigger
from benchmarks.go_twin import BUILD, HERE, build_go, run_go
from benchmarks.page import PAGE, put_section
from gomp.core.shm.records import MHEAP, mheap_dtype, view
from gomp.runtime.memstats import MemStats
from gomp.runtime.residency import private_bytes

PROCS = 2
GOGC = 100
PROGRAMS: dict[str, tuple[str, dict[str, int]]] = {
    "binary_trees, 1 goroutine": ("binary_trees", {"depth": 18, "goroutines": 1}),
    "binary_trees, 2 goroutines": ("binary_trees", {"depth": 18, "goroutines": 2}),
    "churn, 1 goroutine": ("churn", {"live": 1 << 20, "ops": 20_000_000, "goroutines": 1}),
    "churn, 2 goroutines": ("churn", {"live": 1 << 20, "ops": 20_000_000, "goroutines": 2}),
}


@dataclass(frozen=True)
class Row:
    """One line of the table: medians of both, and their spread as (lowest, highest)."""

    what: str
    unit: str
    go: float
    ours: float
    go_spread: tuple[float, float]
    our_spread: tuple[float, float]

    @property
    def ratio(self) -> float:
        return self.ours / self.go if self.go else float("nan")


def run_ours(rt: gomp.Runtime, program: str, parameters: dict[str, int]) -> dict[str, Any]:
    before = rt.stats()
    began = time.perf_counter()
    result = rt.run(program, **parameters)
    wall_s = time.perf_counter() - began
    after = rt.stats()
    return {
        "result": result,
        "wall_s": wall_s,
        "num_gc": after.num_gc - before.num_gc,
        "gc_cpu_s": after.gc_cpu_s - before.gc_cpu_s,
        "pauses_ns": _pauses_of(after, after.num_gc - before.num_gc),
    }


def _pauses_of(stats: MemStats, cycles: int) -> list[int]:
    """The pauses of the last cycles, each cycle's together as Go counts them."""
    return [
        stats.pause_ns[(stats.num_gc - i) % len(stats.pause_ns)] for i in range(1, min(cycles, len(stats.pause_ns)) + 1)
    ]


def compare(what: str, unit: str, go: list[float], ours: list[float]) -> Row:
    return Row(what, unit, statistics.median(go), statistics.median(ours), (min(go), max(go)), (min(ours), max(ours)))


def allocation_rows(rt: gomp.Runtime, pairs: int) -> list[Row]:
    binary = build_go("alloc")
    runs = [(run_go(binary)["figures"], rt.run(alloc.main)) for _ in range(pairs)]
    names = {"pair": "two references", "linked": "one reference", "plain": "no reference"}
    rows = []
    for kind, (size, _) in alloc.KINDS.items():
        label = f"{size} bytes, {names[kind.rstrip('0123456789')]}"
        rows.append(compare(label, "ns", [go[kind] for go, _ in runs], [ours[kind] for _, ours in runs]))
    return rows


def program_rows(rt: gomp.Runtime, pairs: int) -> list[Row]:
    rows = []
    for label, (program, parameters) in PROGRAMS.items():
        binary = build_go(program)
        rt.run(program, **parameters)  # the heap is warm, as Go's is after the first of its cycles
        runs = [(run_go(binary, *parameters.values()), run_ours(rt, program, parameters)) for _ in range(pairs)]
        wrong = [
            (go["result"], ours["result"])
            for go, ours in runs
            if program == "binary_trees" and go["result"] != ours["result"]
        ]
        if wrong:
            raise AssertionError(f"{label}: Go and gomp disagree: {wrong[0]}")
        for field, unit, text in (("wall_s", "s", "time"), ("num_gc", "", "cycles"), ("gc_cpu_s", "s", "GC CPU")):
            rows.append(
                compare(f"{label}: {text}", unit, [go[field] for go, _ in runs], [ours[field] for _, ours in runs])
            )
        for text, of in (("pauses of a cycle, median", statistics.median), ("longest", max)):
            both = [[of(side["pauses_ns"]) / 1e3 for side in pair] for pair in runs]
            rows.append(compare(f"{label}: {text}", "µs", [go for go, _ in both], [ours for _, ours in both]))
    return rows


def cycle_rows(pairs: int) -> list[Row]:
    """How often churn collects with other GOGCs, each in a process or runtime of its own."""
    rows = []
    program, parameters = PROGRAMS["churn, 1 goroutine"]
    binary = build_go(program)
    for gogc in (50, 100, 400):
        go, ours = [], []
        for _ in range(pairs):
            go.append(run_go(binary, *parameters.values(), gogc=gogc)["num_gc"])
            with gomp.Runtime(procs=PROCS, gogc=gogc) as rt:
                ours.append(run_ours(rt, program, parameters)["num_gc"])
        rows.append(compare(f"churn, GOGC={gogc}: cycles", "", go, ours))
    return rows


def marking_rows(pairs: int) -> list[Row]:
    names = {
        "mark_ns_per_object": ("marking, per object of 64 bytes and core", "ns"),
        "mark_ms_per_mib": ("marking, per MiB and core", "ms"),
        "store_ns": ("pointer store", "ns"),
        "store_collecting_ns": ("pointer store while one collection follows the other", "ns"),
    }
    binary = build_go("marking")
    runs = []
    for _ in range(pairs):
        go = run_go(binary)["figures"]
        with gomp.Runtime(procs=PROCS, gogc=400) as rt:
            runs.append((go, marking.figures(rt)))
    return [
        compare(text, unit, [go[key] for go, _ in runs], [ours[key] for _, ours in runs])
        for key, (text, unit) in names.items()
    ]


def running_figures(rt: gomp.Runtime) -> dict[str, float]:
    kept = marking.kept_while_marking(rt)
    stats = rt.stats()
    return {
        "speed of churn while a cycle is on, percent of that between cycles": 100 * kept,
        "longest time from the end of a pause to running again, µs": 1e6 * max(p.resume_max_s for p in stats.ps),
    }


def memory_figures(rt: gomp.Runtime) -> dict[str, float]:
    """What the runtime itself costs, in MiB and percent."""
    private = [private_bytes(p.pid) for p in rt.stats().ps[:PROCS]]
    heap = view(mheap_dtype, MHEAP)[0]
    grown = int(heap.end_page) * 8192
    return {
        "private memory of a P, MiB": max(private) / (1 << 20),
        "metadata, percent of the heap": 100 * int(heap.xmetadata_bytes) / grown if grown else 0.0,
    }


def table(rows: list[Row], figures: dict[str, float]) -> str:
    """The whole of docs/benchmarks.md."""
    lines = [
        "# Benchmarks",
        "",
        "`make bench` writes this page: gomp and Go 1.27 in turn on one machine, the same work, GOMAXPROCS=2, GOGC=100; medians, and (lowest",
        "to highest). A ratio below 1 says that gomp needs less.",
        "",
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}.",
        "",
        "| what | Go | gomp | gomp / Go |",
        "|---|---|---|---|",
    ]
    for row in rows:
        go, ours = (_cell(m, s, row.unit) for m, s in ((row.go, row.go_spread), (row.ours, row.our_spread)))
        lines.append(f"| {row.what} | {go} | {ours} | {row.ratio:.2f} |")
    lines += ["", "What the runtime itself takes:", "", "| | |", "|---|---|"]
    lines += [
        f"| {name} | {value:.3g} |" if abs(value) < 1 else f"| {name} | {value:.1f} |"
        for name, value in figures.items()
    ]
    record = {"rows": [asdict(row) | {"ratio": round(row.ratio, 3)} for row in rows], "figures": figures}
    lines += ["", "The same as JSON:", "", "```json", json.dumps(record), "```"]
    return "\n".join(lines) + "\n"


def _cell(median: float, spread: tuple[float, float], unit: str) -> str:
    return f"{median:.3g} {unit} ({spread[0]:.3g}-{spread[1]:.3g})".replace("  ", " ")


def main(
    pairs: Annotated[int, typer.Option(min=1, help="how often each is run")] = 5,
    only: Annotated[str, typer.Option(help="alloc, programs, marking or all")] = "all",
    write: Annotated[bool, typer.Option(help="write docs/benchmarks.md")] = True,
) -> None:
    """Run the benchmarks and print their table."""
    rows: list[Row] = []
    with gomp.Runtime(procs=PROCS, gogc=GOGC) as rt:
        figures = {"private memory of a P at the start, MiB": memory_figures(rt)["private memory of a P, MiB"]}
        if only in ("all", "alloc"):
            rows += allocation_rows(rt, pairs)
        if only in ("all", "programs"):
            rows += program_rows(rt, pairs)
        figures |= {f"{name}, after the runs": value for name, value in memory_figures(rt).items()}
        if only in ("all", "marking"):
            figures |= running_figures(rt)
    if only in ("all", "alloc"):
        figures |= trigger.rows(trigger.ROUNDS)
    if only in ("all", "marking"):
        rows += marking_rows(pairs) + cycle_rows(pairs)
    text = table(rows, figures)
    print(text)
    BUILD.mkdir(exist_ok=True)
    with open(BUILD / "benchmarks.jsonl", "a") as out:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
        ).stdout.strip()
        out.write(
            json.dumps({"commit": commit, "pairs": pairs, "rows": [asdict(row) for row in rows], "figures": figures})
            + "\n"
        )
    if write:
        PAGE.write_text(text)
        put_section("sharing", sharing.TITLE, sharing.measure_all())
        put_section("goroutines", goroutines.TITLE, goroutines.measure(pairs))


if __name__ == "__main__":
    sys.exit(typer.run(main))
