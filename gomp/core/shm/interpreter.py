"""CPython from inside kernels, by its C interface: the interpreter's lock around a sleep, and the stack of Python's frames.

Nothing here runs Python code, handles a signal or collects garbage. Objects are addresses; a *new* one has to be dropped.
"""

from __future__ import annotations

import ctypes
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from gomp.core.jit import primitive

_I8P, _I32, _I64 = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64)


def _call(b: Any, name: str, returns: Any, *args: Any) -> Any:
    function_type = ir.FunctionType(returns, [arg.type for arg in args])
    return b.call(cgutils.get_or_insert_function(b.module, function_type, name), args)


def _object(b: Any, word: Any) -> Any:
    return b.inttoptr(word, _I8P)


def _python(name: str, returns: Any, *parameters: Any) -> Any:
    function = getattr(ctypes.pythonapi, name)
    function.restype, function.argtypes = returns, parameters
    return function


# --- its lock ---------------------------------------------------------------------------------------------------------


@primitive("int64()", lambda b, a: b.ptrtoint(_call(b, "PyEval_SaveThread", _I8P), _I64))
def release_interpreter() -> int:
    """What :func:`take_interpreter` is to be given, by this thread. In plain Python the lock is released where the sleep is."""
    return 0


@primitive("void(int64)", lambda b, a: _call(b, "PyEval_RestoreThread", ir.VoidType(), _object(b, a[0])) and None)
def take_interpreter(thread: int) -> None:
    """Wait for the lock, and have it."""


@primitive("int64()", lambda b, a: b.sext(_call(b, "PyGILState_Check", _I32), _I64))
def has_interpreter() -> int:
    """1 if this thread has the lock: the rest of this module needs it."""
    return 1


# --- frames -----------------------------------------------------------------------------------------------------------

