"""Structs: one declaration gives size, offsets, pointer mask, numpy dtype, and the class whose instances are references.

A struct is a class declared with ``@gomp.struct``; its annotations are the fields, laid out as C would. A field is a number (``kinds``), a
reference to another object, or a part by value: ``gomp.Inline[T]``, a struct, and ``gomp.Array[T, n]``, a fixed array (``parts``). References may be
None; everything begins as zero. A struct may name itself or a struct that is declared later: names are looked up when they are first needed.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import numpy as np

from gomp.core.sched.status import OK
from gomp.runtime import type_table
from gomp.runtime.fields import Field, integer_place
from gomp.runtime.handles import Slot, kernels, table
from gomp.runtime.kinds import INT, Scalar
from gomp.runtime.parts import Embedded, Link, Part, allocation, evaluated, names_around, part, placed
from gomp.runtime.references import (
    Reference,
    ReferenceMeta,
    address_of,
    declare,
    is_struct,
    is_usable,
    key_of,
    shown_reference,
)
from gomp.runtime.slots import allocated, object_new

__all__ = ["new", "struct"]

T = TypeVar("T")


class StructInfo:
    """The layout of a struct, as ``info(cls)``."""

    def __init__(self, cls: type[Reference], fields: dict[str, Field], size: int, align: int) -> None:
        self.cls = cls
        self.qualname = cls.__qualname__  # cloudpickle keeps a class's plain name only
        self.fields = fields
        self.size, self.align = size, align
        self.reference_words = tuple(
            sorted(f.offset // 8 + word for f in fields.values() for word in f.part.reference_words)
        )
        self.allocation = allocation(size, self.reference_words)

    @property
    def key(self) -> int:
        return key_of(self.cls)

    @property
    def text(self) -> str:
        return f"struct {self.size} {[(f.name, f.offset, f.part.text) for f in self.fields.values()]}"

    @property
    def targets(self) -> list[Any]:
        return [f.target for f in self.fields.values() if not isinstance(f.part, Scalar)]

    @property
    def ptr_bytes(self) -> int:
        return self.allocation.scan_bytes

    @property
    def dtype(self) -> np.dtype[Any]:
        """A numpy dtype of this size without the references: a store through a view would have no barrier."""
        plain = [(f, dtype) for f in self.fields.values() if (dtype := _plain_dtype(f.part)) is not None]
        return np.dtype(
            {
                "names": [f.name for f, _ in plain],
                "formats": [dtype for _, dtype in plain],
                "offsets": [f.offset for f, _ in plain],
                "itemsize": self.size,
            }
        )


def _plain_dtype(p: Scalar | Link | Embedded) -> Any:
    """The numpy dtype of a part; None if it is a reference, or an array of them."""
    if isinstance(p, Scalar):
        return p.code
    return None if isinstance(p, Link) else info(p.cls).dtype if is_struct(p.cls) else p.cls.layout.dtype


def info(cls: Any) -> StructInfo:
    """The layout of a struct class."""
    return cls.__dict__["_info"]  # type: ignore[no-any-return]


# --- declaring a struct -----------------------------------------------------------------------------------------------


@dataclass_transform(eq_default=False, field_specifiers=())
def struct(cls: type[T]) -> type[T]:
    """Declare a struct: ``@gomp.struct`` on a class whose annotations are its fields."""
    if not isinstance(cls, type):
        raise TypeError(f"@gomp.struct declares a class, not {cls!r}")
    annotations: dict[str, object] = inspect.get_annotations(cls)
    if not annotations:
        raise TypeError(f"struct {cls.__name__} has no fields: annotate them, as in 'value: int'")
    if cls.__bases__ != (object,):
        raise TypeError(f"struct {cls.__name__} cannot have base classes: its layout is its own annotations")
    made = _make_class(cls, annotations)
    names = names_around(made, {**sys._getframe(1).f_locals, cls.__name__: made})
    parts = [part(evaluated(a, names), made, f"field {name} of {cls.__name__}") for name, a in annotations.items()]
    offsets, size, align = placed(parts, f"struct {cls.__name__}")
    fields = {name: Field(made, name, at, p) for name, at, p in zip(annotations, offsets, parts, strict=True)}
    for name, field in fields.items():
        setattr(made, name, field)
    made._info = StructInfo(made, fields, size, align)
    declare(made)
    return made  # type: ignore[no-any-return]


_NOT_ITS_OWN = {
    "__init__": "objects are made by gomp.new, which calls none: write a function, or a classmethod, that calls gomp.new",
    "__new__": "objects are made by gomp.new: write a function, or a classmethod, that calls it",
    "__del__": "it would be called for each reference, and not for the object: use gomp.add_cleanup",
    "__eq__": "two references are equal if they are the same object: give the comparison a name of its own",
    "__hash__": "two references are equal if they are the same object: give the hash a name of its own",
}


def _make_class(cls: type, annotations: dict[str, object]) -> Any:
    dropped = {"__dict__", "__weakref__", "__slots__"}
    namespace = {k: v for k, v in cls.__dict__.items() if k not in dropped}
    for name, why in _NOT_ITS_OWN.items():
        if name in namespace:
            raise TypeError(f"struct {cls.__name__} cannot have {name} (nor be a dataclass): {why}")
    for name in annotations:
        if name in namespace:
            raise TypeError(
                f"field {name} of {cls.__name__} has a default: fields begin as zero, give the value to gomp.new({cls.__name__}, {name}=...)"
            )
        if name.startswith("_"):
            raise TypeError(f"field {name} of {cls.__name__}: names that begin with an underscore are gomp's")
    namespace.setdefault("__repr__", _struct_repr)
    namespace |= {"__slots__": (), "__match_args__": tuple(annotations)}
    made = ReferenceMeta(cls.__name__, (Reference,), namespace)
    made.__qualname__ = cls.__qualname__
    return made


def _struct_repr(self: Any) -> str:
    if not is_usable(self):
        return Reference.__repr__(self)
    return f"{contents(self)} @{address_of(self):#x}"


def contents(ref: Any) -> str:
    """A struct's fields, with what it holds by value, and of what it refers to only texts: there may be no end to it."""
    fields = info(type(ref)).fields.values()
    return f"{type(ref).__name__}({', '.join(f'{f.name}={shown(f.part, getattr(ref, f.name))}' for f in fields)})"


