"""A call of machine code by its address: of what only a running process knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from gomp.core.jit import primitive

_I64 = ir.IntType(64)
in_plain_python: dict[int, Callable[[int], int]] = {}  # by address


def _call(b: Any, a: Any) -> Any:
    return b.call(b.inttoptr(a[0], ir.FunctionType(_I64, [_I64]).as_pointer()), [a[1]])


@primitive("int64(int64, int64)", _call)
def call_at(address: int, argument: int) -> int:
    """What the function at ``address`` gives, which takes a word and gives one."""
    return in_plain_python[address](argument)
