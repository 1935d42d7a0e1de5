"""``gomp.ndarray(shape, dtype)``: numpy arrays whose data are an object of the shared heap, seen by every process without a copy.

Nouns
-----
memory  the heap object: a header, then the data, both at multiples of 64 bytes. It has no references, so the collector marks it and looks no further.
block   the Python object that numpy arrays over one memory have as their base. It holds a reference to the memory: so the data live while any
        array, slice or memoryview of them does, in any process; and it is counted among those who look at the runtime's mapping.
view    an array whose chain of bases ends in a block: what ``gomp.ndarray`` returns, and whatever numpy makes of it without copying.

Header: the offset of the data, their length, the length of a text, the text: dtype and shape as in a ``.npy`` file. It is written before the
reference leaves the process that made it, and never changes. (Entering a kernel, which every way out does, is a release.)

A pickled view is a reference to the memory and where in it the view is: never the data. numpy pickles objects of exactly its own class itself, and
copies: what ``np.asarray`` makes of a view goes without a copy only where gomp does the pickling (arguments and results, the executor).
"""

from __future__ import annotations

import ast
import ctypes
import functools
import math
import operator
import struct as packing
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from gomp.runtime import mapping, transit
from gomp.runtime.handles import kernels, table
from gomp.runtime.references import OpaqueLayout, Reference, address_of
from gomp.runtime.slots import allocated

__all__ = ["NDArray", "ndarray"]

ALIGN = 64
HEADER = packing.Struct("<qqq")


class Memory(Reference):
    """A reference to the memory of an array."""

    __slots__ = ()
    layout: ClassVar[OpaqueLayout] = OpaqueLayout("the memory of an array")
    called: ClassVar[str] = "ndarray"  # in messages

    def present(self) -> NDArray:
        """The array as it was made: what a global holds."""
        block = Block(self)
        return block.array(*block.made_as)


class Block:
    """The base of the arrays over one memory."""

    __slots__ = ("__array_interface__", "__weakref__", "addr", "made_as", "memory", "nbytes")

    def __init__(self, memory: Memory) -> None:
        at = address_of(memory)
        data_offset, self.nbytes, text_bytes = HEADER.unpack(ctypes.string_at(at, HEADER.size))
        self.memory = memory
        self.addr = at + data_offset
        self.made_as = _read_text(ctypes.string_at(at + HEADER.size, text_bytes))
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (self.nbytes,), "data": (self.addr, False)}

    def array(
        self, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int = 0, strides: tuple[int, ...] | None = None
    ) -> NDArray:
        """The view of that shape, ``offset`` bytes into the data."""
        data = mapping.watch(np.asarray(self))
        return np.ndarray.__new__(NDArray, shape, dtype, data, offset, strides)


@functools.lru_cache(maxsize=256)
def _read_text(text: bytes) -> tuple[np.dtype[Any], tuple[int, ...]]:
    descr, shape = ast.literal_eval(text.decode())
    return np.lib.format.descr_to_dtype(descr), shape


def block_of(array: object) -> Block | None:
    """The block that ``array`` is a view of, if it is one."""
    while isinstance(array, (np.ndarray, memoryview)):
        array = array.obj if isinstance(array, memoryview) else array.base
    return array if isinstance(array, Block) else None


class NDArray(np.ndarray):
    """An array in the shared heap. What numpy computes from one is an ordinary array; what it only looks at it with is a view."""

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        """The result of a ufunc: an ordinary array, unless it was told to go into a shared one."""
        if block_of(array) is not None:
            return array
        return array[()] if return_scalar else np.asarray(array)

    def copy(self, order: Any = "C") -> Any:
        """An ordinary array with the same elements."""
        return np.asarray(self).copy(order)

    def astype(self, *args: Any, **kwargs: Any) -> Any:
        return np.asarray(self).astype(*args, **kwargs)

    def __copy__(self) -> Any:
        return self.copy("K")

    def __deepcopy__(self, memo: object) -> Any:
        return self.copy("K")

    def __reduce__(self) -> Any:
        return reduce_view(self) or np.asarray(self).__reduce__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return reduce_view(self) or np.asarray(self).__reduce_ex__(protocol)