def shown(p: Part, value: Any) -> str:
    """The value of a field or an element, in the repr of what holds it."""
    if isinstance(p, Embedded):
        return contents(value) if is_struct(type(value)) else str(value.shown())
    return shown_reference(value) if isinstance(value, Reference) else repr(value)


# --- making objects ---------------------------------------------------------------------------------------------------


class _Plan:
    """How objects of a struct are made: ``mask`` is 0 if no small one with references; ``words`` are the offsets of its int64s."""

    __slots__ = ("by_type", "layout", "mask", "setters", "size", "words")

    def __init__(self, layout: StructInfo) -> None:
        how, fields = layout.allocation, layout.fields
        self.layout = layout
        self.size, self.mask, self.by_type = how.size, how.mask, how.by_type
        self.setters = {name: (_first_setter(field), *integer_place(field)) for name, field in fields.items()}
        self.words = {name: field.offset for name, field in fields.items() if field.part is INT}


_plans: dict[Any, _Plan] = {}  # of each struct that ``new`` has met
_LOW, _HIGH = INT.low, INT.high


def new(cls: type[T], /, *values: object, **named: object) -> T:
    """A new object of the struct ``cls``: zero, but for the fields given, by position or by name."""
    # Small structs with references are what programs make most: no call or loop that can be saved, and an int64 goes along with the kernel's call.
    try:
        plan = _plans[cls]
    except (KeyError, TypeError):
        plan = _learn(cls)
    if values:
        named = bound(plan.layout, values, named)
    if not plan.mask:
        return _new_other(plan, named)  # type: ignore[no-any-return]
    offset = word = 0
    if named:
        words = plan.words
        for name in named:
            if name in words:
                value = named[name]
                if type(value) is int and _LOW <= value <= _HIGH:
                    offset, word = words[name], value
                    del named[name]
                    break
    ref: Any = object_new(cls)
    while True:
        try:
            ref._slot, table.free = table.free, table.free.next  # type: ignore[union-attr]
            break
        except AttributeError:  # there is none
            table.grow()
    taken = ref._slot
    ref._handle = taken.handle
    status = kernels.new_struct(taken.slot, plan.size, plan.mask, offset, word, 0)
    if status != OK:
        table.settle(status, kernels.new_struct, taken.slot, plan.size, plan.mask, offset, word)
    if named:
        _set_first(plan, ref, taken, named)
    return ref  # type: ignore[no-any-return]


def _learn(cls: Any) -> _Plan:
    if not is_struct(cls):
        raise TypeError(
            f"gomp.new makes structs, not {getattr(cls, '__name__', repr(cls))}: declare the class with @gomp.struct"
        )
    _plans[cls] = _Plan(info(cls))
    return _plans[cls]


def _set_first(plan: _Plan, ref: Any, taken: Slot, named: dict[str, Any]) -> None:
    """Set these fields of a new object; integers right here."""
    for name, value in named.items():
        try:
            set_field, cell, shift, bias = plan.setters[name]
        except KeyError:
            raise _no_field(plan.layout, name) from None
        if cell is None or type(value) is not int or taken.handle < table.first:
            set_field(ref, value)
            continue
        at = (table.words[taken.slot] + bias) >> shift
        try:
            cell[0][at] = value
        except ValueError:  # it is out of range
            set_field(ref, value)


def _new_other(plan: _Plan, named: dict[str, Any]) -> Any:
    cls = plan.layout.cls
    if plan.by_type:
        type_table.register(cls)
    ref = allocated(cls, kernels.new_object, plan.size, key_of(cls) if plan.by_type else 0)
    for name, value in named.items():
        if name not in plan.setters:
            raise _no_field(plan.layout, name)
        plan.setters[name][0](ref, value)
    return ref


def _first_setter(field: Field) -> Callable[[Any, Any], None]:
    """What sets a field of a new object, where every reference is None already."""
    setter: Any = field.fset
    if not isinstance(field.part, Link):
        return setter  # type: ignore[no-any-return]
    return lambda ref, value: None if value is None else setter(ref, value)


def bound(layout: StructInfo, values: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """The values of ``gomp.new`` by the fields' names. TypeError if they do not fit the struct."""
    name = layout.cls.__name__
    if len(values) > len(layout.fields):
        raise TypeError(f"{name} has {len(layout.fields)} fields, {len(values)} values were given")
    given = dict(zip(layout.fields, values, strict=False))
    if not named:
        return given
    for field, value in named.items():
        if field not in layout.fields:
            raise _no_field(layout, field)
        if field in given:
            raise TypeError(f"field {field} of {name} is given twice")
        given[field] = value
    return given


def _no_field(layout: StructInfo, name: str) -> TypeError:
    return TypeError(f"{layout.cls.__name__} has no field {name}; it has {', '.join(layout.fields)}")
