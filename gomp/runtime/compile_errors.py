"""What Numba says of a function that cannot be compiled, in one line: Numba writes pages, and the useful sentence is somewhere inside."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from numba.core import errors

from gomp.runtime.reftypes import MARK


def one_line(error: errors.NumbaError | errors.UnsupportedBytecodeError, function: Any) -> str:
    """A Numba error in one line: where, and what is wrong."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    places = re.findall(r'File "([^"]+)", line (\d+)', text)
    own = Path(function.__code__.co_filename).name
    inside = [(file, line) for file, line in places if Path(file).name == own] or places
    loc = getattr(error, "loc", None)
    if inside:
        file, line = inside[-1]
    else:
        file, line = (
            (loc.filename, str(loc.line))
            if loc
            else (function.__code__.co_filename, str(function.__code__.co_firstlineno))
        )
    return f"{file}:{line}: in {function.__name__}: {_reason(text)}"


def forget_frames(error: BaseException | None) -> None:
    """Numba keeps some errors for good, and their tracebacks would keep what the frames hold: a caller's arrays, say."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _reason(text: str) -> str:
    marked = re.findall(re.escape(MARK) + r"(.*)", text)
    if marked:
        return str(marked[-1]).strip()
    skipped = (
        "Failed in",
        "During:",
        "- During",
        "File ",
        "There are",
        "- Of which",
        "Overload",
        "Rejected",
        "No match",
        "raised from",
        ">>>",
    )
    lines = [line.strip() for line in text.splitlines()]
    useful = [line for line in lines if line and not line.startswith(skipped)]
    shown = re.sub(r"#[0-9a-f]{6,}", "", useful[0] if useful else lines[0])
    return shown.rstrip(":")
