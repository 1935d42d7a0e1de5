"""Struct and array types: one declaration gives size, offsets, pointer mask, numpy dtype, and the class whose instances are references.

Nouns
-----
struct     a class declared with ``@gomp.struct``; its annotations are the fields, laid out as C would.
array      ``gomp.array(T, n)``: an 8-byte length, then ``n`` elements of 8 bytes: references to a struct, ints or floats.
reference  in Python an instance of the class, which holds a handle and nothing else; in compiled code an address (``reftypes``).
key        a 62-bit hash of a type's name and layout, the same in every process: how processes agree on a type.

A field is a reference, an int (int64), a float or a bool. A reference field may be None; everything else begins as zero. A struct may name itself
or a struct that is declared later: names are looked up when they are first needed.

Two references are equal if they are the same object. A reference cannot be pickled: share an object through ``gomp.globals``.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
import types as python_types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar, dataclass_transform

import numpy as np

from gomp.core.heap.sizeclass import MAX_INLINE, MAX_SMALL_REQUEST, SPAN_ELEM_SIZE, span_class_for
from gomp.core.mutator import boundary
from gomp.core.mutator.boundary import NULL
from gomp.core.mutator.types import find_type, publish_type, reserve_mask, set_mask_word
from gomp.core.shm.atomics import signed
from gomp.runtime import handles
from gomp.runtime.handles import check_table, kernels, table

__all__ = ["Array", "Reference", "array", "new", "struct"]

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
MAX_ARRAY = 1 << 42
T = TypeVar("T")


class Kind(NamedTuple):
    """What a field may be: the size is its alignment too, the format is numpy's."""

    name: str
    size: int
    format: str


REF = Kind("reference", 8, "i8")
INT = Kind("int", 8, "i8")
FLOAT = Kind("float", 8, "f8")
BOOL = Kind("bool", 1, "?")
_SCALARS: dict[object, Kind] = {int: INT, float: FLOAT, bool: BOOL}


# --- layouts ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Allocation:
    """How ``new`` makes an object: all that malloc's fast paths want to know, constant per type."""

    size: int
    span_class: int
    elem_size: int  # of the slot
    mask: int  # bit i: word i is a reference; only for objects of at most 512 bytes
    scan_bytes: int
    by_type: bool  # the object carries its type: the type table must know it


def _allocation(size: int, reference_words: list[int]) -> Allocation:
    span_class = span_class_for(size, bool(reference_words))
    scan_bytes = 8 * (reference_words[-1] + 1) if reference_words else 0
    by_type = bool(reference_words) and size > MAX_INLINE
    mask = 0 if by_type else signed(sum(1 << i for i in reference_words))
    return Allocation(size, span_class, SPAN_ELEM_SIZE[span_class], mask, scan_bytes, by_type)


@dataclass(frozen=True)
class _ArrayOf:
    """``Array[elem]`` as an annotation, where the class itself cannot be yet: ``elem`` is being declared, or is on its way to a process."""

    elem: Any

    def __or__(self, none: None) -> _ArrayOf:
        return self

    def resolve(self) -> Any:
        return Array.__class_getitem__(self.elem)


class Field:
    """One field; as an attribute of the class, what makes ``node.value`` read and write the object in the heap."""

    __slots__ = ("_annotation", "_target", "kind", "name", "offset", "owner")

    def __init__(self, owner: type[Reference], name: str, offset: int, kind: Kind, annotation: object) -> None:
        self.owner, self.name, self.offset, self.kind = owner, name, offset, kind
        self._annotation = annotation
        self._target: type[Reference] | None = None

    @property
    def target(self) -> type[Reference]:
        """The class that a reference field refers to."""
        if self._target is None:
            found = self._annotation
            if isinstance(found, str):
                found = _class_named(found, self.owner)
            elif hasattr(found, "resolve"):
                found = found.resolve()
            if not (isinstance(found, type) and issubclass(found, Reference)):
                raise TypeError(
                    f"field {self.name} of {self.owner.__name__}: no struct is called {self._annotation!r}; declare it with @gomp.struct"
                )
            self._target = found
        return self._target

    def __get__(self, ref: Reference | None, owner: type) -> Any:
        if ref is None:
            return self
        return _READERS[self.kind](self, ref)

    def __set__(self, ref: Reference, value: object) -> None:
        _WRITERS[self.kind](self, ref, value)

    def __getstate__(self) -> tuple[Any, ...]:
        """For cloudpickle, which sends the structs of a script to other processes: an array class is sent as its element."""
        annotation = self._annotation
        if isinstance(annotation, ReferenceMeta) and issubclass(annotation, Array):
            annotation = _ArrayOf(annotation.elem)
        elif hasattr(annotation, "sent_as"):  # a class that is made from another one, as a map's
            annotation = annotation.sent_as()
        return self.owner, self.name, self.offset, self.kind, annotation

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.owner, self.name, self.offset, self.kind, self._annotation = state
        self._target = None

    def reject(self, value: object, wants: str) -> TypeError:
        got = "None" if value is None else f"{type(value).__name__} {value!r}"
        return TypeError(f"field {self.name} of {self.owner.__name__} holds {wants}, not {got}")


