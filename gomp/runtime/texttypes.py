"""Texts and bytes in compiled code: ``gomp.str(s)``, ``gomp.bytes(b)``, ``len(s)``, ``s[i]``, ``s == t``, as from Python.

A character is one of Numba's strings of length 1, a byte is an int. Loops over a text poll now and then: it may be long. Their bytes are compared
in words: an object ends with zeros up to a multiple of 8.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numba.core import types
from numba.core.imputils import impl_ret_borrowed
from numba.cpython.unicode import _get_code_point
from numba.extending import intrinsic

from gomp.core.jit import inline
from gomp.core.mutator.malloc import PROGRAM, new_bytes
from gomp.core.shm.atomics import fence_release, load8, load64, store8, store64
from gomp.errors import NilDereference, OutOfMemory
from gomp.runtime.arrays import MAX_ARRAY
from gomp.runtime.polling import poll_holding, poll_in_loop
from gomp.runtime.refops import address, raise_out_of_memory
from gomp.runtime.reftypes import TextRef, in_compiled_code, numba_type, rejection, shown
from gomp.runtime.texts import BYTES_HEADER, CHARACTERS, STR_HEADER, Bytes, Str, bytes_, str_

_STRIP = 4096
_TOO_LONG = "a text of so many characters is larger than any heap"


def _is(ref: Any, cls: type) -> bool:
    return isinstance(ref, TextRef) and ref.cls is cls


@inline
def _check(base: int, i: int, n: int) -> None:
    if i < 0 or i >= n:
        raise IndexError("index out of range")


@inline
def check_text(base: int) -> int:
    if base == 0:
        raise NilDereference("a text that is None")
    return base


@inline
def next_character(at: int) -> int:
    """The address of the character after the one at ``at``."""
    first = load8(at)
    return at + (1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4)


@inline
def code_point_at(at: int) -> int:
    """The code point of the character at ``at``."""
    first = load8(at)
    if first < 0x80:
        return first
    if first < 0xE0:
        return (first & 0x1F) << 6 | load8(at + 1) & 0x3F
    if first < 0xF0:
        return (first & 0x0F) << 12 | (load8(at + 1) & 0x3F) << 6 | load8(at + 2) & 0x3F
    return (first & 0x07) << 18 | (load8(at + 1) & 0x3F) << 12 | (load8(at + 2) & 0x3F) << 6 | load8(at + 3) & 0x3F


@inline
def _code_point(base: int, i: int) -> int:
    n = load64(base + CHARACTERS)
    _check(base, i, n)
    if n == load64(base):
        return load8(base + STR_HEADER + i)
    at = base + STR_HEADER
    for k in range(i):
        if k % _STRIP == 0:
            poll_in_loop()
        at = next_character(at)
    return code_point_at(at)


@inline
def _byte(base: int, i: int) -> int:
    _check(base, i, load64(base))
    return load8(base + BYTES_HEADER + i)


@inline
def _same(a: int, b: int, header: int) -> bool:
    if a == b:
        return True
    if a == 0 or b == 0 or load64(a) != load64(b):
        return False
    for k in range(0, (load64(a) + 7) & -8, 8):
        if k % (8 * _STRIP) == 0:
            poll_in_loop()
        if load64(a + header + k) != load64(b + header + k):
            return False
    return True


@in_compiled_code(len)
def _len(text: Any) -> Any:
    if _is(text, Str):
        return lambda text: load64(check_text(address(text)) + CHARACTERS)
    if _is(text, Bytes):
        return lambda text: load64(check_text(address(text)))
    return None


@in_compiled_code(operator.getitem)
def _getitem(text: Any, i: Any) -> Any:
    if not isinstance(i, types.Integer):
        return None
    if _is(text, Str):
        return lambda text, i: chr(_code_point(check_text(address(text)), np.int64(i)))
    if _is(text, Bytes):
        return lambda text, i: _byte(check_text(address(text)), np.int64(i))
    return None


def _equality(a: Any, b: Any) -> Any:
    """The function that compares what two hold; None for other types."""
    if _is(a, Str) and _is(b, Str):
        return lambda a, b: _same(address(a), address(b), STR_HEADER)
    if _is(a, Bytes) and _is(b, Bytes):
        return lambda a, b: _same(address(a), address(b), BYTES_HEADER)
    if isinstance(a, TextRef) and isinstance(b, TextRef):
        return lambda a, b: False
    if _is(a, Str) and isinstance(b, (types.UnicodeType, types.StringLiteral)):
        return _is_string
    return None


def _is_string(a: Any, b: Any) -> Any:
    base: int = address(a)
    if base == 0 or load64(base + CHARACTERS) != len(b):
        return False
    at = base + STR_HEADER
    for k in range(len(b)):
        if k % _STRIP == 0:
            poll_in_loop()
        if code_point_at(at) != ord(b[k]):
            return False
        at = next_character(at)
    return True


@in_compiled_code(operator.eq)
def _eq(a: Any, b: Any) -> Any:
    return _equality(a, b)


@in_compiled_code(operator.ne)
def _ne(a: Any, b: Any) -> Any:
    equal = _equality(a, b)
    if equal is None:
        return None
    equals = inline(equal)
    return lambda a, b: not equals(a, b)


@in_compiled_code(bool)
def _bool(text: Any) -> Any:
    if isinstance(text, TextRef):
        return lambda text: address(text) != 0 and load64(address(text)) != 0
    return None


# --- making one -------------------------------------------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def _as_text(context: Any, made: Any, addr: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return args[1]

    return numba_type(made.cls)(made, types.int64), codegen


@inline
def _new(header: int, nbytes: int) -> int:
    if nbytes > MAX_ARRAY:
        raise OutOfMemory(_TOO_LONG)
    addr = new_bytes((header + nbytes + 7) & -8, PROGRAM)
    if addr == 0:
        raise_out_of_memory(nbytes)
    store64(addr, nbytes)
    return addr


@inline
def _width(code: int) -> int:
    """Bytes of a character in UTF-8."""
    return 1 if code < 0x80 else 2 if code < 0x800 else 3 if code < 0x10000 else 4


@inline
def _put(at: int, code: int) -> int:
    """Write a character; where it ends."""
    width = _width(code)
    if width == 1:
        store8(at, code)
        return at + 1
    store8(at, (0xF00 >> width & 0xF0) | code >> 6 * (width - 1))
    for k in range(1, width):
        store8(at + k, 0x80 | code >> 6 * (width - 1 - k) & 0x3F)
    return at + width


@inline
def _new_str(text: Any) -> int:
    nbytes = 0
    for k in range(len(text)):
        if k % _STRIP == 0:
            poll_in_loop()
        nbytes += _width(np.int64(_get_code_point(text, k)))
    base = _new(STR_HEADER, nbytes)
    store64(base + CHARACTERS, len(text))
    at = base + STR_HEADER
    for k in range(len(text)):
        if k % _STRIP == 0:
            poll_holding(base)
        at = _put(at, np.int64(_get_code_point(text, k)))
    fence_release()  # whoever sees its address sees what it holds
    return base


@inline
def _new_bytes(data: Any) -> int:
    base = _new(BYTES_HEADER, len(data))
    for k in range(len(data)):
        if k % _STRIP == 0:
            poll_holding(base)
        store8(base + BYTES_HEADER + k, np.int64(data[k]))
    fence_release()
    return base


@inline
def _copy(text: int, header: int) -> int:
    base = _new(header, load64(text))
    for k in range(8, (header + load64(text) + 7) & -8, 8):
        if k % (8 * _STRIP) == 0:
            poll_holding(base)
        store64(base + k, load64(text + k))
    fence_release()
    return base


@intrinsic  # type: ignore[untyped-decorator]
def _plain(context: Any, text: Any) -> Any:
    """A text that may be None to the compiler, as what it takes ``"x" * n`` for."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = context.cast(builder, args[0], sig.args[0], types.unicode_type)
        return impl_ret_borrowed(context, builder, types.unicode_type, value)

    return types.unicode_type(text), codegen


@in_compiled_code(str_)
def _str(text: Any) -> Any:
    if _is(text, Str):
        return lambda text: _as_text(Str, _copy(check_text(address(text)), STR_HEADER))
    plain = text.type if isinstance(text, types.Optional) else text
    if isinstance(plain, (types.UnicodeType, types.StringLiteral)):
        return lambda text: _as_text(Str, _new_str(_plain(text)))
    raise rejection(f"gomp.str makes a text of a str, not {shown(text)}: convert what else there is with str()")


@in_compiled_code(bytes_)
def _bytes(data: Any) -> Any:
    if _is(data, Bytes):
        return lambda data: _as_text(Bytes, _copy(check_text(address(data)), BYTES_HEADER))
    if isinstance(data, (types.Bytes, types.ByteArray)) or (
        isinstance(data, types.Array) and data.ndim == 1 and data.dtype == types.uint8
    ):
        return lambda data: _as_text(Bytes, _new_bytes(data))
    raise rejection(f"gomp.bytes makes bytes of bytes or of an array of uint8, not {shown(data)}")
