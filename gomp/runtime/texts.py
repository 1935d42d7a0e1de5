"""``gomp.bytes(b)`` and ``gomp.str(s)``: bytes and text in the shared heap, immutable.

An object is a header and then its bytes; text is UTF-8. The header of both begins with the number of bytes; that of a text says next how many
characters these are: if as many, then all of them are ASCII, and the character at an index is found at once.

``==`` compares what they hold, as for Python's own bytes and str, which they are equal to as well. (References to structs and arrays, which can
change, are equal if they are the same object.) In compiled code ``is`` tells whether two of them are the same object.
"""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Iterator
from typing import Any, ClassVar, TypeVar

from gomp.core.shm import layout as memory
from gomp.runtime import cells, mapping
from gomp.runtime.arrays import MANY_BYTES
from gomp.runtime.handles import kernels, table
from gomp.runtime.kinds import wrong_type
from gomp.runtime.references import (
    OpaqueLayout,
    Reference,
    address_of,
    is_usable,
    set_word_at,
    slot_of,
    word_at,
)
from gomp.runtime.slots import allocated

__all__ = ["Bytes", "Str", "bytes_", "str_"]

T = TypeVar("T", bound=Reference)
BYTES_HEADER, STR_HEADER = 8, 16
CHARACTERS = 8  # where a Str says how many characters it has
_SHOWN = 60


class _Text(Reference):
    __slots__ = ()
    is_text: ClassVar[bool] = True
    header: ClassVar[int]

    def _span(self) -> tuple[int, int]:
        """Where its bytes begin and end, from the beginning of the heap."""
        base = table.words[slot_of(self)] - memory.HEAP_BASE
        return base + self.header, base + self.header + cells.words[0][base >> 3]

    def _octets(self) -> memoryview[int]:
        """Its bytes, in the mapping: not to be kept."""
        lo, hi = self._span()
        return cells.octets[0][lo:hi]

    @property
    def nbytes(self) -> int:
        """How many bytes it has."""
        lo, hi = self._span()
        return hi - lo

    def view(self) -> memoryview[int]:
        """Its bytes without a copy, read-only. The view keeps the object; and after the runtime has ended, its memory."""
        lo, hi = self._span()
        if lo == hi:
            return memoryview(b"")
        buffer: Any = (ctypes.c_ubyte * (hi - lo)).from_address(memory.HEAP_BASE + lo)
        buffer.keeps = self
        mapping.watch(buffer)
        return memoryview(buffer).cast("B").toreadonly()

    def __buffer__(self, flags: int) -> memoryview[int]:  # memoryview(x), from Python 3.12
        return self.view()

    def __bytes__(self) -> bytes:
        return bytes(self._octets())

    def __copy__(self) -> Any:
        return self  # as of what else is immutable

    def _checked(self, index: Any, n: int) -> int:
        i = operator.index(index)
        if not 0 <= i < n:
            raise IndexError(f"index {i} of a {type(self).__name__} of {n}: indices count from 0")
        return i

    def shown(self) -> str:
        """What it holds, as a literal, if that is short."""
        raise NotImplementedError

    def __repr__(self) -> str:
        if not is_usable(self):
            return Reference.__repr__(self)
        return f"{type(self).__name__}({self.shown()}) @{address_of(self):#x}"


class Bytes(_Text):
    """A reference to bytes in the heap."""

    __slots__ = ()
    header = BYTES_HEADER
    made_by: ClassVar[str] = "gomp.bytes(...)"
    layout: ClassVar[OpaqueLayout] = OpaqueLayout("bytes")

    def __len__(self) -> int:
        return self.nbytes

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return bytes(self)[index]
        i = self._checked(index, len(self))
        return self._octets()[i]

    def __iter__(self) -> Iterator[int]:
        return iter(bytes(self))

    def __contains__(self, value: Any) -> bool:
        return value in bytes(self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Bytes):
            return self._octets() == other._octets()
        return self._octets() == other if isinstance(other, (bytes, bytearray, memoryview)) else NotImplemented

    def __hash__(self) -> int:
        return hash(bytes(self))

    def shown(self) -> str:
        return repr(bytes(self)) if len(self) <= _SHOWN else f"{bytes(self[:_SHOWN])!r}… {len(self)} bytes"


class Str(_Text):
    """A reference to text in the heap."""

    __slots__ = ()
    header = STR_HEADER
    made_by: ClassVar[str] = "gomp.str(...)"
    layout: ClassVar[OpaqueLayout] = OpaqueLayout("str")

    def __len__(self) -> int:
        return word_at(slot_of(self), CHARACTERS)

    def __str__(self) -> str:
        return str(self._octets(), "utf-8", "surrogatepass")

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __getitem__(self, index: Any) -> str:
        if isinstance(index, slice):
            return str(self)[index]
        i = self._checked(index, len(self))
        octets = self._octets()
        return chr(octets[i]) if len(octets) == len(self) else str(self)[i]

    def __iter__(self) -> Iterator[str]:
        return iter(str(self))

    def __contains__(self, value: Any) -> bool:
        return str(value) in str(self) if isinstance(value, (str, Str)) else False

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Str):
            return self._octets() == other._octets()
        return str(self) == other if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    def shown(self) -> str:
        return repr(str(self)) if len(self) <= _SHOWN else f"{self[:_SHOWN]!r}… {len(self)} characters"


def _new(cls: type[T], header: int, data: Any) -> T:
    if len(data) > MANY_BYTES:
        table.check_size(header + len(data), f"so long a {cls.__name__}")
    made: Any = allocated(cls, kernels.new_array, len(data), (header + len(data) + 7) & -8, 0)
    lo, hi = made._span()
    cells.octets[0][lo:hi] = data
    return made  # type: ignore[no-any-return]


def bytes_(data: Any, /) -> Bytes:
    """A copy of anything that has bytes, in the shared heap: ``gomp.bytes(b)``."""
    try:
        whole = memoryview(bytes(data) if isinstance(data, Bytes) else data)
    except TypeError:
        raise wrong_type(
            "gomp.bytes",
            "bytes, or what has a buffer of them",
            data,
            "encode a str, and make bytes() of what else there is",
        ) from None
    return _new(Bytes, BYTES_HEADER, whole.cast("B") if whole.c_contiguous and whole.nbytes else whole.tobytes())


def str_(text: Any, /) -> Str:
    """A copy of a text in the shared heap: ``gomp.str(s)``."""
    if not isinstance(text, (str, Str)):
        raise wrong_type("gomp.str", "a str", text, "decode bytes, and convert what else there is with str()")
    plain = str(text)
    made = _new(Str, STR_HEADER, plain.encode("utf-8", "surrogatepass"))
    set_word_at(slot_of(made), CHARACTERS, len(plain))
    return made
