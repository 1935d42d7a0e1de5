"""What a field or an element may be, and where it lies: the layout that C would choose, and which words are references.

Scalar     a number of some width (``kinds``).
Link       a reference to another object, or None: 8 bytes.
Inline     a struct or a fixed array by value, a part of the object that it stands in.

Each has a size, an alignment and the words, counted from its beginning, that hold references. An annotation is a *description* until it is known
which struct's field it is: a name may belong to a struct that is declared later, and is looked up when it is first needed.
"""

from __future__ import annotations

import sys
import types as python_types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar, get_args, get_origin

import numpy as np

from gomp.core.heap.sizeclass import MAX_INLINE, SPAN_ELEM_SIZE, span_class_for
from gomp.core.shm.atomics import signed
from gomp.runtime import references
from gomp.runtime.kinds import SCALARS, Scalar, scalar
from gomp.runtime.references import ReferenceMeta, trait

MAX_STRUCT = 1 << 20
T = TypeVar("T")


# --- descriptions -----------------------------------------------------------------------------------------------------


class _Described:
    """An annotation that names no class yet. ``X | None`` is X, as every reference may be None."""

    def __or__(self, none: None) -> _Described:
        return self


@dataclass(frozen=True)
class Later(_Described):
    """The name of a struct that is declared later."""

    name: str


@dataclass(frozen=True)
class ArrayOf(_Described):
    """``Array[elem]``, or ``Array[elem, n]`` if ``n`` is not 0."""

    elem: Any
    n: int = 0


@dataclass(frozen=True)
class MapOf(_Described):
    """``Map[elem]``; ``kind`` says of which keys."""

    elem: Any
    kind: int


@dataclass(frozen=True)
class ByValue(_Described):
    """``Inline[struct]``."""

    cls: Any


if TYPE_CHECKING:
    Inline: TypeAlias = Annotated[T, "by value"]
else:

    class _InlineMeta(type):
        """A class of its own, by which compiled code knows it."""

        def __getitem__(cls, struct: object) -> ByValue:
            return ByValue(struct)

    class Inline(metaclass=_InlineMeta):
        """``gomp.Inline[T]``: a struct by value, as the annotation of a field or the element of an array."""


class Names(Mapping[str, Any]):
    """What the names in an annotation mean: a name that is not known yet is that of a struct declared later."""

    def __init__(self, *scopes: Mapping[str, Any]) -> None:
        self._scopes = scopes

    def __getitem__(self, name: str) -> Any:
        return next((scope[name] for scope in self._scopes if name in scope), Later(name))

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def evaluated(annotation: object, names: Names) -> object:
    """An annotation, which may be text, without what says that it may be None, if it may."""
    if isinstance(annotation, str):
        annotation = eval(annotation, {}, names)
        if isinstance(annotation, str):  # quotes within quotes
            return evaluated(annotation, names)
    if isinstance(annotation, python_types.UnionType) or "Union" in str(get_origin(annotation)):
        rest = [x for x in get_args(annotation) if x is not type(None)]
        if len(rest) == 1:
            only = rest[0]
            only = evaluated(getattr(only, "__forward_arg__", only), names)
            return annotation if scalar(only) is not None or isinstance(only, ByValue) else only
    return annotation


# --- parts ------------------------------------------------------------------------------------------------------------


class Link:
    """A reference. ``target`` is the class that it refers to, looked up where ``owner`` was declared."""

    size = align = 8
    reference_words: tuple[int, ...] = (0,)

    def __init__(self, description: object, owner: Any, where: str) -> None:
        self.description, self.owner, self.where = description, owner, where
        self._target: Any = None

    @property
    def target(self) -> Any:
        if self._target is None:
            found = self._found(self.description)
            if not isinstance(found, ReferenceMeta):
                name = getattr(self.description, "name", self.description)
                raise TypeError(f"{self.where}: no struct is called {name!r}; declare it with @gomp.struct")
            self._target = found
        return self._target

    def _found(self, described: Any) -> Any:
        """The class that is described; None if there is none."""
        if isinstance(described, Later):
            return references.class_named(described.name, self.owner)
        if isinstance(described, ArrayOf):
            elem = self._found(described.elem)
            return None if elem is None else references.array_class(elem)
        if isinstance(described, MapOf):
            elem = self._found(described.elem)
            return None if elem is None else references.map_class(elem, described.kind)
        return described

    @property
    def text(self) -> str:
        """For the key: the target's own layout is told apart by its own text."""
        return f"-> {references.name_of(self.target)}"

    def __getstate__(self) -> tuple[Any, ...]:
        """For cloudpickle, which sends the structs of a script to other processes: there nobody knows their names."""
        try:
            description = self.target
        except TypeError:  # not declared yet
            description = self.description
        return _portable(description), self.owner, self.where

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.description, self.owner, self.where = state
        self._target = None


class Embedded:
    """A part by value: ``cls`` is the class of references to it."""

    def __init__(self, cls: Any, owner: Any, where: str) -> None:
        layout = references.layout_of(cls)
        self.owner, self.where = owner, where
        self.size, self.align, self.reference_words = layout.size, layout.align, layout.reference_words
        self._cls = cls

    @property
    def cls(self) -> Any:
        if isinstance(self._cls, ArrayOf):  # it came from another process
            self._cls = references.fixed_array_class(self._cls.elem, self._cls.n, self.owner, self.where)
        return self._cls

    @property
    def text(self) -> str:
        return f"inline {references.name_of(self.cls)}"

    def __getstate__(self) -> tuple[Any, ...]:
        return self.size, self.align, self.reference_words, _portable(self._cls), self.owner, self.where

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.size, self.align, self.reference_words, self._cls, self.owner, self.where = state


