"""Fields: what makes ``node.value`` read and write the object in the heap.

A field is a property whose two functions are made for it, with offset and kind bound in: numbers go straight through the mapping (``cells``),
references through a kernel. What is left of the protocol in each is one comparison, which tells the reference of an ended runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gomp.core.shm import layout
from gomp.runtime import cells
from gomp.runtime.handles import table
from gomp.runtime.kinds import Scalar
from gomp.runtime.parts import Embedded, Link, Part
from gomp.runtime.references import Reference, read_inside, read_reference, stale, write_reference

Getter = Callable[[Any], Any]
Setter = Callable[[Any, Any], None]


class Field(property):
    """A field of a struct: what it is (``part``) and where (``offset``)."""

    def __init__(self, owner: Any, name: str, offset: int, part: Part) -> None:
        self.__setstate__((owner, name, offset, part))

    def __getstate__(self) -> tuple[Any, ...]:
        return self.owner, self.name, self.offset, self.part

    def __setstate__(self, state: tuple[Any, ...]) -> None:  # called for what came by cloudpickle
        self.owner, self.name, self.offset, self.part = state
        super().__init__(*_functions(self.part, self.offset, self.where), self._refuse_deletion)

    def where(self) -> str:
        """Begins a message."""
        return f"field {self.name} of {self.owner.__name__}"

    @property
    def target(self) -> type[Reference]:
        """The class that a reference field refers to, or that of the part which it holds by value."""
        if isinstance(self.part, Scalar):
            raise TypeError(f"{self.where()} holds {self.part.wants}, not a reference")
        return self.part.target if isinstance(self.part, Link) else self.part.cls  # type: ignore[no-any-return]

    def _refuse_deletion(self, ref: Any) -> None:
        raise AttributeError(f"{self.where()} is in every {self.owner.__name__}: it can be set, and not be deleted")

    def __repr__(self) -> str:
        return f"<{self.where()}>"


def _functions(part: Part, offset: int, where: Callable[[], str]) -> tuple[Getter, Setter]:
    if isinstance(part, Scalar):
        return _number_getter(part, offset, where), _number_setter(part, offset, where)
    if isinstance(part, Link):
        return _link_getter(part, offset, where), _link_setter(part, offset, where)
    return _part_getter(part, offset, where), _part_refuser(part, where)


def _number_getter(kind: Scalar, offset: int, where: Callable[[], str]) -> Getter:
    cell, shift, bias = cells.views[kind.code], kind.shift, offset - layout.HEAP_BASE

    def get(ref: Any) -> Any:
        slot = ref._handle - table.first
        if slot < 0:
            raise stale(ref, where)
        at = (table.words[slot] + bias) >> shift
        return cell[0][at]

    return get


def _number_setter(kind: Scalar, offset: int, where: Callable[[], str]) -> Setter:
    cell, shift, bias = cells.views[kind.code], kind.shift, offset - layout.HEAP_BASE

    def set_integer(ref: Any, value: Any) -> None:
        set_quickly(ref, value if type(value) is int else kind.checked(value, where))

    def set_quickly(
        ref: Any, value: Any
    ) -> None:  # which is of a type of Python's own: nothing of the user's runs in here
        slot = ref._handle - table.first
        if slot < 0:
            raise stale(ref, where)
        at = (table.words[slot] + bias) >> shift
        try:
            cell[0][at] = value
        except ValueError:  # it is out of range
            kind.checked(value, where)

    def set_checked(ref: Any, value: Any) -> None:
        set_quickly(ref, kind.checked(value, where))

    def set_float(ref: Any, value: Any) -> None:
        set_quickly(ref, value if type(value) is float else kind.checked(value, where))

    # A memoryview takes anything for a bool, for a float whatever has __float__, and makes infinity of what is too large for a float32.
    return set_checked if kind.code in "?f" else set_float if kind.code == "d" else set_integer


def integer_place(field: Field) -> tuple[Any, int, int]:
    """Of a field that holds an integer, where it is: ``cell[0][(address + bias) >> shift]``. The cell is None if it is another field."""
    kind = field.part
    if isinstance(kind, Scalar) and kind.is_integer:
        return cells.views[kind.code], kind.shift, field.offset - layout.HEAP_BASE
    return None, 0, 0


def _link_getter(link: Link, offset: int, where: Callable[[], str]) -> Getter:
    target: Any = None

    def get(ref: Any) -> Any:
        nonlocal target
        if target is None:
            target = link.target
        if ref._handle < table.first:
            raise stale(ref, where)
        return read_reference(target, ref, offset)

    return get


def _link_setter(link: Link, offset: int, where: Callable[[], str]) -> Setter:
    target: Any = None

    def set_link(ref: Any, value: Any) -> None:
        nonlocal target
        if target is None:
            target = link.target
        if ref._handle < table.first:
            raise stale(ref, where)
        write_reference(target, ref, offset, value, where)

    return set_link


def _part_getter(part: Embedded, offset: int, where: Callable[[], str]) -> Getter:
    def get(ref: Any) -> Any:
        if ref._handle < table.first:
            raise stale(ref, where)
        return read_inside(part.cls, ref, offset)

    return get


def _part_refuser(part: Embedded, where: Callable[[], str]) -> Setter:
    def refuse(ref: Any, value: object) -> None:
        raise TypeError(
            f"{where()} is a {part.cls.__name__} by value, a part of the object: it cannot be replaced, set what is in it"
        )

    return refuse
