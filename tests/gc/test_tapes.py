"""Tapes that are not what they should be: ``gomp pacer replay`` names the line and the field, and ends with 2; a difference ends it with 1."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import pytest

from gomp import cli
from gomp.errors import ConfigError
from gomp.runtime.replay import Difference, compare, replay

DATA = Path(__file__).parents[1] / "data"
LINE = 4
_DELETE = object()


def spoiled(tmp_path, name, op, change):
    """The start of a tape in which ``change`` was done to the first ``op`` from line LINE on; and that line's number."""
    source = DATA / name
    with (gzip.open if name.endswith(".gz") else open)(source, "rt") as tape:
        rows = [json.loads(line) for line in itertools.islice(tape, 200)]
    at = next(i for i, row in enumerate(rows) if i >= LINE - 1 and row.get("op") == op)
    change(rows[at])
    copy = tmp_path / "spoiled.jsonl"
    copy.write_text("".join(json.dumps(row) + "\n" for row in rows[: at + 1]))
    return copy, at + 1


def put(*path, value=_DELETE):
    def change(row):
        for name in path[:-1]:
            row = row[name]
        if value is _DELETE:
            del row[path[-1]]
        else:
            row[path[-1]] = value

    return change


PACER, LIMITER = "pacer/X02_gogc_changes_mid_cycle.jsonl.gz", "limiter/L03_resize.jsonl.gz"
ROW = json.loads((DATA / "workers/workers.json").read_text())[0]
LOOP, PI, GOALS = "scavenger/loop_1p.jsonl", "scavenger/pi.jsonl", "goals/goals.jsonl"


