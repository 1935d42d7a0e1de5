"""Arrays: ``Array[T]``, objects of the heap whose number of elements stands in their first word, and ``Array[T, n]``, parts of structs by value.

An element is a number of any kind, a reference to a struct, a text or another array, or a struct by value, ``Inline[T]``.
Indices count from 0. Reading or writing an element is what it is for a field, with the index checked first.
"""

from __future__ import annotations

import array as packed
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, overload

import numpy as np

from gomp.core.mutator.boundary import ARRAY_HEADER
from gomp.core.shm import layout as memory
from gomp.runtime import cells, type_table
from gomp.runtime.handles import kernels, table
from gomp.runtime.kinds import INT, Scalar, brief, scalar
from gomp.runtime.parts import (
    ArrayOf,
    ByValue,
    Later,
    Link,
    MapOf,
    Names,
    Part,
    check_size,
    evaluated,
    fixed_length,
    part,
)
from gomp.runtime.references import (
    Reference,
    ReferenceMeta,
    address_of,
    array_class,
    is_declared,
    is_usable,
    key_of,
    read_inside,
    read_reference,
    slot_of,
    stale,
    trait,
    word_at,
    write_reference,
)
from gomp.runtime.slots import allocated
from gomp.runtime.structs import shown

__all__ = ["Array", "array"]

MAX_ARRAY = 1 << 42
_SHOWN = 6
_CHUNK = 4096
MANY_BYTES = 1 << 20  # so many may be more than the heap has

T = TypeVar("T")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    N = TypeVarWithDefault("N", default=Any)
else:
    N = TypeVar("N")


class ArrayInfo:
    """The layout of an array class: ``n`` is 0 where the object itself says how many elements it has."""

    align: int

    def __init__(self, p: Part, n: int, name: str) -> None:
        self.part, self.n = p, n
        self.first = 0 if n else ARRAY_HEADER
        self.size = p.size * n
        self.align = p.align
        check_size(self.size, name)
        words = range(0, p.size * n // 8, max(p.size // 8, 1)) if p.reference_words else range(0)
        self.reference_words = tuple(at + word for at in words for word in p.reference_words)

    @property
    def text(self) -> str:
        return f"array {self.n} {self.part.text}"

    @property
    def targets(self) -> list[Any]:
        if isinstance(self.part, Scalar):
            return []
        return [self.part.target if isinstance(self.part, Link) else self.part.cls]

    @property
    def dtype(self) -> Any:
        """For views of structs: of a fixed array without references; else None."""
        if isinstance(self.part, Scalar):
            return np.dtype((self.part.code, (self.n,)))
        return None if isinstance(self.part, Link) else np.dtype((self.part.cls._info.dtype, (self.n,)))


class Array(Reference, Generic[T, N]):
    """A reference to an array: ``gomp.Array[T]`` and ``gomp.Array[T, n]`` are its classes."""

    __slots__ = ()
    elem: ClassVar[Any] = None
    length: ClassVar[int] = 0
    holds_links: ClassVar[bool] = False
    layout: ClassVar[ArrayInfo]
    _read: ClassVar[Any]
    _write: ClassVar[Any]

    if not TYPE_CHECKING:  # which knows what Generic makes of it

        def __class_getitem__(cls, key: Any) -> Any:
            elem, n = key if isinstance(key, tuple) else (key, 0)
            elem = evaluated(elem, Names())
            if n != 0 or isinstance(key, tuple):
                n = fixed_length(n, f"Array[{_name(elem)}, ...]")
            if isinstance(elem, (Later, ArrayOf, MapOf)) or (isinstance(elem, ReferenceMeta) and not is_declared(elem)):
                return ArrayOf(elem, n)
            return fixed_class(elem, n, None, f"Array[{_name(elem)}, {n}]") if n else _array_class(elem)

    def __len__(self) -> int:
        slot = slot_of(self)  # first: a reference of an ended runtime has no length
        return self.length or word_at(slot, 0)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: Any) -> Any:
        if index.__class__ is slice:
            return self._list(range(len(self))[index])
        return self._read(self, self._checked(index))

    def __setitem__(self, index: int, value: T | None) -> None:
        self._write(self, self._checked(index), value)

    def __iter__(self) -> Iterator[T]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: object) -> bool:
        return any(value in self[i : i + _CHUNK] for i in range(0, len(self), _CHUNK))

    def _checked(self, position: Any) -> int:
        n = len(self)
        try:
            index = operator.index(position)
        except TypeError:
            raise TypeError(
                f"an element of {type(self).__name__} has an int as its index, not {type(position).__name__}; several are set one by one"
            ) from None
        if not 0 <= index < n:
            raise IndexError(
                f"index {index} of an array of {n}: indices are 0 to {n - 1}"
                if n
                else f"index {index} of an empty array"
            )
        return index

    def _list(self, indices: range) -> list[Any]:
        kind = self.layout.part
        if isinstance(kind, Scalar) and indices.step == 1:
            first = (address_of(self) + self.layout.first - memory.HEAP_BASE) >> kind.shift
            values = cells.views[kind.code][0][first + indices.start : first + indices.stop].tolist()
            if len(values) != len(indices):  # another thread has ended the runtime
                raise stale(self)
            return values
        return [self._read(self, i) for i in indices]

    def _fill(self, values: tuple[Any, ...]) -> None:
        kind = self.layout.part
        plain = _packed(kind, values) if isinstance(kind, Scalar) else None
        if plain is None:
            for i, value in enumerate(values):
                self._write(self, i, value)
        else:
            first = (address_of(self) + self.layout.first - memory.HEAP_BASE) >> kind.shift  # type: ignore[union-attr]
            cells.views[kind.code][0][first : first + len(values)] = plain  # type: ignore[union-attr]

    def shown(self) -> str:
        """Its first elements, for people."""
        first = ", ".join(shown(self.layout.part, x) for x in self[:_SHOWN])
        return f"[{first}, … {len(self) - _SHOWN} more]" if len(self) > _SHOWN else f"[{first}]"

    def __repr__(self) -> str:
        if not is_usable(self):
            return Reference.__repr__(self)
        return f"{type(self).__name__}({self.shown()}) @{address_of(self):#x}"