class StructInfo:
    """The layout of a struct, as ``info(cls)``."""

    def __init__(self, cls: type[Reference], fields: list[Field], size: int) -> None:
        self.cls = cls
        self.fields = {f.name: f for f in fields}
        self.size = size
        self.reference_words = [f.offset // 8 for f in fields if f.kind == REF]
        self.allocation = _allocation(size, self.reference_words)
        described = [(f.name, f.kind.name, f.offset) for f in fields]
        self.key = _hash62(f"struct {cls.__module__}.{cls.__qualname__} {size} {described}")

    @property
    def ptr_bytes(self) -> int:
        return self.allocation.scan_bytes

    @property
    def dtype(self) -> np.dtype[Any]:
        """A numpy dtype of this size without the reference fields: a store through a view would have no barrier."""
        plain = [f for f in self.fields.values() if f.kind != REF]
        names, formats, offsets = ([getattr(f, a) for f in plain] for a in ("name", "kind", "offset"))
        return np.dtype(
            {"names": names, "formats": [k.format for k in formats], "offsets": offsets, "itemsize": self.size}
        )

    def mask_words(self) -> list[int]:
        words = [0] * (-(-self.ptr_bytes // 512))
        for i in self.reference_words:
            words[i // 64] |= 1 << (i % 64)
        return [signed(w) for w in words]


def info(cls: type[Reference]) -> StructInfo:
    """The layout of a struct class."""
    return cls.__dict__["_info"]  # type: ignore[no-any-return]


def is_struct(value: object) -> bool:
    return isinstance(value, ReferenceMeta) and "_info" in value.__dict__


def is_reference_class(value: object) -> bool:
    """Whether this is a struct or an array class."""
    return isinstance(value, ReferenceMeta)


def _hash62(text: str) -> int:
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 2) or 1


# --- references -------------------------------------------------------------------------------------------------------


_made: list[Any] = []  # every struct and array class, however it came into this process


class ReferenceMeta(type):
    """The class of struct and array classes: they are made by the heap, not called."""

    def __init__(cls, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _made.append(cls)

    def __call__(cls, *args: object, **kwargs: object) -> Any:
        how = (
            f"gomp.array({cls.__name__[6:-1]}, n)"
            if cls.__name__.startswith("Array[")
            else f"gomp.new({cls.__name__}, ...)"
        )
        raise TypeError(f"objects of the shared heap are made with {how}")


class Reference(metaclass=ReferenceMeta):
    """A reference from Python to an object of the shared heap; while it exists the object does."""

    __slots__ = ("_handle",)
    _handle: int

    def __del__(
        self, release: Callable[[int], None] = table.release
    ) -> None:  # bound: the module may be gone when the interpreter ends
        release(self._handle)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reference):
            return NotImplemented
        return bool(kernels.is_same_object(table.slot_of(self._handle), table.slot_of(other._handle)))

    def __hash__(self) -> int:
        return hash(address_of(self))

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} @{address_of(self):#x}>"
            if table.is_open
            else f"<{type(self).__name__} of an ended runtime>"
        )

    def __reduce__(self) -> Any:
        raise TypeError(
            f"a reference to a {type(self).__name__} is only valid in this process: share the object with gomp.globals[name] = reference"
        )


def reference(cls: type[T], slot: int) -> T:
    """The reference that owns a filled slot."""
    ref = object.__new__(cls)
    ref._handle = table.first + slot  # type: ignore[attr-defined]
    return ref


def slot_of(ref: Reference) -> int:
    return table.slot_of(ref._handle)


def address_of(ref: Reference) -> int:
    """Where the object is, as a number that keeps nothing alive."""
    addr: int = kernels.handle_addr(slot_of(ref))
    return addr


def read_reference(cls: type[Reference], ref: Reference, offset: int) -> Any:
    source = slot_of(ref)
    into = table.take()
    if table.call(kernels.read_reference, source, offset, into) == NULL:
        table.drop(into)
        return None
    return reference(cls, into)


def write_reference(ref: Reference, offset: int, value: Reference | None) -> None:
    source = boundary.NO_SLOT if value is None else slot_of(value)
    table.call(kernels.write_reference, slot_of(ref), offset, source)


# --- fields from Python -----------------------------------------------------------------------------------------------


def _get_ref(field: Field, ref: Reference) -> Any:
    return read_reference(field.target, ref, field.offset)


def _get_int(field: Field, ref: Reference) -> int:
    return kernels.read_int(table.slot_of(ref._handle), field.offset)  # type: ignore[no-any-return]


def _get_float(field: Field, ref: Reference) -> float:
    return kernels.read_float(table.slot_of(ref._handle), field.offset)  # type: ignore[no-any-return]


def _get_bool(field: Field, ref: Reference) -> bool:
    return bool(kernels.read_bool(table.slot_of(ref._handle), field.offset))


def _set_ref(field: Field, ref: Reference, value: object) -> None:
    write_reference(ref, field.offset, _as_reference(field.target, value, field.reject))


def _set_int(field: Field, ref: Reference, value: object) -> None:
    number = _as_int(value, field.reject, f"field {field.name} of {field.owner.__name__}")
    table.call(kernels.write_int, slot_of(ref), field.offset, number)


def _set_float(field: Field, ref: Reference, value: object) -> None:
    table.call(kernels.write_float, slot_of(ref), field.offset, _as_float(value, field.reject))  # type: ignore[arg-type]


def _set_bool(field: Field, ref: Reference, value: object) -> None:
    if not isinstance(value, (bool, np.bool_)):
        raise field.reject(value, "a bool")
    table.call(kernels.write_bool, slot_of(ref), field.offset, int(value))


_READERS: dict[Kind, Callable[[Field, Reference], Any]] = {
    REF: _get_ref,
    INT: _get_int,
    FLOAT: _get_float,
    BOOL: _get_bool,
}
_WRITERS: dict[Kind, Callable[[Field, Reference, object], None]] = {
    REF: _set_ref,
    INT: _set_int,
    FLOAT: _set_float,
    BOOL: _set_bool,
}
Reject = Callable[[object, str], TypeError]


def _as_reference(cls: type[Reference], value: object, reject: Reject) -> Reference | None:
    if value is None or type(value) is cls:
        return value
    raise reject(value, f"a {cls.__name__} or None")


def _as_int(value: object, reject: Reject, what: str) -> int:
    if not isinstance(value, (int, np.integer, np.bool_)):
        raise reject(value, "an int")
    if not INT64_MIN <= value <= INT64_MAX:
        raise OverflowError(f"{what} is an int64; {value} does not fit")
    return int(value)


def _as_float(value: object, reject: Reject) -> float:
    if not isinstance(value, (float, int, np.floating, np.integer)):
        raise reject(value, "a float")
    return float(value)


# --- declaring a struct -----------------------------------------------------------------------------------------------

_declared: dict[int, type[Reference]] = {}
_by_name: dict[tuple[str, str], type[Reference]] = {}


@dataclass_transform(eq_default=False)
def struct(cls: type[T]) -> type[T]:
    """Declare a struct: ``@gomp.struct`` on a class whose annotations are its fields."""
    annotations: dict[str, object] = inspect.get_annotations(cls)
    if not annotations:
        raise TypeError(f"struct {cls.__name__} has no fields: annotate them, as in 'value: int'")
    if cls.__bases__ != (object,):
        raise TypeError(f"struct {cls.__name__} cannot have base classes: its layout is its own annotations")
    made = _make_class(cls, annotations)
    scope = {**sys._getframe(1).f_locals, cls.__name__: made}
    fields, end = [], 0
    for name, annotation in annotations.items():
        field = _make_field(made, name, annotation, end, scope)
        end = field.offset + field.kind.size
        fields.append(field)
        setattr(made, name, field)
    align = max(f.kind.size for f in fields)
    made._info = StructInfo(made, fields, -(-end // align) * align)
    _declared[info(made).key] = made
    _by_name[made.__module__, made.__qualname__] = made
    return made  # type: ignore[no-any-return]


def _make_class(cls: type, annotations: dict[str, object]) -> Any:
    dropped = {"__dict__", "__weakref__", "__slots__"}
    namespace = {k: v for k, v in cls.__dict__.items() if k not in dropped}
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


def _make_field(owner: type[Reference], name: str, annotation: object, end: int, scope: dict[str, object]) -> Field:
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, vars(sys.modules[owner.__module__]), scope)
        except NameError:  # a struct that is declared later
            annotation = str(annotation).split("|")[0].strip()
    annotation = _without_none(annotation)
    kind = REF if isinstance(annotation, (str, ReferenceMeta, _ArrayOf)) else _SCALARS.get(annotation)
    if kind is None:
        shown = getattr(annotation, "__name__", annotation)
        raise TypeError(
            f"field {name} of {owner.__name__} cannot be {shown}: use int, float, bool, a struct or gomp.Array[...]"
        )
    return Field(owner, name, -(-end // kind.size) * kind.size, kind, annotation)


def _without_none(annotation: object) -> object:
    """``Node | None`` is ``Node``: every reference may be None."""
    parts = getattr(annotation, "__args__", ())
    if isinstance(annotation, python_types.UnionType) or "Optional" in repr(annotation) or "Union" in repr(annotation):
        rest = [p for p in parts if p is not type(None)]
        if len(rest) == 1:
            only = rest[0]
            return getattr(only, "__forward_arg__", only)
    return annotation


def _class_named(name: str, owner: type[Reference]) -> object:
    """The struct called ``name`` where ``owner`` was declared: beside it, in an enclosing function, or in its module."""
    scope = owner.__qualname__
    while "." in scope:
        scope = scope.rpartition(".")[0]
        found = _by_name.get((owner.__module__, f"{scope}.{name}"))
        if found is not None:
            return found
    module = vars(sys.modules[owner.__module__])
    try:
        return eval(name, module)
    except (NameError, AttributeError):
        return _by_name.get((owner.__module__, name))


def _struct_repr(self: Any) -> str:
    if not table.is_open:
        return Reference.__repr__(self)
    parts = []
    for name, field in info(type(self)).fields.items():
        value = getattr(self, name)
        parts.append(f"{name}={'…' if isinstance(value, Reference) else repr(value)}")
        del value, field
    return f"{type(self).__name__}({', '.join(parts)}) @{address_of(self):#x}"


def class_of_key(key: int) -> type[Reference]:
    """The class that this process declared for a type; TypeError if it has not."""
    found = _declared.get(key)
    if found is None:  # an array or map of a struct that is declared here, or a struct that came by cloudpickle
        from gomp.runtime.hashmap import declare_maps_of

        for cls in list(filter(is_struct, _made)):
            _declared.setdefault(info(cls).key, cls)
            _array_class(cls)
            declare_maps_of(cls)
        found = _declared.get(key)
    if found is None:
        raise TypeError(
            "an object of a struct that this process has not declared: import the module that declares it first"
        )
    return found


# --- arrays -----------------------------------------------------------------------------------------------------------


class Array(Reference):
    """A reference to an array: ``gomp.Array[T]``, where T is a struct, int or float, is its class. Indices count from 0."""

    __slots__ = ()
    elem: ClassVar[Any] = None
    key: ClassVar[int] = 0

    def __class_getitem__(cls, elem: Any) -> Any:
        if isinstance(elem, ReferenceMeta) and not issubclass(elem, Array) and not is_struct(elem):
            return _ArrayOf(elem)
        if not (is_struct(elem) or elem is int or elem is float):
            raise TypeError(f"an array holds a struct, int or float, not {getattr(elem, '__name__', elem)}")
        return _array_class(elem)

    def __len__(self) -> int:
        return kernels.read_int(table.slot_of(self._handle), 0)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Any:
        offset = self._offset(index)
        if self.elem is int:
            return kernels.read_int(table.slot_of(self._handle), offset)
        if self.elem is float:
            return kernels.read_float(table.slot_of(self._handle), offset)
        return read_reference(self.elem, self, offset)

    def __setitem__(self, index: int, value: object) -> None:
        offset = self._offset(index)
        if self.elem is int:
            number = _as_int(value, self._reject, f"an element of {type(self).__name__}")
            table.call(kernels.write_int, slot_of(self), offset, number)
        elif self.elem is float:
            table.call(kernels.write_float, slot_of(self), offset, _as_float(value, self._reject))  # type: ignore[arg-type]
        else:
            write_reference(self, offset, _as_reference(self.elem, value, self._reject))

    def _offset(self, index: int) -> int:
        n = len(self)
        if not 0 <= index < n:
            raise IndexError(
                f"index {index} of an array of {n}: indices are 0 to {n - 1}"
                if n
                else f"index {index} of an empty array"
            )
        return boundary.ARRAY_HEADER + 8 * int(index)

    def _reject(self, value: object, wants: str) -> TypeError:
        return TypeError(f"{type(self).__name__} holds {wants}, not {type(value).__name__}")

    def __repr__(self) -> str:
        if not table.is_open:
            return Reference.__repr__(self)
        return f"<{type(self).__name__} of {len(self)} @{address_of(self):#x}>"


@functools.cache
def _array_class(elem: Any) -> type[Array]:
    described = f"struct {info(elem).key}" if is_struct(elem) else elem.__name__
    key = _hash62(f"array of {described}")
    made: Any = ReferenceMeta(f"Array[{elem.__name__}]", (Array,), {"__slots__": (), "elem": elem, "key": key})
    made.__module__ = Array.__module__
    _declared[key] = made
    return made  # type: ignore[no-any-return]


_array_class(int)
_array_class(float)


def holds_references(cls: type[Array]) -> bool:
    return cls.elem is not int and cls.elem is not float


def key_of(cls: Any) -> int:
    """The key of a struct or array class."""
    return cls.key if issubclass(cls, Array) else info(cls).key


# --- the type table ---------------------------------------------------------------------------------------------------

_registered: set[int] = set()
also_registered: list[Callable[[], None]] = []  # what makes types known that have no class: called once a runtime
handles.on_open(_registered.clear)


def register(cls: Any) -> None:
    """Make sure that the runtime's type table has ``cls``, if its objects carry their type. Before any is made, once a runtime."""
    key = key_of(cls)
    if key in _registered:
        return
    if not _registered:
        for register_more in also_registered:
            register_more()
    if issubclass(cls, Array):
        if holds_references(cls):
            _publish(key, 8, 8, 8, [1], cls)
    elif info(cls).allocation.by_type:
        _publish(key, info(cls).size, info(cls).ptr_bytes, 0, info(cls).mask_words(), cls)
    _registered.add(key)


def _publish(key: int, size: int, ptr_bytes: int, elem_size: int, words: list[int], cls: type) -> None:
    if find_type(key):
        return
    what = f"the type {cls.__name__} in the type table"
    mask = check_table(table.call(reserve_mask, len(words)), what)
    for i, word in enumerate(words):
        set_mask_word(mask, i, word)
    check_table(table.call(publish_type, key, size, ptr_bytes, elem_size, mask), what)


# --- making objects ---------------------------------------------------------------------------------------------------


def new(cls: type[T], /, *values: object, **named: object) -> T:
    """A new object of the struct ``cls``: zero, but for the fields given, by position or by name."""
    layout = _require_struct(cls)
    given = _bind(layout, values, named)
    ref = _allocate(layout)
    for field, value in given:
        field.__set__(ref, value)
    return ref  # type: ignore[no-any-return]


def _require_struct(cls: object) -> StructInfo:
    if not is_struct(cls):
        raise TypeError(
            f"gomp.new makes structs, not {getattr(cls, '__name__', repr(cls))}: declare the class with @gomp.struct"
        )
    return info(cls)  # type: ignore[arg-type]


def _bind(layout: StructInfo, values: tuple[object, ...], named: dict[str, object]) -> list[tuple[Field, object]]:
    name = layout.cls.__name__
    if len(values) > len(layout.fields):
        raise TypeError(f"{name} has {len(layout.fields)} fields, {len(values)} values were given")
    given = dict(zip(layout.fields, values, strict=False))
    for field, value in named.items():
        if field not in layout.fields:
            raise TypeError(f"{name} has no field {field}; it has {', '.join(layout.fields)}")
        if field in given:
            raise TypeError(f"field {field} of {name} is given twice")
        given[field] = value
    return [(layout.fields[field], value) for field, value in given.items()]


def _allocate(layout: StructInfo) -> Any:
    how = layout.allocation
    if how.by_type:
        register(layout.cls)
    slot = table.take()
    if how.mask:
        table.allocate(kernels.new_struct, slot, how.span_class, how.elem_size, how.mask, how.scan_bytes)
    else:
        table.allocate(kernels.new_object, slot, how.size, layout.key if how.by_type else 0)
    return reference(layout.cls, slot)


def array(elem: Any, n: int, /) -> Any:
    """A new array of ``n`` elements: references to the struct ``elem``, all None, or ints or floats, all zero."""
    cls = Array.__class_getitem__(elem)
    check_length(n)
    register(cls)
    slot = table.take()
    table.allocate(kernels.new_array, slot, int(n), cls.key if holds_references(cls) else 0)
    return reference(cls, slot)


def check_length(n: int) -> None:
    if n < 0:
        raise ValueError(f"an array cannot have {n} elements")
    if n > MAX_ARRAY:
        raise MemoryError(f"an array of {n} elements is larger than any heap")


def is_small(how: Allocation) -> bool:
    return how.size <= MAX_SMALL_REQUEST