def reduce_view(array: npt.NDArray[Any]) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    """How a view is pickled; None for an array that is none."""
    block = block_of(array)
    if block is None:
        return None
    strides = None if array.flags.c_contiguous else array.strides
    offset = array.__array_interface__["data"][0] - block.addr if array.size else 0
    return restore, (block.memory, array.dtype, array.shape, offset, strides, array.flags.writeable)


def view_of(block: Block, array: npt.NDArray[Any]) -> NDArray | None:
    """``array`` as a view that keeps the block, if its elements lie in it; an array without elements may be anywhere."""
    offset = array.__array_interface__["data"][0] - block.addr if array.size else 0
    if not 0 <= offset <= max(block.nbytes - array.itemsize, 0):
        return None
    strides = None if array.flags.c_contiguous else array.strides
    view = block.array(array.dtype, array.shape, offset, strides)
    view.flags.writeable = array.flags.writeable
    return view


def restore(
    memory: Memory,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    offset: int,
    strides: tuple[int, ...] | None,
    writeable: bool,
) -> NDArray:
    """A view that was pickled."""
    array = Block(memory).array(dtype, shape, offset, strides)
    array.flags.writeable = writeable
    return array


transit.on_pickling(np.ndarray, reduce_view)


def memory_of(array: npt.NDArray[Any], where: str) -> Memory:
    """What ``where`` can hold of an array: its memory, if it is the whole of it. Raises TypeError."""
    block = block_of(array)
    if block is None:
        raise TypeError(f"{where} holds arrays of the shared heap: copy this one into a gomp.ndarray{array.shape}")
    if (array.dtype, array.shape) != block.made_as or not array.flags.c_contiguous:
        raise TypeError(
            f"{where} holds whole arrays, and this is a view of one of shape {block.made_as[1]}: store that, and take the view of what is read"
        )
    return block.memory


# --- making one -------------------------------------------------------------------------------------------------------


def ndarray(shape: int | tuple[int, ...], dtype: npt.DTypeLike = float) -> NDArray:
    """A new array of zeros in the shared heap. Raises OutOfMemory, and TypeError or ValueError for what cannot live there."""
    dims, kind = _check_shape(shape), _check_dtype(dtype)
    nbytes = kind.itemsize * math.prod(dims)
    text = repr((np.lib.format.dtype_to_descr(kind), dims)).encode()
    data_offset = _align(HEADER.size + len(text))
    # Size classes that hold a multiple of 64 bytes are multiples of 64 bytes, so that data are aligned as the object is.
    size = _align(data_offset + nbytes)
    table.check_size(size, f"an array of shape {dims} and dtype {kind}")
    memory = allocated(Memory, kernels.new_object, size, 0)
    header = HEADER.pack(data_offset, nbytes, len(text)) + text
    ctypes.memmove(address_of(memory), header, len(header))
    return Block(memory).array(kind, dims)


def _align(nbytes: int) -> int:
    return -(-nbytes // ALIGN) * ALIGN


def _check_shape(shape: object) -> tuple[int, ...]:
    given: Any = shape if isinstance(shape, (tuple, list)) else (shape,)
    try:
        dims = tuple(operator.index(n) for n in given)
    except TypeError:
        raise TypeError(f"a shape is an int or a tuple of ints, not {shape!r}") from None
    if len(dims) > MAX_DIMS:
        raise ValueError(f"an array has at most {MAX_DIMS} dimensions, not {len(dims)}")
    for n in dims:
        if n < 0:
            raise ValueError(f"a shape has no negative dimension: {n} in {dims}")
    return dims


def _check_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    kind = np.dtype(dtype)
    if kind.hasobject or kind.kind == "T":
        raise TypeError(
            f"an array of dtype {kind} holds pointers to objects of this process, which no other can follow: use numbers or fixed-size "
            "texts such as 'U20', or gomp.array(T, n) for references"
        )
    if kind.itemsize == 0:
        raise TypeError(f"dtype {kind} has no size: give one, as in {kind.kind}20")
    return kind


MAX_DIMS = 64 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 32
