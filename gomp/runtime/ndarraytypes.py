"""``gomp.ndarray`` in compiled code: an array of the heap is an array of Numba's over the same memory, with all that Numba does with arrays.

Who keeps the memory: the caller's array, which Python holds until the program has ended, and which has a handle. So inside it is borrowed: numbers
cross, and Numba counts no references, which it would forget in a program that raises. A result that looks at an argument's memory becomes a view of
it again.

An index is checked always (``compiled`` asks Numba for it): a store past the end would be into somebody else's object. A negative one counts from the
end, as numpy's do.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np
import numpy.typing as npt
from numba.core import cgutils, errors, types
from numba.np import numpy_support
from numba.np.arrayobj import populate_array

from gomp.runtime.ndarrays import NDArray, block_of, ndarray, view_of
from gomp.runtime.polling import refused
from gomp.runtime.reftypes import in_compiled_code, rejection, typed_by_value


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
    try:
        return types.Array(numpy_support.from_dtype(dtype), ndim, layout, readonly=readonly, aligned=aligned)
    except errors.NumbaError:
        raise TypeError(
            f"is an array of dtype {dtype}, which compiled code does not know: use numbers of this machine's byte order"
        ) from None


typed_by_value[NDArray] = typed_by_value[np.ndarray] = _type_of
refused[ndarray] = (
    "gomp.ndarray is made in Python, and an argument here; what compiled code makes itself is gomp.array(float, n)"
)


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


def as_shared(result: npt.NDArray[Any], args: tuple[Any, ...]) -> npt.NDArray[Any]:
    """What a program has returned: if it looks at the memory of one of the arguments, a view of that, which keeps it."""
    if result.base is not None or result.flags.owndata:
        return result
    for array in args:
        block = block_of(array)
        if block is not None and (found := view_of(block, result)) is not None:
            return found
    return result  # a constant of the program's, which has its memory


@in_compiled_code(operator.setitem)
def _setitem(array: Any, index: Any, value: Any) -> Any:
    if isinstance(array, types.Array) and not array.mutable:
        raise rejection("this array is read-only: its elements cannot be set")
