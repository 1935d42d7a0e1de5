"""What Numba says of a function that cannot be compiled, in one line: Numba writes pages, and the useful sentence is somewhere inside."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from numba.core import errors

from gomp.errors import CompileError, StackEscapeError
from gomp.runtime.reftypes import ESCAPES, MARK


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


def compile_error(error: errors.NumbaError | errors.UnsupportedBytecodeError, function: Any) -> CompileError:
    """What to raise instead of a Numba error."""
    message = one_line(error, function)
    _forget_frames(error)
    return StackEscapeError(message) if message.endswith(ESCAPES) else CompileError(message)


def _forget_frames(error: BaseException | None) -> None:
    """Numba keeps some errors for good, and their tracebacks would keep what the frames hold: a caller's arrays, say."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


# What Numba says, and what to say instead.
_PLAINER = (
    (r"'\$\w+(?:\.\d+)?' cannot be determined, operation: unknown", "an assignment by := is not known here: write it as a statement"),
    (r"unsupported opcode \((?:STORE|DELETE)_GLOBAL\)", "compiled code cannot assign to a global: return the value, or use a gomp.Global"),
    (r"cannot type infer runaway recursion", "it calls itself whatever happens: one way through it has to return without"),
    (r"Can't unify return type from the following types:.* action", "each way through a step ends in an action, as in 'return f.ret()'"),
    (r"use of yield in a closure", "compiled code has no generator expressions: write the loop out"),
    (r"'with \(context manager\) as", "compiled code has no with ... as: do it in Python, around the call"),
    (r"Untyped global name '([^']+)'", r"\1 is not known to compiled code: write the loop out, or do it in Python"),
    (r"<intrinsic exception_match>", "compiled code tells no exceptions apart: write except Exception"),
)  # fmt: skip
_FIXES = (
    (r"getitem\(.*slice", "take the elements one by one, or use a gomp.ndarray, whose slices are views"),
    (r"mod\(unicode|mod\(Literal\[str", "use an f-string"),
    (r"", "write it out with loops and fields, or do it in Python, around the call"),
)


def _without_overload(text: str) -> str | None:
    """Numba has no function for the types that a call has: which call, and what to do."""
    found = re.search(
        r"No implementation of function Function\(<[\w -]+ '?[\w.]+'?>\) found for signature:.*?>>> (.*?)\n", text, re.S
    )
    if found is None:
        return None
    call = re.sub(r"#[0-9a-f]{6,}", "", found.group(1).strip())
    fix = next(fix for pattern, fix in _FIXES if re.search(pattern, call))
    return f"{call} is not known to compiled code: {fix}"


def _reason(text: str) -> str:
    marked = re.findall(re.escape(MARK) + r"(.*)", text)
    if marked:
        return str(marked[-1]).strip()
    for pattern, plainer in _PLAINER:
        found = re.search(pattern, text)
        if found:
            return found.expand(plainer)
    unknown = _without_overload(text)
    if unknown is not None:
        return unknown
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
