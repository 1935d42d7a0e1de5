"""A P that is killed between two lines of the kernels it runs: as plain Python, where every line can be counted."""

from __future__ import annotations

import faulthandler
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import gomp.core

CORE = str(Path(gomp.core.__file__).parent)
NOT_STEPS = ("atomics.py", "libc.py", "layout.py", "records.py", "jit.py", "segments.py")  # primitives happen or do not
Line = tuple[str, int]


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


class _Tracer:
    """Calls ``at_line`` before each line of a kernel."""

    def __init__(self, at_line: Callable[[Line], None]) -> None:
        self._at_line = at_line

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(CORE) or name.endswith(NOT_STEPS):
            return None
        if event == "line":
            self._at_line((name[len(CORE) + 1 :], frame.f_lineno))
        return self


def _run(body: Callable[[], Any], at_line: Callable[[Line], None]) -> None:
    before = sys.gettrace()
    sys.settrace(_Tracer(at_line))
    try:
        body()
    finally:
        sys.settrace(before)


def lines_of(body: Callable[[], Any]) -> list[Line]:
    """The lines that ``body`` runs, one after another."""
    lines: list[Line] = []
    _run(body, lines.append)
    return lines


def kill_at(body: Callable[[], Any], n: int, instead: Callable[[], None] | None = None) -> bool:
    """Run ``body`` and kill it before its ``n``-th line, from 0; whether it had so many. Or call ``instead`` there, and let it go on."""
    left = [n]

    def at_line(line: Line) -> None:
        if left[0] == 0:
            if instead is None:
                raise Killed
            instead()
        left[0] -= 1

    try:
        _run(body, at_line)
    except Killed:
        return True
    return False


def some_of(lines: list[Line]) -> list[int]:
    """Where to kill: before the first and the last time that each line runs."""
    first: dict[Line, int] = {}
    last: dict[Line, int] = {}
    for n, line in enumerate(lines):
        first.setdefault(line, n)
        last[line] = n
    return sorted({*first.values(), *last.values()})


def kill_before(name: str, lines: list[Line], kill: Callable[[int], bool], most: int | None) -> None:
    """``kill(n)`` before the n-th line, wherever :func:`some_of` says, or at ``most`` of these, the same ones each time.

    What it raises names the scenario and the line. Nearly all lines are there again when it runs once more.
    """
    where = some_of(lines)
    if most is None:
        faulthandler.cancel_dump_traceback_later()  # it takes minutes, and a dump of a process that is traced crashes it
    else:
        where = random.Random(1).sample(where, min(most, len(where)))
    killed = 0
    for n in where:
        try:
            killed += kill(n)
        except BaseException as error:
            raise AssertionError(f"{name}, killed before line {n}: {error}") from error
    assert killed >= len(where) - 3
