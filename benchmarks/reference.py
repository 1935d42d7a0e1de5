"""``python -m benchmarks.reference``: the reference programs in Go and here, cycle by cycle.

Each runs ten times in Go under one setting; ours has to end with the same check and random numbers, and to have its mean goal, its mean live
heap after marking and its number of cycles within what the Go runs span, widened by 5 percent. Where a memory limit is set, what is mapped
must never be more than 5 percent above Go's own peak.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

import gomp
from benchmarks.go_twin import build_go
from gomp.config import RuntimeSettings, load
from gomp.core.shm.records import MHEAP, mheap_dtype, view
from workers.reference.process import DATA

RUNS = 10
WIDENED = 0.05
_CYCLE = re.compile(r"(\d+)->(\d+)->(\d+) MB, (\d+) MB goal")
# With AVX-512 Go counts whole objects as scan work, elsewhere as we do: up to the last reference.
_GODEBUG = "gctrace=1,cpu.avx512vl=off"
_POLL_S = 0.001
_MAPPED = ("xheap_committed", "xmetadata_bytes", "xwbuf_bytes", "xtable_bytes")
_PARAMETERS = {
    "trees": ("depth",),
    "churn": ("n", "m", "garbage", "force"),
    "large": ("n", "m"),
    "sawtooth": ("rounds", "n"),
    "nolive": ("m",),
}


@dataclass(frozen=True)
class Case:
    """A program and a setting. ``gogc`` and ``memory_limit`` as in the environment; "" is none."""

    name: str
    program: str
    arguments: tuple[int, ...]
    procs: int
    gogc: str
    memory_limit: str = ""

    def settings(self, tape: Path) -> RuntimeSettings:
        return load(
            RuntimeSettings,
            procs=self.procs,
            gogc=self.gogc,
            memory_limit=self.memory_limit or None,
            pacer_tape=tape,
        )

    def environment(self) -> dict[str, str]:
        limit = {"GOMEMLIMIT": self.memory_limit} if self.memory_limit else {}
        return os.environ | {"GOMAXPROCS": str(self.procs), "GOGC": self.gogc, "GODEBUG": _GODEBUG} | limit


_PROGRAMS = (
    ("trees16_gogc50", "trees", (16,), "50", ""),
    ("churn20k_gogc50", "churn", (20000, 400000, 2, 0), "50", ""),
    ("trees16_gogc100", "trees", (16,), "100", ""),
    ("churn20k_gogc100", "churn", (20000, 400000, 2, 0), "100", ""),
    ("trees16_gogc400", "trees", (16,), "400", ""),
    ("churn20k_gogc400", "churn", (20000, 400000, 2, 0), "400", ""),
    ("trees12_gogc100", "trees", (12,), "100", ""),
    ("churn2k_gogc100", "churn", (2000, 40000, 2, 0), "100", ""),
    ("churn100k_gogc100", "churn", (100000, 300000, 1, 0), "100", ""),
    ("large_gogc100", "large", (200, 20000), "100", ""),
    ("sawtooth_gogc100", "sawtooth", (8, 60000), "100", ""),
    ("nolive_gogc100", "nolive", (1000000,), "100", ""),
    ("churn100k_off_lim200", "churn", (100000, 300000, 2, 0), "off", "200MiB"),
    ("churn100k_off_lim110", "churn", (100000, 200000, 2, 0), "off", "110MiB"),
    ("churn100k_off_lim95", "churn", (100000, 60000, 2, 0), "off", "95MiB"),
    ("large_gogc100_lim64", "large", (200, 20000), "100", "64MiB"),
    ("churn20k_forced", "churn", (20000, 60000, 2, 2000), "100", ""),
    ("churn20k_off_forced", "churn", (20000, 60000, 2, 5000), "off", ""),
    ("churn100k_off_lim60_long", "churn", (100000, 900000, 2, 0), "off", "60MiB"),
)
CASES = tuple(
    Case(f"{name}_p{procs}", program, arguments, procs, gogc, limit)
    for procs in (1, 2)
    for name, program, arguments, gogc, limit in _PROGRAMS
)


@dataclass(frozen=True)
class Outcome:
    """What one run came to. Means are over its cycles, in whole MiB each as the trace line has them."""

    check: int
    final_rng: int
    wall_s: float
    cycles: int
    live_mib: float
    goal_mib: float
    peak_mapped: int  # bytes; 0 without a limit


def run_go(case: Case, binary: Path) -> Outcome:
    sampling = {"SAMPLE_MAPPED": "1"} if case.memory_limit else {}
    done = subprocess.run(
        [binary, case.program, *map(str, case.arguments)],
        check=True,
        env=case.environment() | sampling,
        capture_output=True,
        text=True,
    )
    cycles = [tuple(map(int, found.groups())) for found in map(_CYCLE.search, done.stderr.splitlines()) if found]
    end = json.loads(done.stdout)
    return Outcome(
        end["check"],
        end["final_rng"],
        end["wall_s"],
        end["num_gc"],
        _mean([cycle[2] for cycle in cycles]),
        _mean([cycle[3] for cycle in cycles]),
        end["peak_mapped"],
    )


def run_ours(case: Case) -> Outcome:
    parameters = dict(zip(_PARAMETERS[case.program], case.arguments, strict=True))
    with tempfile.TemporaryDirectory() as scratch:
        tape = Path(scratch) / "tape.jsonl"
        with gomp.Runtime.of(case.settings(tape)) as rt, peak_mapped() as peak:
            rt.run("reference.process:bring_data", DATA)
            began = time.perf_counter()
            result = rt.run(f"reference.{case.program}", **parameters, data=0)
            wall_s = time.perf_counter() - began
            num_gc = rt.stats().num_gc
        ends = [row["out"] for row in map(json.loads, tape.read_text().splitlines()) if row["op"] == "end_cycle"]
    return Outcome(
        result["check"],
        result["final_rng"],
        wall_s,
        num_gc,
        _mean([end["heap_marked"] >> 20 for end in ends]),
        _mean([end["last_heap_goal"] >> 20 for end in ends]),
        max(peak) if case.memory_limit else 0,
    )


def _mean(values: Sequence[int]) -> float:
    return statistics.fmean(values) if values else 0.0


@contextmanager
def peak_mapped() -> Iterator[list[int]]:
    """What the memory limit counts, seen every millisecond."""
    heap, seen, over = view(mheap_dtype, MHEAP)[0], [0], threading.Event()

    def watch() -> None:
        while not over.wait(_POLL_S):
            seen[0] = max(seen[0], sum(int(heap[name]) for name in _MAPPED))

    watcher = threading.Thread(target=watch, name="peak")
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


# --- comparing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """Where ours is in what the Go runs span."""

    case: Case
    go: list[Outcome]
    ours: list[Outcome]

    def span(self, field: str) -> tuple[float, float]:
        """Least and most of the Go runs, widened."""
        values = [getattr(run, field) for run in self.go]
        return min(values) * (1 - WIDENED), max(values) * (1 + WIDENED)

    def outside(self) -> list[str]:
        """What of ours is not as it should be."""
        wrong = []
        for field in ("cycles", "live_mib", "goal_mib"):
            low, high = self.span(field)
            value = statistics.median(getattr(run, field) for run in self.ours)
            if not low <= value <= high:
                wrong.append(f"{field} {value:.4g} is not in {low:.4g}..{high:.4g}")
        peak, most = max(run.peak_mapped for run in self.ours), max(run.peak_mapped for run in self.go)
        if peak > most * (1 + WIDENED):
            wrong.append(f"{peak >> 20} MiB mapped, {most >> 20} MiB in Go")
        if {(run.check, run.final_rng) for run in (*self.ours, *self.go)} != {(self.go[0].check, self.go[0].final_rng)}:
            wrong.append("the results differ")
        return wrong


def verdicts(only: str, go_runs: int, runs: int) -> Iterator[Verdict]:
    binary = build_go("reference")
    for case in CASES:
        if only in case.name:
            go = [run_go(case, binary) for _ in range(go_runs)]
            yield Verdict(case, go, [run_ours(case) for _ in range(runs)])


def row(verdict: Verdict) -> str:
    cells = [verdict.case.name]
    for field, form in (("cycles", "d"), ("live_mib", ".1f"), ("goal_mib", ".1f"), ("wall_s", ".2f")):
        go = [getattr(run, field) for run in verdict.go]
        ours = statistics.median(getattr(run, field) for run in verdict.ours)
        cells.append(f"{min(go):{form}}-{max(go):{form}} | {ours:{form.replace('d', '.0f')}}")
    peaks = (max(run.peak_mapped for run in side) >> 20 for side in (verdict.go, verdict.ours))
    cells.append(" | ".join(str(peak or "") for peak in peaks))
    return f"| {' | '.join(cells)} | {'; '.join(verdict.outside()) or 'in'} |"


HEADER = (
    "| program | cycles: Go | gomp | live MiB: Go | gomp | goal MiB: Go | gomp | s: Go | gomp | peak MiB: Go | gomp | |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|",
)


def main(
    only: Annotated[str, typer.Option(help="part of the names to run")] = "",
    go_runs: Annotated[int, typer.Option(min=1)] = RUNS,
    runs: Annotated[int, typer.Option(min=1, help="of ours: what counts is their median")] = 3,
    record: Annotated[Path | None, typer.Option(help="file for the spans of Go, as JSON")] = None,
) -> None:
    """Print the table."""
    print(*HEADER, sep="\n")
    found = []
    for verdict in verdicts(only, go_runs, runs):
        print(row(verdict), flush=True)
        found.append(verdict)
    if record:
        record.write_text(json.dumps([_recorded(verdict) for verdict in found], indent=1) + "\n")


def _recorded(verdict: Verdict) -> dict[str, object]:
    names = ("cycles", "live_mib", "goal_mib", "peak_mapped")
    spans = {name: [f(getattr(run, name) for run in verdict.go) for f in (min, max)] for name in names}
    return asdict(verdict.case) | {"check": verdict.go[0].check, "final_rng": verdict.go[0].final_rng} | spans


if __name__ == "__main__":
    typer.run(main)
