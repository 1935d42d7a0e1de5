"""Reading tapes: their lines, what goes into an operation, and how numbers are written."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gomp.core.gc import goal
from gomp.errors import ConfigError

Kind = str  # one of REPLAYS
Fields = dict[str, Any]
_NONE = (1 << 64) - 1
_EXPECT_NOTHING = ("init", "revise")


class TapeError(ConfigError):
    """A tape that cannot be read: the line and the field."""


@dataclass(frozen=True)
class Operation:
    """``given`` and ``expected`` are objects or arrays, as the tape has them."""

    line: int
    op: str
    given: Any
    expected: Any


def read_tape(path: Path, kind: Kind) -> Iterator[Operation]:
    """The operations of a ``.jsonl`` or ``.jsonl.gz`` tape, or of a ``.json`` table. Raises TapeError."""
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as tape:
            if path.suffix == ".json":
                yield from _read_table(json.load(tape))
                return
            for number, text in enumerate(tape, 1):
                yield _parse(number, text, kind)
    except TapeError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise TapeError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except (ValueError, RecursionError) as error:
        raise TapeError(f"{path} is no tape: {error}") from None


def _read_table(rows: Any) -> Iterator[Operation]:
    """A table has no operations: what goes in stands beside what comes out."""
    if not isinstance(rows, list):
        raise TapeError("a table is an array of rows")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise TapeError(f"row {number}: not an object")
        yield Operation(number, "workers", row, row)


def _parse(number: int, text: str, kind: Kind) -> Operation:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise TapeError(f"line {number}: no JSON: {error.msg} at character {error.pos}") from None
    except (ValueError, RecursionError) as error:  # numbers, or nesting, beyond what Python reads
        raise TapeError(f"line {number}: no JSON: {error}") from None
    if not isinstance(row, dict):
        raise TapeError(f"line {number}: an operation is an object")
    if kind in ("goals", "scavenger"):
        row = {"op": "row"} | row
    if "op" not in row:
        raise TapeError(f"line {number}: field 'op' is missing")
    op = row["op"]
    if not isinstance(op, str):
        raise TapeError(f"line {number}: field 'op' is {op!r}, not a text")
    row = {"out": None} | row
    for field in ("in", "out"):
        if row.get(field) is None and (field == "in" or op not in _EXPECT_NOTHING):
            raise TapeError(f"line {number}: field {field!r} is missing")
    return Operation(number, op, row["in"], row["out"])


class Given:
    """The ``in`` of an operation, checked field by field."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        if not isinstance(operation.given, dict):
            raise TapeError(f"line {operation.line}: field 'in' is not an object")

    def __getitem__(self, name: str) -> Any:
        try:
            return self._operation.given[name]
        except KeyError:
            raise TapeError(f"line {self._operation.line}: field 'in.{name}' is missing") from None

    def integer(self, name: str) -> int:
        value = self[name]
        if not is_integer(value):
            raise self._wrong(name, "an integer")
        return min(int(value), goal.NO_GOAL)

    def processors(self, name: str) -> int:
        value = self.integer(name)
        if not 0 < value < 1 << 31:
            raise self._wrong(name, "a number of processors")
        return value

    def number(self, name: str) -> float:
        value = self[name]
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise self._wrong(name, "a number")
        try:
            return to_float(value)
        except (ValueError, OverflowError):
            raise self._wrong(name, "a number") from None

    def flag(self, name: str) -> bool:
        if not isinstance(self[name], bool):
            raise self._wrong(name, "true or false")
        return bool(self[name])

    def one_of(self, name: str, choices: dict[str, int]) -> int:
        if not isinstance(self[name], str) or self[name] not in choices:
            raise self._wrong(name, " or ".join(map(repr, choices)))
        return choices[self[name]]

    def pairs(self, name: str) -> list[tuple[int, int]]:
        value = self[name]
        if not isinstance(value, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and all(map(is_integer, pair)) for pair in value
        ):
            raise self._wrong(name, "an array of pairs of integers")
        return [(pair[0], pair[1]) for pair in value]

    def has(self, name: str) -> bool:
        return name in self._operation.given

    def slept(self) -> int:
        """For how long the tape's scavenger slept: its clock, which no replay could work out."""
        sleep = self._operation.expected.get("sleep") if isinstance(self._operation.expected, dict) else None
        value = sleep.get("slept_ns") if isinstance(sleep, dict) else None
        if not is_integer(value):
            raise TapeError(f"line {self._operation.line}: field 'out.sleep.slept_ns' is missing or not an integer")
        return int(cast(int, value))

    def _wrong(self, name: str, what: str) -> TapeError:
        return TapeError(f"line {self._operation.line}: field 'in.{name}' is {self[name]!r}, not {what}")


def is_integer(value: Any) -> bool:
    """Of 64 bits, with a sign or without."""
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 64


def to_float(value: float | str) -> float:
    """A number, as a tape writes it. Raises ValueError."""
    return float({"+Inf": "inf", "-Inf": "-inf", "NaN": "nan"}.get(value, value) if isinstance(value, str) else value)


def perform(known: Mapping[str, Callable[[Given], Any]], operation: Operation) -> Any:
    """What the operation that the tape names makes of its ``in``. Raises TapeError."""
    if operation.op not in known:
        raise TapeError(f"line {operation.line}: unknown operation {operation.op!r}: there are {', '.join(known)}")
    return known[operation.op](Given(operation))


def or_none(n: int) -> int:
    """A goal as a tape writes it."""
    return _NONE if n == goal.NO_GOAL else int(n)