Part = Scalar | Link | Embedded


def _portable(cls: Any) -> Any:
    """A class, or of an array's or a map's class what it is one of."""
    if references.is_map_class(cls):
        return MapOf(_portable(cls.elem), cls.key_kind)
    part_of = getattr(trait(cls, "layout"), "part", None)
    if part_of is None:
        return cls
    return ArrayOf(part_of.__getstate__()[0] if isinstance(part_of, Link) else cls.elem, cls.length)


def part(annotation: object, owner: Any, where: str) -> Part:
    """What an evaluated annotation describes. TypeError, which begins with ``where``."""
    kind = scalar(annotation)
    if kind is not None:
        return kind
    if isinstance(annotation, ByValue):
        struct = annotation.cls
        if not references.is_struct(struct):
            name = getattr(struct, "name", getattr(struct, "__name__", struct))
            raise TypeError(
                f"{where} cannot hold {name} by value: gomp.Inline[...] wants a struct that is declared before"
            )
        return Embedded(struct, owner, where)
    if isinstance(annotation, ArrayOf) and annotation.n:
        return Embedded(references.fixed_array_class(annotation.elem, annotation.n, owner, where), owner, where)
    if isinstance(annotation, ReferenceMeta) and trait(annotation, "length"):
        return Embedded(annotation, owner, where)
    if isinstance(annotation, (Later, ArrayOf, MapOf, ReferenceMeta)):
        return Link(annotation, owner, where)
    shown = getattr(annotation, "__name__", annotation)
    if (isinstance(annotation, type) and issubclass(annotation, np.ndarray)) or shown == "ndarray":
        raise TypeError(
            f"{where} cannot be {shown}: a gomp.ndarray is an argument, a result or a value of gomp.globals; a field holds a gomp.Array[T]"
        )
    raise TypeError(f"{where} cannot be {shown}: use {_instead_of(annotation)}")


_INSTEAD: dict[object, str] = {
    str: "gomp.Str, and make the text with gomp.str(...)",
    bytes: "gomp.Bytes, and make the bytes with gomp.bytes(...)",
    list: "gomp.Array[T], or gomp.Array[T, n] by value",
    tuple: "gomp.Array[T, n], or a struct as gomp.Inline[T]",
    dict: "gomp.Map[K, T]",
    **{np.dtype(kind.code).type: repr(kind) for kind in SCALARS.values()},
}


_OF_A_PROCESS = ("Weak", "Cleanup", "Pointer", "Pool", "Global")


def _instead_of(annotation: object) -> str:
    """In messages: what a field may be, if not this."""
    if type(None) in get_args(annotation):
        return "it without None, which only references may be"
    plain = get_origin(annotation) or annotation
    if getattr(plain, "__module__", "").startswith("gomp.") and getattr(plain, "__name__", "") in _OF_A_PROCESS:
        return "a reference to the object itself, or keep it in a variable of Python's: it belongs to a process"
    return _INSTEAD.get(plain) or (
        "int, float, bool, gomp.int8 to gomp.float64, a struct, gomp.Inline[T], gomp.Array[T], gomp.Array[T, n], gomp.Map[K, T], "
        "gomp.Str or gomp.Bytes"
    )


def fixed_length(n: object, what: str) -> int:
    """The ``n`` of ``Array[T, n]``: a number, or ``Literal[n]`` for type checkers."""
    if get_origin(n) is Literal:
        (n,) = get_args(n)
    if type(n) is not int:
        raise TypeError(f"{what}: a fixed array has a number of elements, not {n!r}")
    if n < 1:
        raise ValueError(f"{what}: a fixed array has at least one element, not {n}")
    return n


def check_size(size: int, what: str) -> None:
    if size > MAX_STRUCT:
        raise ValueError(
            f"{what} has {size:,} bytes: more than {MAX_STRUCT:,}; put large arrays on the heap with gomp.array"
        )


# --- where parts lie --------------------------------------------------------------------------------------------------


def placed(parts: list[Part], what: str) -> tuple[list[int], int, int]:
    """The offset of each part, the size of them all, and their alignment: as C lays out a struct."""
    offsets, end, align = [], 0, 1
    for p in parts:
        begin = -(-end // p.align) * p.align
        offsets.append(begin)
        end, align = begin + p.size, max(align, p.align)
    size = -(-end // align) * align
    check_size(size, what)
    return offsets, size, align


@dataclass(frozen=True)
class Allocation:
    """How ``new`` makes an object: all that malloc's fast paths want to know, constant per type."""

    size: int
    span_class: int
    elem_size: int  # of the slot
    mask: int  # bit i: word i is a reference; only for objects of at most 512 bytes
    scan_bytes: int
    by_type: bool  # the object carries its type: the type table must know it


def allocation(size: int, reference_words: tuple[int, ...]) -> Allocation:
    span_class = span_class_for(size, bool(reference_words))
    scan_bytes = 8 * (reference_words[-1] + 1) if reference_words else 0
    by_type = bool(reference_words) and size > MAX_INLINE
    mask = 0 if by_type else signed(sum(1 << i for i in reference_words))
    return Allocation(size, span_class, SPAN_ELEM_SIZE[span_class], mask, scan_bytes, by_type)


def names_around(owner: Any, scope: Mapping[str, Any]) -> Names:
    module = vars(sys.modules[owner.__module__])
    builtins = module.get("__builtins__", {})
    return Names(scope, module, builtins if isinstance(builtins, dict) else vars(builtins))