@pytest.mark.parametrize(
    ("kind", "name", "op", "change", "field"),
    [
        ("pacer", PACER, "start_cycle", put("in"), "field 'in' is missing"),
        ("pacer", PACER, "start_cycle", put("out"), "field 'out' is missing"),
        ("pacer", PACER, "start_cycle", put("in", value=[]), "field 'in' is not an object"),
        ("pacer", PACER, "start_cycle", put("op"), "field 'op' is missing"),
        ("pacer", PACER, "start_cycle", put("op", value="stop"), "unknown operation 'stop'"),
        ("pacer", PACER, "start_cycle", put("op", value=["stop"]), "field 'op' is ['stop']"),
        ("pacer", PACER, "start_cycle", put("in", "heap_live"), "field 'in.heap_live' is missing"),
        (
            "pacer",
            PACER,
            "start_cycle",
            put("in", "heap_live", value="1"),
            "field 'in.heap_live' is '1', not an integer",
        ),
        ("pacer", PACER, "start_cycle", put("in", "heap_live", value=True), "field 'in.heap_live' is True"),
        ("pacer", PACER, "start_cycle", put("in", "heap_live", value=-(1 << 64)), "field 'in.heap_live' is -184467"),
        ("pacer", PACER, "start_cycle", put("in", "procs", value=0), "field 'in.procs' is 0"),
        ("pacer", PACER, "start_cycle", put("in", "kind", value={}), "field 'in.kind' is {}"),
        ("pacer", PACER, "revise", put("in", value=[1, 2, 3]), "field 'in' is not an array of five integers"),
        ("pacer", PACER, "revise", put("in", 2, value=1 << 70), "field 'in' is not an array of five integers"),
        ("limiter", LIMITER, "update", put("in", "now", value=None), "field 'in.now' is None, not an integer"),
        ("pacer", PACER, "start_cycle", put("out", value=None), "field 'out' is missing"),
        (
            "pacer",
            PACER,
            "start_cycle",
            put("op", value="init"),
            "a second 'init': a tape is of one pacer, and begins with it",
        ),
        ("pacer", PACER, "start_cycle", put("out", "triggered"), "field 'out.triggered' is missing"),
        ("pacer", PACER, "end_cycle", put("out", "trigger"), "field 'out.trigger' is missing"),
        ("pacer", PACER, "end_cycle", put("out", value={}), "field 'out.cons_mark' is missing"),
        ("limiter", LIMITER, "update", put("out", "fill"), "field 'out.fill' is missing"),
        ("scavenger", PI, "next", put("out", "ok"), "field 'out.ok' is missing"),
        ("goals", GOALS, None, put("out", "trigger"), "field 'out.trigger' is missing"),
        ("scavenger", LOOP, "run", put("out", "sleep", value={}), "field 'out.sleep.slept_ns' is missing"),
        ("scavenger", LOOP, "run", put("in", "scavenge_results", value=[[1]]), "field 'in.scavenge_results' is [[1]]"),
        ("scavenger", PI, "next", put("in", "input", value=[1]), "field 'in.input' is [1], not a number"),
        ("scavenger", PI, "next", put("in", "input", value="one"), "field 'in.input' is 'one', not a number"),
        ("goals", GOALS, None, put("in", "sweep_done", value=1), "field 'in.sweep_done' is 1, not true or false"),
    ],
)
def test_what_is_missing_or_of_a_wrong_type_is_named_with_its_line(tmp_path, kind, name, op, change, field):
    copy, line = spoiled(tmp_path, name, op, change)
    with pytest.raises(ConfigError) as caught:
        list(replay(copy, kind))
    assert str(caught.value).startswith(f"line {line}: ")
    assert field in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"[{json.dumps(ROW)}, 2]", "row 2: not an object"),
        ('[{"gomaxprocs": 1}]', "line 1: field 'out.dedicated_workers' is missing"),
        ('[{"dedicated_workers": 1}]', "line 1: field 'in.gomaxprocs' is missing"),
        ('[{"gomaxprocs": 0}]', "line 1: field 'in.gomaxprocs' is 0"),
        ('{"gomaxprocs": 1}', "a table is an array of rows"),
        ("[", "is no tape"),
    ],
)
def test_so_it_is_in_a_table(tmp_path, text, said):
    table = tmp_path / "workers.json"
    table.write_text(text)
    with pytest.raises(ConfigError, match=said.replace("[", r"\[")):
        list(replay(table, "workers"))


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08\x00cut off", b"no gzip", b""])
def test_a_file_that_cannot_be_unpacked_is_one_line(tmp_path, content):
    tape = tmp_path / "tape.jsonl.gz"
    tape.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        list(replay(tape, "pacer"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hello", "line 1: no JSON: Expecting value at character 0"),
        ('{"op": "init", "in": ' + "[" * 100_000, "line 1: no JSON: "),
        ('{"op": "init", "in": ' + "9" * 10_000 + "}", "line 1: no JSON: "),
        ("[1]", "line 1: an operation is an object"),
        ("", "there is no operation in it"),
    ],
    ids=["text", "nested", "digits", "array", "empty"],
)
def test_so_is_what_is_no_json(tmp_path, text, said):
    tape = tmp_path / "tape.jsonl"
    tape.write_text(text)
    with pytest.raises(ConfigError, match=said):
        list(replay(tape, "pacer"))


@pytest.mark.parametrize(
    ("expected", "found", "is_same"),
    [
        (1, 1, True),
        (1, 2, False),
        (True, 1, False),
        (1, True, False),
        (None, 1, False),
        ("+Inf", float("inf"), True),
        ("many", 1.0, False),
        ([1.0], 1.0, False),
        (0.1 + 0.2, 0.3, False),
        (3, 3.0, True),
        ({"a": 1}, {}, False),
    ],
)
def test_two_values_are_the_same_if_they_are_of_one_kind_and_equal_to_the_last_bit(expected, found, is_same):
    if is_same:
        compare({"x": expected}, {"x": found})
    else:
        with pytest.raises(Difference, match=r"out\.x"):
            compare({"x": expected}, {"x": found})


def test_the_command_ends_with_1_at_a_difference_and_with_2_at_a_tape_that_is_none(tmp_path, capsys):
    for change, code, said in (
        (put("out", "heap_live", value=7), 1, "start_cycle: out.heap_live: expected 7, found"),
        (put("in", "heap_live"), 2, "field 'in.heap_live' is missing"),
    ):
        copy, line = spoiled(tmp_path, PACER, "start_cycle", change)
        assert cli.run_command(["pacer", "replay", str(copy), "--check"]) == code
        err = capsys.readouterr().err
        assert f"line {line}" in err
        assert said in err
        assert err.count("\n") == 1
