"""The interpreter's lock, released and taken again in the middle of a kernel that sleeps: for one that holds it before and after."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from gomp.core.jit import primitive

_THREAD_STATE = ir.IntType(8).as_pointer()


def _call(b: Any, name: str, returns: Any, *args: Any) -> Any:
    function_type = ir.FunctionType(returns, [arg.type for arg in args])
    return b.call(cgutils.get_or_insert_function(b.module, function_type, name), args)


@primitive("int64()", lambda b, a: b.ptrtoint(_call(b, "PyEval_SaveThread", _THREAD_STATE), ir.IntType(64)))
def release_interpreter() -> int:
    """What :func:`take_interpreter` is to be given, by this thread. In plain Python the lock is released where the sleep is."""
    return 0


@primitive(
    "void(int64)",
    lambda b, a: _call(b, "PyEval_RestoreThread", ir.VoidType(), b.inttoptr(a[0], _THREAD_STATE)) and None,
)
def take_interpreter(thread: int) -> None:
    """Wait for the lock, and have it."""
