"""What a step does, as a hash, for frames that are sent by value: a name and a layout do not tell two of them apart.

A class of ``__main__`` may be declared again with another step, as when a cell of a notebook is run anew; one inside a function is declared at each
call, with other values around it. Who has learned the first must not take the second for it. Frames of modules are the same for everybody who
imports them.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Iterator
from typing import Any

_FROZEN = (int, float, bool, str, bytes, type(None))  # what the compiler takes for a constant


def is_sent_by_value(cls: type) -> bool:
    return cls.__module__ == "__main__" or "<locals>" in cls.__qualname__


def digest(step: types.FunctionType) -> str:
    """The same in each process that has it: nothing in it tells of files and lines, or of what only this process has."""
    return hashlib.sha256("\n".join(_words(step, set())).encode()).hexdigest()[:16]


def _words(function: types.FunctionType, seen: set[int]) -> Iterator[str]:
    if id(function) in seen:
        return
    seen.add(id(function))
    names: dict[str, Any] = {}
    for code in all_code(function.__code__):
        constants = [
            sorted(map(repr, c)) if isinstance(c, frozenset) else c
            for c in code.co_consts
            if not isinstance(c, types.CodeType)
        ]
        yield repr((code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars))
        names |= {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # assigned later
            continue
    for name, value in sorted(names.items()):
        value = getattr(
            value, "py_func", getattr(value, "step", value)
        )  # of a compiled function, or a frame that is called
        if isinstance(value, _FROZEN):
            yield f"{name} = {value!r}"
        elif isinstance(value, types.FunctionType):
            yield f"{name}: {value.__module__}.{value.__qualname__}"
            if value.__module__ == function.__module__:
                yield from _words(value, seen)


def all_code(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from all_code(constant)
