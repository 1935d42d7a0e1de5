"""``gomp.ndarray`` in compiled code: an array of the heap is an array of Numba's over the same memory, with all that Numba does with arrays.

Who keeps the memory: of an argument the caller's array, which Python holds until the program has ended, and which has a handle. Of an array that
the program makes, ``gomp.ndarray(shape, dtype)``, the variables that hold it or a view of it: each array that a variable takes has the address of its
first element on the stack (``polling``), and an address inside an object keeps the object. So for Numba all of them are borrowed: it counts no
references, which it would forget in a program that raises. The memory of a result is found by its first element, and gets a handle.

An index is checked always (``compiled`` asks Numba for it): a store past the end would be into somebody else's object. A negative one counts from the
end, as numpy's do.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, errors, types
from numba.extending import intrinsic
from numba.np import numpy_support
from numba.np.arrayobj import populate_array

from gomp.core.jit import inline
from gomp.core.mutator.boundary import fill_handle
from gomp.core.mutator.malloc import PROGRAM, new_bytes
from gomp.core.mutator.specialcalls import slot_base
from gomp.core.shm import layout
from gomp.core.shm.atomics import store8, store64
from gomp.errors import OutOfMemory
from gomp.runtime.arrays import MAX_ARRAY
from gomp.runtime.handles import table
from gomp.runtime.ndarrays import ALIGN, HEADER, MAX_DIMS, Block, Memory, NDArray, block_of, ndarray, view_of
from gomp.runtime.references import slot_of
from gomp.runtime.refops import call_inline, raise_out_of_memory
from gomp.runtime.reftypes import ScalarClass, in_compiled_code, rejection, shown, typed_by_value

_HEADER_BYTES = HEADER.size
_KNOWN = "bool, int8 to uint64, float32, float64, complex64 or complex128, in this machine's byte order"


def _type_of(array: npt.NDArray[Any]) -> types.Type:
    if block_of(array) is None:
        raise TypeError(
            f"is an array of this process: compiled code works on those of the shared heap, copy it into a gomp.ndarray{array.shape}"
        )
    flags = array.flags
    layout = "C" if flags.c_contiguous else "F" if flags.f_contiguous else "A"
    return _array_type(array.dtype, array.ndim, layout, not flags.writeable, flags.aligned)


@functools.lru_cache(maxsize=256)
def _array_type(dtype: np.dtype[Any], ndim: int, layout: str, readonly: bool, aligned: bool) -> types.Type:
    elem = _elem_type(dtype)
    if elem is None:
        raise TypeError(f"is an array of dtype {dtype}, which compiled code does not know: use {_KNOWN}")
    return types.Array(elem, ndim, layout, readonly=readonly, aligned=aligned)


def _elem_type(dtype: np.dtype[Any]) -> types.Type | None:
    """The Numba type of an element; None if there is none, or no more of it than its name."""
    try:
        return None if _has_half(dtype) else numpy_support.from_dtype(dtype)
    except errors.NumbaError:
        return None


def _has_half(dtype: np.dtype[Any]) -> bool:
    return dtype.base == np.float16 or any(_has_half(field) for field, *_ in (dtype.fields or {}).values())


typed_by_value[NDArray] = typed_by_value[np.ndarray] = _type_of


def words_type(type_: types.Array) -> types.Type:
    """As what an array crosses: the address of its first element, its shape, its strides."""
    return types.UniTuple(types.int64, 1 + 2 * type_.ndim)


def words_of(array: npt.NDArray[Any]) -> tuple[int, ...]:
    return array.__array_interface__["data"][0], *array.shape, *array.strides


def from_words(context: Any, builder: Any, type_: types.Array, words: Any) -> Any:
    """The array itself, without an owner that Numba knows of."""
    data, *rest = cgutils.unpack_tuple(builder, words)
    array = context.make_array(type_)(context, builder)
    populate_array(
        array,
        data=builder.inttoptr(data, array.data.type),
        shape=rest[: type_.ndim],
        strides=rest[type_.ndim :],
        itemsize=context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(type_.dtype))),
        meminfo=None,
    )
    return array._getvalue()


def root_result(context: Any, builder: Any, type_: types.Array, slot: Any, value: Any) -> None:
    """Before a program that returns an array leaves: into the slot with the object that its first element is in, if it is in the heap."""
    array = context.make_array(type_)(context, builder, value)
    data = builder.ptrtoint(array.data, ir.IntType(64))
    call_inline(context, builder, _root_memory, types.none, (slot, data, array.nitems))


@inline
def _root_memory(slot: int, data: int, nitems: int) -> None:
    """In KERNEL."""
    if nitems > 0 and layout.is_heap_addr(data):
        fill_handle(slot, slot_base(data))


def as_shared(result: npt.NDArray[Any], memory: Memory, args: tuple[Any, ...]) -> npt.NDArray[Any]:
    """What a program has returned, with a reference to its memory, if that is in the heap: then it is a view of that, which keeps it."""
    if table.words[slot_of(memory)]:
        found = view_of(Block(memory), result)
        assert found is not None, "the memory of an array is not where its elements are"
        return found
    del memory
    if result.size == 0 and result.base is None and not result.flags.owndata:
        for array in args:  # which of them it looks at, nobody can tell
            block = block_of(array)
            if block is not None and (found := view_of(block, result)) is not None:
                return found
    return result  # an ordinary array, or a constant of the program's, which has its memory


@in_compiled_code(operator.setitem)
def _setitem(array: Any, index: Any, value: Any) -> Any:
    if isinstance(array, types.Array) and not array.mutable:
        raise rejection("this array is read-only: its elements cannot be set")


# --- making one -------------------------------------------------------------------------------------------------------


@in_compiled_code(ndarray)
def _ndarray(shape: Any, dtype: Any = float) -> Any:
    sizes: Any = shape.types if isinstance(shape, types.BaseTuple) else [shape]
    if not all(isinstance(types.unliteral(n), types.Integer) for n in sizes):
        raise rejection(f"a shape is an int or a tuple of ints, not {shown(shape)}")
    if len(sizes) > MAX_DIMS:
        raise rejection(f"an array has at most {MAX_DIMS} dimensions, not {len(sizes)}")
    kind = _numpy_dtype(dtype)
    allocate = _allocator(repr(np.lib.format.dtype_to_descr(kind)), kind.itemsize, len(sizes))
    made = _maker(kind.str)

    def make(shape: Any, dtype: Any = float) -> Any:
        dims: Any = _as_dims(shape)
        return made(allocate(dims), dims)

    return make


def _numpy_dtype(given: Any) -> np.dtype[Any]:
    """The dtype that an argument names."""
    given = given.value if isinstance(given, types.Omitted) else given
    if isinstance(given, ScalarClass):
        return np.dtype(given.kind.code)
    if isinstance(given, (types.NumberClass, types.DType)):
        kind = numpy_support.as_dtype(given.dtype)
    else:
        name = given.literal_value if isinstance(given, types.StringLiteral) else getattr(given, "typing_key", given)
        try:
            kind = np.dtype(name)
        except TypeError:
            raise rejection(
                f"the dtype of a gomp.ndarray is a kind of number in compiled code, as float, np.int32 or gomp.uint8, not {shown(given)}"
            ) from None
    if _elem_type(kind) is None:
        raise rejection(f"a gomp.ndarray of dtype {kind} is not known to compiled code: use {_KNOWN}")
    if kind.kind not in "biufc":
        raise rejection(f"a gomp.ndarray of dtype {kind} is made in Python, and an argument here")
    return kind


@intrinsic  # type: ignore[untyped-decorator]
def _as_dims(context: Any, shape: Any) -> Any:
    given = list(shape.types) if isinstance(shape, types.BaseTuple) else [shape]
    dims: Any = types.UniTuple(types.int64, len(given))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        parts = cgutils.unpack_tuple(builder, args[0]) if isinstance(shape, types.BaseTuple) else args
        words = [context.cast(builder, part, type_, types.int64) for part, type_ in zip(parts, given, strict=True)]
        return context.make_tuple(builder, dims, words)

    return dims(shape), codegen


@functools.cache
def _allocator(descr: str, itemsize: int, ndim: int) -> Any:
    """The function from a shape to a new object with its header, as :mod:`~gomp.runtime.ndarrays` writes it."""
    before, after = tuple(f"({descr}, (".encode()), tuple(b",))" if ndim == 1 else b"))")
    fixed = len(before) + len(after) + 2 * max(ndim - 1, 0)

    @inline
    def allocate(dims: Any) -> int:
        n = 1
        text_bytes = fixed
        for dim in dims:
            if dim < 0:
                raise ValueError("a shape has no negative dimension")
            if dim > 0 and n > MAX_ARRAY // dim:
                raise OutOfMemory("an array of so many elements is larger than any heap")
            n *= dim
            text_bytes += _count_digits(dim)
        if n > MAX_ARRAY // itemsize:
            raise OutOfMemory("an array of so many elements is larger than any heap")
        data_offset = (_HEADER_BYTES + text_bytes + ALIGN - 1) & -ALIGN
        # At least one byte, so that the first element lies in the object also where there is none.
        nbytes = (data_offset + max(n * itemsize, 1) + ALIGN - 1) & -ALIGN
        addr = new_bytes(nbytes, PROGRAM)
        if addr == 0:
            raise_out_of_memory(nbytes)
        store64(addr, data_offset)
        store64(addr + 8, n * itemsize)
        store64(addr + 16, text_bytes)
        at = addr + _HEADER_BYTES
        for byte in before:
            store8(at, byte)
            at += 1
        for i, dim in enumerate(dims):
            if i > 0:
                store8(at, 44)  # ", "
                store8(at + 1, 32)
                at += 2
            at = _write_digits(at, dim)
        for byte in after:
            store8(at, byte)
            at += 1
        return addr + data_offset

    return allocate


@inline
def _count_digits(n: int) -> int:
    count = 1
    while n >= 10:
        n //= 10
        count += 1
    return count


@inline
def _write_digits(at: int, n: int) -> int:
    """Write a number in decimal; where it ends."""
    end = at + _count_digits(n)
    last = end
    while last > at:
        last -= 1
        store8(last, 48 + n % 10)
        n //= 10
    return end


@functools.cache
def _maker(dtype: str) -> Any:
    """The function from the address of the first element and a shape to the array."""
    elem = numpy_support.from_dtype(np.dtype(dtype))

    @intrinsic  # type: ignore[untyped-decorator]
    def made(context: Any, data: Any, dims: Any) -> Any:
        array_type = types.Array(elem, len(dims), "C")
        return array_type(data, dims), functools.partial(_emit_array, array_type)

    return made


def _emit_array(array_type: types.Array, context: Any, builder: Any, sig: Any, args: Any) -> Any:
    itemsize = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(array_type.dtype)))
    shape: Any = cgutils.unpack_tuple(builder, args[1])
    strides: list[Any] = []
    stride = itemsize
    for n in reversed(shape):
        strides.insert(0, stride)
        stride = builder.mul(stride, n)
    array = context.make_array(array_type)(context, builder)
    data = builder.inttoptr(args[0], array.data.type)
    populate_array(array, data=data, shape=shape, strides=strides, itemsize=itemsize, meminfo=None)
    return array._getvalue()