def _packed(kind: Scalar, values: tuple[Any, ...]) -> Any:
    """The values as one block of memory; None if they have to be looked at one by one."""
    if kind.code in "?f" or not set(map(type, values)) <= ({int} if kind.is_integer else {int, float}):
        return None
    try:
        return memoryview(packed.array(kind.code, values))
    except (TypeError, OverflowError):
        return None


# --- elements ---------------------------------------------------------------------------------------------------------


def _element_access(p: Part, info: ArrayInfo, name: str) -> dict[str, Any]:
    """The functions of an array class that read and write an element whose index has been checked; of numbers, also those that check it."""

    def where() -> str:
        return f"an element of {name}"

    if isinstance(p, Scalar):
        return _number_access(p, info, where)
    first, size = info.first, p.size
    if isinstance(p, Link):

        def write_link(ref: Any, i: int, value: Any) -> None:
            write_reference(p.target, ref, first + 8 * i, value, where)

        return {
            "_read": staticmethod(lambda ref, i: read_reference(p.target, ref, first + 8 * i)),
            "_write": staticmethod(write_link),
        }

    def refuse(ref: Any, i: int, value: object) -> None:
        raise TypeError(f"{where()} is a {p.cls.__name__} by value: it cannot be replaced, set what is in it")

    return {
        "_read": staticmethod(lambda ref, i: read_inside(p.cls, ref, first + size * i)),
        "_write": staticmethod(refuse),
    }


def _number_access(kind: Scalar, info: ArrayInfo, where: Callable[[], str]) -> dict[str, Any]:
    cell, shift, n, first, count = cells.views[kind.code], kind.shift, info.n, info.first, cells.words
    is_int, low, high = kind.is_integer, kind.low, kind.high

    def read(ref: Any, i: int) -> Any:
        at = ((table.words[slot_of(ref)] + first - memory.HEAP_BASE) >> shift) + i
        return cell[0][at]

    def write(ref: Any, i: int, value: Any) -> None:
        number = kind.checked(value, where)
        at = ((table.words[slot_of(ref)] + first - memory.HEAP_BASE) >> shift) + i
        cell[0][at] = number

    def getitem(self: Any, index: Any) -> Any:
        slot = self._handle - table.first
        if slot >= 0 and type(index) is int:
            base = table.words[slot] - memory.HEAP_BASE
            if 0 <= index < (n or count[0][base >> 3]):
                at = ((base + first) >> shift) + index
                return cell[0][at]
        return Array.__getitem__(self, index)

    def setitem(self: Any, index: Any, value: Any) -> None:
        if type(index) is int:
            number = value if is_int and type(value) is int and low <= value <= high else kind.checked(value, where)
            slot = self._handle - table.first
            if slot >= 0:
                base = table.words[slot] - memory.HEAP_BASE
                if 0 <= index < (n or count[0][base >> 3]):
                    at = ((base + first) >> shift) + index
                    cell[0][at] = number
                    return
        Array.__setitem__(self, index, value)

    return {"_read": staticmethod(read), "_write": staticmethod(write), "__getitem__": getitem, "__setitem__": setitem}


