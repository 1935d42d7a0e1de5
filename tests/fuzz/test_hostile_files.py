"""Files that a command reads, of any bytes and with anything changed in good ones: an exit code, and one line that says what is wrong."""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gomp.cli import run_command
from gomp.cli.output import EXIT_FAILED, EXIT_USAGE
from gomp.core import COMPILED
from gomp.runtime import discovery

if not COMPILED:
    pytest.skip("replays load compiled kernels", allow_module_level=True)

DATA = Path(__file__).parent.parent / "data"
MOST_LINES = 40  # of a tape
MOST_TEXT = 1000  # characters of a complaint

few = settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
many = settings(max_examples=400, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))


# --- good files, and what becomes of them -------------------------------------------------------------------------------


def first_lines(path: Path) -> list[str]:
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as file:
        return list(itertools.islice(file, MOST_LINES))


TAPES = {
    "pacer": ["pacer/Steady.jsonl.gz", "pacer/X02_gogc_changes_mid_cycle.jsonl.gz"],
    "goals": ["goals/goals.jsonl"],
    "limiter": ["limiter/TestGCCPULimiter.jsonl.gz", "limiter/L03_resize.jsonl.gz"],
    "scavenger": ["scavenger/pi.jsonl", "scavenger/loop_2p.jsonl", "scavenger/goals.jsonl"],
}
GCTRACE = first_lines(DATA / "gctrace/go-lines.txt")
WORKERS = json.loads((DATA / "workers/workers.json").read_text())[:MOST_LINES]

numbers = (
    st.integers(-3, 3)
    | st.integers(-(1 << 64), 1 << 65)
    | st.sampled_from([1 << 31, (1 << 63) - 1, 1 << 63, 10**400])
    | st.floats()
)
scalars = (
    st.none()
    | st.booleans()
    | numbers
    | st.text(max_size=6)
    | st.sampled_from(["+Inf", "NaN", "init", "revise", "end_cycle"])
)
values = st.recursive(
    scalars,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=6), part, max_size=2),
    max_leaves=5,
)


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of all parts of a JSON value."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, part in parts for found in paths_in(part, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    key, *rest = path
    copied = value.copy()
    copied[key] = replaced(value[key], tuple(rest), new)
    return copied


@st.composite
def changed_rows(draw: st.DrawFn, rows: list[Any]) -> list[Any]:
    """With some parts of some of them replaced, and some of them left out or there twice."""
    found = list(rows[: draw(st.integers(1, len(rows)))])
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(found) - 1))
        path = draw(st.sampled_from(paths_in(found[at])))
        found[at] = replaced(found[at], path, draw(values))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(found) - 1))
        found[at:at] = found[at : at + draw(st.integers(0, 2))] or [draw(values)]
    return found


@st.composite
def changed_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """With some pieces of it replaced, from somewhere on cut off."""
    found = bytearray(data[: draw(st.integers(0, len(data)))])
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(found)))
        found[at : at + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(found)


def as_lines(rows: list[Any]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def tapes_of(name: str) -> st.SearchStrategy[tuple[str, bytes]]:
    lines = first_lines(DATA / name)
    changed = changed_rows([json.loads(line) for line in lines]).map(as_lines) | changed_bytes("".join(lines).encode())
    packed = st.tuples(
        st.just(".jsonl.gz"), changed.map(gzip.compress) | changed.map(gzip.compress).flatmap(changed_bytes)
    )
    return st.tuples(st.just(".jsonl"), changed) | packed


suffixes = st.sampled_from([".jsonl", ".jsonl.gz", ".json"])
any_tapes = st.tuples(suffixes, st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()))
tapes = st.one_of(
    *(st.tuples(st.just(kind), st.one_of(any_tapes, *map(tapes_of, names))) for kind, names in TAPES.items()),
    st.tuples(
        st.just("workers"),
        st.tuples(st.just(".json"), changed_rows(WORKERS).map(lambda rows: json.dumps(rows).encode())) | any_tapes,
    ),
)
traces = st.lists(
    st.sampled_from(GCTRACE).map(str.encode).flatmap(changed_bytes)
    | st.sampled_from(GCTRACE).map(str.encode)
    | st.binary(max_size=30),
    max_size=6,
).map(b"".join)
DESCRIPTION = asdict(discovery.RuntimeInfo("x", 2, 1 << 30, 1, "http://x/", [2, 3], "/x"))
changes = st.dictionaries(st.sampled_from([*DESCRIPTION, "another"]), values, max_size=2)
descriptions = st.binary(max_size=40) | st.one_of(values, changes.map(lambda found: DESCRIPTION | found)).map(
    lambda value: json.dumps(value).encode()
)


# --- what commands say of them ------------------------------------------------------------------------------------------


def run(*arguments: str) -> tuple[int, str]:
    """The exit code, and what is on stderr."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as told:
        return run_command(arguments), told.getvalue()


def is_settled(code: int, told: str) -> bool:
    return code == 0 or (told.startswith("gomp: ") and len(told.splitlines()) == 1 and len(told) < MOST_TEXT)


def try_tape(directory: Path, tape: tuple[str, tuple[str, bytes]]) -> None:
    kind, (suffix, data) = tape
    file = directory / f"tape{suffix}"
    file.write_bytes(data)
    for check in ([], ["--check"]):
        code, told = run("pacer", "replay", str(file), "--kind", kind, *check)
        assert code in (0, EXIT_USAGE, EXIT_FAILED if check else 0)
        assert is_settled(code, told), told


def try_trace(directory: Path, data: bytes) -> None:
    file = directory / "gctrace"
    file.write_bytes(data)
    for options in ([], ["--json"], ["--last", "1"]):
        code, told = run("gctrace", str(file), *options)
        assert code in (0, EXIT_FAILED)
        assert told.count("\n") == (1 if code else told.count("\n"))
        assert is_settled(code, told), told


def try_description(directory: Path, data: bytes) -> None:
    """Of a runtime whose lock is held."""
    runtimes = directory / "gomp"
    runtimes.mkdir(mode=0o700, exist_ok=True)
    (runtimes / "x.lock").touch()
    (runtimes / "x.json").write_bytes(data)
    with (
        mock.patch.dict(os.environ, XDG_RUNTIME_DIR=str(directory)),
        mock.patch.object(discovery, "_try_lock", return_value=False),
    ):
        assert run("ls") == (0, "")
        assert run("ls", "--json") == (0, "")


TRIED: dict[str, tuple[Callable[[Path, Any], None], st.SearchStrategy[Any]]] = {
    "a tape": (try_tape, tapes),
    "a gctrace": (try_trace, traces),
    "a description": (try_description, descriptions),
}


@pytest.mark.parametrize("what", TRIED)
def test_a_file_is_read_or_refused_in_a_line(what: str, tmp_path: Path) -> None:
    tries, drawn = TRIED[what]
    few(given(drawn)(lambda found: tries(tmp_path, found)))()


@pytest.mark.slow
@pytest.mark.parametrize("what", TRIED)
def test_each_of_many_files_is_read_or_refused_in_a_line(what: str, tmp_path: Path) -> None:
    tries, drawn = TRIED[what]
    many(given(drawn)(lambda found: tries(tmp_path, found)))()