_gc_disable, _gc_enable = (_python(name, ctypes.c_int) for name in ("PyGC_Disable", "PyGC_Enable"))
_incref, _decref = (_python(name, None, ctypes.c_void_p) for name in ("Py_IncRef", "Py_DecRef"))
_get_frame = _python("PyEval_GetFrame", ctypes.c_void_p)
_get_back, _get_code = (_python(n, ctypes.c_void_p, ctypes.c_void_p) for n in ("PyFrame_GetBack", "PyFrame_GetCode"))
_get_lasti = _python("PyFrame_GetLasti", ctypes.c_int, ctypes.c_void_p)
_addr2line = _python("PyCode_Addr2Line", ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


@primitive("int64()", lambda b, a: b.sext(_call(b, "PyGC_Disable", _I32), _I64))
def pause_gc() -> int:
    """Have Python make objects without looking for garbage: 1 if it did before, for :func:`resume_gc`."""
    return int(_gc_disable())


def _resume_gc(b: Any, a: Any) -> None:
    with b.if_then(b.icmp_signed("!=", a[0], ir.Constant(_I64, 0))):
        _call(b, "PyGC_Enable", _I32)


@primitive("void(int64)", _resume_gc)
def resume_gc(was_on: int) -> None:
    if was_on:
        _gc_enable()


def _innermost_frame(b: Any, a: Any) -> Any:
    frame = _call(b, "PyEval_GetFrame", _I8P)
    _call(b, "Py_IncRef", ir.VoidType(), frame)
    return b.ptrtoint(frame, _I64)


@primitive("int64()", _innermost_frame)
def innermost_frame() -> int:
    """The frame that this thread is in, new; 0 if there is none."""
    frame = _get_frame()
    _incref(frame)
    return frame or 0


def _caller_of(b: Any, a: Any) -> Any:
    frame = _object(b, a[0])
    caller = _call(b, "PyFrame_GetBack", _I8P, frame)
    _call(b, "Py_DecRef", ir.VoidType(), frame)
    return b.ptrtoint(caller, _I64)


@primitive("int64(int64)", _caller_of)
def caller_of(frame: int) -> int:
    """The frame that has called this one, new; 0 if none has. ``frame`` is dropped."""
    caller = _get_back(frame)
    _decref(frame)
    return caller or 0


def _code_of(b: Any, a: Any) -> Any:
    code = _call(b, "PyFrame_GetCode", _I8P, _object(b, a[0]))
    _call(b, "Py_DecRef", ir.VoidType(), code)
    return b.ptrtoint(code, _I64)


@primitive("int64(int64)", _code_of)
def code_of(frame: int) -> int:
    """Its code, which the frame keeps."""
    code = _get_code(frame)
    _decref(code)
    return int(code)


@primitive("int64(int64)", lambda b, a: b.sext(_call(b, "PyFrame_GetLasti", _I32, _object(b, a[0])), _I64))
def place_in_code(frame: int) -> int:
    """Of the instruction that the frame is at, its offset."""
    return int(_get_lasti(frame))


@primitive(
    "int64(int64, int64)",
    lambda b, a: b.sext(_call(b, "PyCode_Addr2Line", _I32, _object(b, a[0]), b.trunc(a[1], _I32)), _I64),
)
def line_of(code: int, place: int) -> int:
    return int(_addr2line(code, place))


@primitive("void(int64)", lambda b, a: _call(b, "Py_IncRef", ir.VoidType(), _object(b, a[0])) and None)
def keep_object(obj: int) -> None:
    """Nothing else comes to be at its address, until it is dropped."""
    _incref(obj)


@primitive("void(int64)", lambda b, a: _call(b, "Py_DecRef", ir.VoidType(), _object(b, a[0])) and None)
def drop_object(obj: int) -> None:
    _decref(obj)


# --- texts ------------------------------------------------------------------------------------------------------------

_NO_TEXT = ir.Constant(_I64, -1)


def _copy_text_of(attribute: str) -> Any:
    def lower(b: Any, a: Any) -> Any:
        code, out, most = a
        nbytes = cgutils.alloca_once(b, _I64)
        size = cgutils.alloca_once(b, _I64)
        b.store(_NO_TEXT, nbytes)
        name = cgutils.global_constant(
            b.module, f".text.{attribute}", cgutils.make_bytearray(attribute.encode() + b"\0")
        )
        text = _call(b, "PyObject_GetAttrString", _I8P, _object(b, code), b.bitcast(name, _I8P))
        with b.if_then(cgutils.is_not_null(b, text)):
            utf8 = _call(b, "PyUnicode_AsUTF8AndSize", _I8P, text, size)
            with b.if_then(cgutils.is_not_null(b, utf8)):
                length = b.load(size)
                length = b.select(b.icmp_signed("<", length, most), length, most)
                cgutils.raw_memcpy(b, _object(b, out), utf8, length, 1)
                b.store(length, nbytes)
            _call(b, "Py_DecRef", ir.VoidType(), text)
        with b.if_then(b.icmp_signed("<", b.load(nbytes), ir.Constant(_I64, 0))):
            _call(b, "PyErr_Clear", ir.VoidType())
        return b.load(nbytes)

    return lower


def _copy_text(code: int, attribute: str, out: int, most: int) -> int:
    text = getattr(ctypes.cast(int(code), ctypes.py_object).value, attribute).encode(errors="replace")[: int(most)]
    ctypes.memmove(int(out), text, len(text))
    return len(text)


@primitive("int64(int64, int64, int64)", _copy_text_of("co_qualname"))
def copy_name_of(code: int, out: int, most: int) -> int:
    """Put the qualified name of a function's code to ``out``, at most so many bytes of UTF-8; how many, -1 if it is no such text."""
    return _copy_text(code, "co_qualname", out, most)


@primitive("int64(int64, int64, int64)", _copy_text_of("co_filename"))
def copy_file_of(code: int, out: int, most: int) -> int:
    """The same of its file's name."""
    return _copy_text(code, "co_filename", out, most)
