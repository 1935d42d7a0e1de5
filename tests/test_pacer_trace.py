"""What the pacer of a running runtime decides: its tape replays to the byte, its trace reads as Go's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from served import gomp as command

import gomp
from gomp.config import RuntimeSettings, load
from gomp.core import COMPILED
from gomp.runtime.pacertrace import format_float
from gomp.runtime.replay import Difference, compare, replay

if not COMPILED:
    pytest.skip("runs processes of its own", allow_module_level=True)

MIB = 1 << 20
GO_LINES = (Path(__file__).parent / "data/gctrace/go-pacer-lines.txt").read_text().splitlines()
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]\d+)?")


def record(tape: Path, program, **settings):
    """Run ``program`` on a runtime that records what its pacer decides."""
    with gomp.Runtime.of(load(RuntimeSettings, procs=2, pacer_tape=tape, **settings)) as rt:
        program(rt)


def differences(tape: Path) -> list[str]:
    found = []
    for operation, got in replay(tape, "pacer"):
        try:
            compare(operation.expected, got)
        except Difference as difference:
            found.append(f"line {operation.line}, {operation.op}: {difference}")
    return found


def operations(tape: Path) -> list[str]:
    return [json.loads(line)["op"] for line in tape.read_text().splitlines()]


def churn(rt, n=20000, m=60000, force=0):
    rt.run("reference.churn", n=n, m=m, force=force)


@pytest.mark.parametrize(
    "settings",
    [{"gogc": 50}, {"gogc": 100}, {"gogc": "off", "memory_limit": "40MiB"}, {"gogc": 100, "memory_limit": "32MiB"}],
    ids=str,
)
def test_goals_and_triggers_of_a_run_are_those_of_the_arithmetic(tmp_path, settings):
    tape = tmp_path / "run.jsonl"
    record(tape, churn, **settings)
    assert operations(tape).count("end_cycle") > 3
    assert differences(tape) == []


def test_so_are_those_of_forced_cycles_and_of_settings_that_change_meanwhile(tmp_path):
    tape = tmp_path / "run.jsonl"

    def program(rt):
        load = rt.go("reference.churn", n=20000, m=200000, force=20000)
        for n in range(200):
            gomp.debug.set_gc_percent((50, 100, -1, 200)[n % 4])
            gomp.debug.set_memory_limit((30 + n % 9) * MIB)
        load.wait(60)

    record(tape, program, gogc=100)
    assert {"set_gc_percent", "set_memory_limit", "start_cycle"} <= set(operations(tape))
    assert differences(tape) == []


def test_a_tape_that_was_changed_is_found_out(tmp_path):
    tape = tmp_path / "run.jsonl"
    record(tape, churn, gogc=100)
    rows = [json.loads(line) for line in tape.read_text().splitlines()]
    end = next(row for row in rows if row["op"] == "end_cycle")
    end["in"]["bytes_marked"] += 8192
    tape.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "heap_marked" in differences(tape)[0]


def test_a_tape_that_cannot_be_written_is_one_line(environment, tmp_path):
    done = command(environment, "run", "reference.nolive", "--pacer-tape", str(tmp_path / "no" / "where"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pacer_tape: cannot write" in done.stderr


def test_the_trace_has_the_lines_of_go(environment):
    done = command(environment | {"GODEBUG": "gcpacertrace=1"}, "run", "reference.churn", "m=60000")
    assert done.returncode == 0, done.stderr
    ours = {NUMBER.sub("N", line) for line in done.stderr.splitlines() if line.startswith("pacer: ")}
    assert ours == {NUMBER.sub("N", line) for line in GO_LINES}
    assert len(ours) == 3


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0.0, "0"),
        (0.25, "0.25"),
        (53.318605492630816, "53.318605492630816"),
        (123456.0, "123456"),
        (1234567.0, "1.234567e+06"),
        (1e21, "1e+21"),
        (0.0001, "0.0001"),
        (1.25e-07, "1.25e-07"),
        (-2.5e6, "-2.5e+06"),
        (float("inf"), "+Inf"),
        (float("nan"), "NaN"),
    ],
)
def test_a_float_is_written_as_go_prints_it(x, text):
    assert format_float(x) == text
