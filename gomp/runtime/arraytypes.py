"""Arrays in compiled code: ``gomp.array(T, n)``, elements, length.

The number of elements is a word of a heap array, and a constant of a fixed one. An index is checked always: a reference past the end would be
followed by the collector.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import types
from numba.core.typing.templates import AbstractTemplate, Signature, infer_global
from numba.extending import intrinsic, lower_builtin

from gomp.core.jit import inline
from gomp.core.mutator.boundary import ARRAY_HEADER, set_length
from gomp.core.mutator.malloc import new_bytes, new_typed
from gomp.core.mutator.types import find_type
from gomp.core.shm.atomics import load64
from gomp.errors import NilDereference, OutOfMemory
from gomp.runtime import arrays
from gomp.runtime.arrays import MAX_ARRAY, Array
from gomp.runtime.parts import ByValue
from gomp.runtime.places import caller_here
from gomp.runtime.polling import poll_in_loop
from gomp.runtime.references import array_class, key_of
from gomp.runtime.refops import address, check_part, check_range, load_part, raise_out_of_memory, store_part
from gomp.runtime.reftypes import (
    ArrayRef,
    ByValueClass,
    InlineName,
    ScalarClass,
    StructClass,
    StructRef,
    in_compiled_code,
    numba_type,
    rejection,
    shown,
)

# --- making arrays ----------------------------------------------------------------------------------------------------


@infer_global(arrays.array)
class _Array(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
        elem = _element(args[0]) if len(args) == 2 and not kws else None
        if elem is None or not isinstance(args[1], types.Integer):
            raise rejection(
                "write gomp.array(T, n), with T a kind of number, a class of references or gomp.Inline[...], and n an int"
            )
        try:
            made = array_class(elem)
        except TypeError as error:
            raise rejection(str(error)) from None
        return Signature(numba_type(made), (args[0], types.int64), recvr=None)


def _element(type_: types.Type) -> Any:
    if isinstance(type_, ByValueClass):
        return type_.described
    if isinstance(type_, StructClass):
        return type_.cls
    if isinstance(type_, ScalarClass):
        return type_.kind
    key = getattr(type_, "typing_key", None)
    return key if key in (int, float, bool) else None


@lower_builtin(arrays.array, types.Any, types.int64)
def _lower_array(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    allocate = _array_allocator(sig.return_type.cls)
    words = args[1], caller_here(context, builder)
    return context.compile_internal(builder, allocate, types.int64(types.int64, types.int64), words)


@functools.cache
def _array_allocator(cls: type[Array[Any]]) -> Callable[[int, int], int]:
    key, width = key_of(cls), cls.layout.part.size

    def new_references(n: int, caller: int) -> int:
        _check_length(n)
        nbytes = ARRAY_HEADER + width * n
        addr = new_typed(nbytes, find_type(key), caller)
        if addr == 0:
            raise_out_of_memory(nbytes)
        set_length(addr, n)
        return addr

    def new_numbers(n: int, caller: int) -> int:
        _check_length(n)
        nbytes = (ARRAY_HEADER + width * n + 7) & -8
        addr = new_bytes(nbytes, caller)
        if addr == 0:
            raise_out_of_memory(nbytes)
        set_length(addr, n)
        return addr

    return new_references if cls.holds_links else new_numbers


@inline
def _check_length(n: int) -> None:
    if n < 0:
        raise ValueError("an array cannot have a negative number of elements")
    if n > MAX_ARRAY:
        raise OutOfMemory("an array of so many elements is larger than any heap")


@in_compiled_code(operator.getitem)
def _by_value(name: Any, cls: Any) -> Any:
    """``gomp.Inline[T]``, as the element of an array that is made."""
    if isinstance(name, InlineName) and isinstance(cls, StructClass):
        described = ByValue(cls.cls)
        return lambda name, cls: described
    return None


# --- elements ---------------------------------------------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def _load_element(context: Any, array: Any, addr: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return load_part(context, builder, sig.args[0].cls.layout.part, args[1])

    return array.elem(array, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _store_element(context: Any, array: Any, addr: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        cls, given = sig.args[0].cls, sig.args[2]
        check_range(context, builder, cls.layout.part, given, args[2], _where(cls))
        store_part(context, builder, cls.layout.part, args[1], 0, given, args[2])
        return context.get_dummy_value()

    return types.none(array, types.int64, types.unliteral(value)), codegen


def _where(cls: type[Array[Any]]) -> str:
    return f"an element of {cls.__name__}"


@functools.cache
def _element_finder(cls: type[Array[Any]]) -> Any:
    """The function from an array's address and an index to the element's address."""
    n, first, width = cls.length, cls.layout.first, cls.layout.part.size

    @inline
    def element(base: int, i: int) -> int:
        if base == 0:
            raise NilDereference("an element of an array that is None")
        if i < 0 or i >= (n if n else load64(base)):
            raise IndexError("array index out of range")
        return base + first + width * i

    return element


@in_compiled_code(operator.getitem)
def _getitem(array: Any, i: Any) -> Any:
    if isinstance(array, ArrayRef) and isinstance(i, types.Integer):
        element = _element_finder(array.cls)
        return lambda array, i: _load_element(array, element(address(array), np.int64(i)))
    return None


@in_compiled_code(operator.setitem)
def _setitem(array: Any, i: Any, value: Any) -> Any:
    if isinstance(array, ArrayRef) and isinstance(i, types.Integer):
        check_part(array.cls.layout.part, value, _where(array.cls))
        element = _element_finder(array.cls)
        return lambda array, i, value: _store_element(array, element(address(array), np.int64(i)), value)
    return None


@in_compiled_code(operator.contains)
def _contains(array: Any, wanted: Any) -> Any:
    if not isinstance(array, ArrayRef):
        return None
    if isinstance(wanted, StructRef) != isinstance(array.elem, StructRef):
        raise rejection(f"an element of {array.cls.__name__} is never {shown(wanted)}")

    def contains(array: Any, wanted: Any) -> bool:
        for each in array:
            if each == wanted:
                return True
            poll_in_loop()
        return False

    return contains


@functools.cache
def length_finder(cls: type[Array[Any]]) -> Any:
    n = cls.length

    @inline
    def length(base: int) -> int:
        if base == 0:
            raise NilDereference("the length of an array that is None")
        return n if n else load64(base)

    return length


@in_compiled_code(len)
def _len(array: Any) -> Any:
    if isinstance(array, ArrayRef):
        length = length_finder(array.cls)
        return lambda array: length(address(array))
    return None


@in_compiled_code(bool)
def _bool(array: Any) -> Any:
    if not isinstance(array, ArrayRef):
        return None
    if array.cls.length:
        return lambda array: address(array) != 0
    return lambda array: address(array) != 0 and load64(address(array)) != 0
