"""The native stack on which a compiled program runs: polls at entries look where it ends, so the P's record says that of the thread that runs one.

Threads share their process's P, and the interpreter gives its lock from one to another between any two instructions of Python. So it is the machine
code that looks whose stack is announced, when nothing comes in between any more: a program that finds another thread's raises :class:`OtherThread`
before it has done anything; its own is announced, and it is called again.
"""

from __future__ import annotations

import array
import ctypes
import os
import threading
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from gomp.core.shm import layout
from gomp.core.shm.records import offset_of, p_dtype


class OtherThread(Exception):
    """The stack that is announced is another thread's: :func:`announce`, and call the program again."""


@intrinsic  # type: ignore[untyped-decorator]
def this_thread(context: Any) -> Any:
    """The thread's number, as ``threading.get_ident`` has it."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        function_type = ir.FunctionType(ir.IntType(64), [])
        return builder.call(
            cgutils.get_or_insert_function(builder.module, function_type, "PyThread_get_thread_ident"), []
        )

    return types.int64(), codegen


_own = threading.local()
_LOW, _THREAD = offset_of(p_dtype, "stack_low"), offset_of(p_dtype, "stack_thread")
assert _THREAD == _LOW + 8
_announced = memoryview((ctypes.c_int64 * 2).from_address(layout.SELF_BASE + _LOW)).cast("B").cast("q")


def announce() -> None:
    """Tell the P where this thread's stack ends."""
    words = memoryview(array.array("q", (stack_low(), threading.get_ident())))
    _announced[:] = words  # both at once: another thread may announce itself before and after


def stack_low() -> int:
    """Where this thread's stack ends. For the main thread the C library reads a file of /proc: once asked, it is known, in forked processes too."""
    if not hasattr(_own, "low"):
        libc = ctypes.CDLL(None)
        attributes = ctypes.create_string_buffer(256)
        low, size = ctypes.c_void_p(), ctypes.c_size_t()
        if code := libc.pthread_getattr_np(ctypes.c_void_p(threading.get_ident()), attributes):
            raise OSError(code, f"the C library cannot tell where this thread's stack is: {os.strerror(code)}")
        libc.pthread_attr_getstack(attributes, ctypes.byref(low), ctypes.byref(size))
        libc.pthread_attr_destroy(attributes)
        _own.low = low.value or 0
    return _own.low  # type: ignore[no-any-return]