# --- classes ----------------------------------------------------------------------------------------------------------

_classes: dict[tuple[Any, int], type[Array[Any]]] = {}


def _name(elem: Any) -> str:
    if isinstance(elem, ByValue):
        return f"Inline[{_name(elem.cls)}]"
    kind = scalar(elem)
    return kind.name if kind else str(getattr(elem, "__name__", getattr(elem, "name", elem)))


def _in_code(elem: Any) -> str:
    """What an element is called in a program."""
    kind = scalar(elem)
    return repr(kind) if kind else f"gomp.{_name(elem)}" if isinstance(elem, ByValue) else _name(elem)


def _make_class(elem: Any, p: Part, n: int) -> type[Array[Any]]:
    name = f"Array[{_name(elem)}, {n}]" if n else f"Array[{_name(elem)}]"
    info = ArrayInfo(p, n, name)
    made: Any = ReferenceMeta(
        name,
        (Array,),
        {
            "__slots__": (),
            "elem": elem,
            "length": n,
            "layout": info,
            "made_by": f"gomp.array({_in_code(elem)}, ...)",
            "holds_links": bool(p.reference_words) and n == 0,
            **_element_access(p, info, name),
        },
    )
    made.__module__ = Array.__module__
    return made  # type: ignore[no-any-return]


def _canonical(elem: Any) -> Any:
    """gomp.int64 is int."""
    return int if scalar(elem) is INT else elem


def _array_class(elem: Any) -> type[Array[Any]]:
    elem = _canonical(elem)
    if (elem, 0) not in _classes:
        _classes[elem, 0] = _make_class(elem, _element_part(elem), 0)
    return _classes[elem, 0]


def _element_part(elem: Any) -> Part:
    kind = scalar(elem)
    if kind is not None:
        return kind
    if isinstance(elem, ByValue):
        return part(elem, None, f"Array[{_name(elem)}]")
    if isinstance(elem, ReferenceMeta) and is_declared(elem) and not trait(elem, "length"):
        return Link(elem, None, f"Array[{_name(elem)}]")
    raise TypeError(
        f"an array holds numbers or references to a struct, array or text, or structs by value, not {_name(elem)}: "
        "use int, float, bool, gomp.int8 to gomp.float32, T or gomp.Inline[T]"
    )


def fixed_class(elem: Any, n: int, owner: Any, where: str) -> type[Array[Any]]:
    """``Array[elem, n]``; ``owner`` is the struct in whose annotation it stands, where the name of a later struct is looked up."""
    elem = _canonical(elem)
    if isinstance(elem, (Later, ArrayOf, MapOf)):
        return _make_class(elem, part(elem, owner, where), n)
    if (elem, n) not in _classes:
        _classes[elem, n] = _make_class(elem, part(elem, owner, where), n)
    return _classes[elem, n]


def rebuilt_class(elem: Any, n: int) -> Any:
    """``Array[elem]`` or ``Array[elem, n]`` as it comes from another process; a description of it while ``elem`` itself is still arriving."""
    whole = elem.cls if isinstance(elem, ByValue) else elem
    if isinstance(whole, ReferenceMeta) and not is_declared(whole):
        return ArrayOf(elem, n)
    return array_class(elem, n)


# --- making arrays ----------------------------------------------------------------------------------------------------


@overload
def array(elem: type[T], n: int | Iterable[T | None], /) -> Array[T]: ...
@overload
def array(elem: object, n: int | Iterable[Any], /) -> Array[Any]: ...
def array(elem: Any, n: int | Iterable[Any], /) -> Any:
    """A new array: of ``n`` elements, references all None, numbers all zero; or of the elements of an iterable."""
    cls = Array[elem]
    if isinstance(cls, ArrayOf):
        raise TypeError(f"gomp.array makes arrays of what is declared: {_name(elem)} is not")
    values: tuple[Any, ...] = ()
    if isinstance(n, Iterable):
        values = tuple(n)  # which nobody makes longer meanwhile
        n = len(values)
    try:
        if isinstance(n, bool):
            raise TypeError
        n = operator.index(n)
    except TypeError:
        raise TypeError(
            f"gomp.array({_name(elem)}, n) wants a number of elements or the elements, not {brief(n)}"
        ) from None
    if n < 0:
        raise ValueError(f"an array cannot have {brief(n)} elements")
    size = (ARRAY_HEADER + cls.layout.part.size * n + 7) & -8
    if size > MANY_BYTES:
        table.check_size(size, f"an array of {brief(n)} elements of {_name(elem)}")
    type_table.register(cls)
    made = allocated(cls, kernels.new_array, n, size, key_of(cls) if cls.holds_links else 0)
    if values:
        made._fill(values)
    return made
