"""The reference programs: the work of Go's, and cycles, goals and live heaps as the pacer of Go has them.

The spans were recorded from ten runs of real Go each; ``python -m benchmarks.reference`` compares all programs with a Go beside them.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

import gomp
from gomp.config import RuntimeSettings, load
from gomp.core import COMPILED
from workers.reference.process import DATA

if not COMPILED:
    pytest.skip("runs processes of its own", allow_module_level=True)

RUNS = 5
WIDENED = 0.05
CASES = json.loads((Path(__file__).parent / "data/gctrace/reference.json").read_text())
PARAMETERS = {
    "trees": ("depth",),
    "churn": ("n", "m", "garbage", "force"),
    "large": ("n", "m"),
    "sawtooth": ("rounds", "n"),
    "nolive": ("m",),
}
STEADY = (
    "churn20k_gogc100_p1",
    "nolive_gogc100_p1",
    "large_gogc100_lim64_p1",
    "churn20k_forced_p1",
    "churn20k_off_forced_p2",
)
LONG = (
    "churn20k_forced_p1",
    "churn20k_gogc100_p1",
    "nolive_gogc100_p1",
    "churn20k_off_forced_p2",
    "large_gogc100_lim64_p1",
)


def run(case, tape):
    settings = load(
        RuntimeSettings,
        procs=case["procs"],
        gogc=case["gogc"],
        memory_limit=case["memory_limit"] or None,
        pacer_tape=tape,
    )
    parameters = dict(zip(PARAMETERS[case["program"]], case["arguments"], strict=True))
    with gomp.Runtime.of(settings) as rt:
        rt.run("reference.process:bring_data", DATA)
        result = rt.run(f"reference.{case['program']}", **parameters, data=0)
    ends = [row["out"] for row in map(json.loads, tape.read_text().splitlines()) if row["op"] == "end_cycle"]
    return result, {
        "cycles": len(ends),
        "live_mib": statistics.fmean([end["heap_marked"] >> 20 for end in ends] or [0]),
        "goal_mib": statistics.fmean([end["last_heap_goal"] >> 20 for end in ends] or [0]),
    }


@pytest.mark.alone
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case["name"], marks=[pytest.mark.slow] if case["name"] in LONG else [])
        for case in CASES
        if case["name"] in STEADY
    ],
)
def test_it_collects_as_often_as_go_at_the_same_goals(case, tmp_path):
    runs = [run(case, tmp_path / f"{n}.jsonl") for n in range(RUNS)]
    for result, _ in runs:
        assert result == {"check": case["check"], "final_rng": case["final_rng"]}
    for name in ("cycles", "live_mib", "goal_mib"):
        low, high = case[name]
        assert low * (1 - WIDENED) <= statistics.median(figures[name] for _, figures in runs) <= high * (1 + WIDENED), (
            name
        )


@pytest.mark.parametrize("program", ["trees", "sawtooth"])
def test_it_does_the_work_of_go(program, tmp_path):
    case = next(case for case in CASES if case["program"] == program and case["procs"] == 2)
    result, _ = run(case, tmp_path / "tape.jsonl")
    assert result == {"check": case["check"], "final_rng": case["final_rng"]}
