"""What the objects along a path are: objects of up to 512 bytes do not carry their type, but fields do.

A *shape* is what an object may be: a class of this process, or a part of a map or a pool that no reference refers to. An object's size and the words
of it that are references leave a few shapes. Which of them it is, those say that lead to it: a root, the field or element before it on the path,
which name a class, or a reference that this process has to it. :func:`resolve` goes along the path and back, and keeps what fits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gomp.core.mutator.boundary import ARRAY_HEADER
from gomp.core.mutator.hashmap import (
    BYTES_KEY,
    ENTRY_MASK,
    ENTRY_TYPE,
    INT_KEY,
    KEY,
    KIND_BITS,
    MAP_MASK,
    META,
    NEXT,
    SENTINEL_MASK,
    TABLE,
    TABLE_TYPE,
    TYPE,
    VALUE,
)
from gomp.runtime import references
from gomp.runtime.arrays import ArrayInfo
from gomp.runtime.hashmap import MAP_SLOT, Map
from gomp.runtime.parts import Embedded, Link, Part
from gomp.runtime.references import is_struct
from gomp.runtime.typekeys import class_of_key

_MIN_ENTRY, _SENTINEL = 48, 16
ARRAYS = (0, 0)  # the small ones, whose masks depend on their lengths


class Inner:
    """A shape that has no class."""

    def __init__(self, name: str) -> None:
        self.__name__ = name


NODE, BUCKETS, RING = Inner("node of a map"), Inner("buckets of a map"), Inner("ring of a pool")
Shape = Any  # a class of references, or an Inner


@dataclass(frozen=True)
class Object:
    """An object of a path, as the coordinator describes it."""

    at: int  # its address
    size: int  # of its slot
    mask: int | None  # a bit for each reference of one of up to 512 bytes; None if it has no references
    type: int  # the key of its type, if it carries that; else 0
    inside: int  # how many bytes into it the path leads
    length: int  # its first word: an array's is the number of its elements
    out: int | None  # where the reference stands through which the path leaves it; None of the last
    head: str = ""  # how it begins, in hexadecimal, if it may be an entry of a map

    def word(self, offset: int) -> int:
        return int.from_bytes(bytes.fromhex(self.head)[offset : offset + 8], "little", signed=True)


@dataclass(frozen=True)
class Edge:
    """What the reference at an offset is called, and what it refers to; None if that is not known here."""

    label: str
    target: Shape | None


# --- one object -------------------------------------------------------------------------------------------------------


def candidates(obj: Object, known: dict[tuple[int, int], list[Shape]]) -> list[Shape]:
    """What an object may be, as it lies there."""
    if obj.mask is None:
        return []
    if obj.type == TABLE_TYPE:
        return [BUCKETS, RING]
    if obj.type == ENTRY_TYPE:
        return [NODE]
    if obj.type:
        found = class_or_none(obj.type)
        return [] if found is None else [found]
    inner = [NODE] if _is_node(obj.size, obj.mask) else []
    arrays = [cls for cls in known[ARRAYS] if _is_array(obj, cls.layout.part)]
    tables = [BUCKETS, RING] if _is_array(obj, Link) else []
    return known.get((obj.size, obj.mask), []) + arrays + tables + inner


def _is_array(obj: Object, element: Any) -> bool:
    """Whether the references of an object are those of as many such elements as its first word says."""
    if not 0 <= obj.length <= (obj.size - ARRAY_HEADER) // element.size:
        return False
    words, bits = element.size // 8, sum(1 << word for word in element.reference_words)
    wanted: int = sum(bits << (1 + i * words) for i in range(obj.length))
    return wanted == (obj.mask or 0) & ((1 << 64) - 1)


def _is_node(size: int, mask: int) -> bool:
    return (mask == ENTRY_MASK and size >= _MIN_ENTRY) or (mask == SENTINEL_MASK and size == _SENTINEL)


def known_shapes() -> dict[tuple[int, int], list[Shape]]:
    """The classes of this process whose objects have references and do not carry their type, by their slot's size and their mask."""
    for cls in references.declared_classes():
        with contextlib.suppress(TypeError):  # a struct that it names is not declared here
            list(references.layout_of(cls).targets)  # there are classes now of all the arrays and maps that are named
    known: dict[tuple[int, int], list[Shape]] = {ARRAYS: []}
    for cls in references.declared_classes():
        if is_struct(cls):
            how = cls._info.allocation
            if how.mask:
                known.setdefault((how.elem_size, how.mask), []).append(cls)
        elif isinstance(cls, type) and issubclass(cls, Map):
            known.setdefault((MAP_SLOT, MAP_MASK), []).append(cls)
        elif references.trait(cls, "holds_links"):
            known[ARRAYS].append(cls)
    return known


def class_or_none(key: int) -> Any:
    """The class of a type's key, if this process has declared it."""
    try:
        return class_of_key(key) if key else None
    except TypeError:
        return None


def edge(shape: Shape, obj: Object) -> Edge | None:
    """The reference through which the path leaves ``obj``, if it is a ``shape``; None if it has none there."""
    out = obj.out or 0
    if shape is BUCKETS:
        return Edge("", NODE)
    if shape is RING:
        return Edge(f"[{(out - ARRAY_HEADER) // 8}]", None)
    if shape is NODE:
        return _node_edge(obj, out)
    if issubclass(shape, Map):
        return Edge("", NODE if out == NEXT else BUCKETS) if out in (NEXT, TABLE) else None
    return _field(shape, out)


def _node_edge(obj: Object, out: int) -> Edge | None:
    if out == NEXT:
        return Edge("", NODE)
    if out != VALUE or len(obj.head) < 2 * (KEY + 8):
        return None
    return Edge(f"[{_key(obj)}]", class_or_none(obj.word(TYPE)))


def _key(obj: Object) -> str:
    meta = obj.word(META)
    if meta == INT_KEY:
        return repr(obj.word(KEY))
    n, data = meta >> KIND_BITS, bytes.fromhex(obj.head)[KEY:]
    more = "…" if n > len(data) else ""
    data = data[:n]
    text = repr(data) if meta & ((1 << KIND_BITS) - 1) == BYTES_KEY else repr(data.decode("utf-8", "replace"))
    return text + more


def _field(cls: Any, out: int) -> Edge | None:
    """The reference at ``out`` of a struct or an array, by its path of fields and indices."""
    label, part, rest = _part_at(cls, out)
    if isinstance(part, Link):
        return Edge(label, _target(part))
    inner = _field(part.cls, rest) if isinstance(part, Embedded) else None
    return inner and Edge(label + inner.label, inner.target)


def _part_at(cls: Any, offset: int) -> tuple[str, Part | None, int]:
    """The field or the element in which ``offset`` of a struct or an array lies, and how far into it; None if in neither."""
    if is_struct(cls):
        for field in cls._info.fields.values():
            if field.offset <= offset < field.offset + field.part.size:
                return f".{field.name}", field.part, offset - field.offset
        return "", None, 0
    info = references.trait(cls, "layout")
    if not isinstance(info, ArrayInfo) or offset < info.first:
        return "", None, 0
    index, rest = divmod(offset - info.first, info.part.size)
    return f"[{index}]", info.part, rest


def _has_at(shape: Shape, cls: Any, offset: int) -> bool:
    """Whether a ``cls`` begins at ``offset`` of a shape: the whole of it, or a part by value."""
    if shape is cls and offset == 0:
        return True
    if isinstance(shape, Inner):
        return False
    _, part, rest = _part_at(shape, offset)
    return isinstance(part, Embedded) and _has_at(part.cls, cls, rest)


def _target(link: Link) -> Any:
    try:
        return link.target
    except TypeError:  # a struct that is not declared here
        return None


# --- a path -----------------------------------------------------------------------------------------------------------


def resolve(path: list[Object], first: Shape | None, said: Iterable[tuple[int, Shape]]) -> list[list[Shape]]:
    """What each object of a path without gaps may be.

    ``first`` is what the root says of the first, if it says anything; ``said`` are addresses, and what this process's references to them say.
    """
    known = known_shapes()
    found = [candidates(obj, known) for obj in path]
    found[0] = _narrowed(found[0], first, path[0].inside)
    for address, cls in said:
        for i, obj in enumerate(path):
            if obj.at <= address < obj.at + obj.size:
                found[i] = _narrowed(found[i], cls, address - obj.at)
    for i in range(len(path) - 1):
        reached: list[Shape] = []
        fitting = []
        for shape in found[i]:
            ahead = _reached(edge(shape, path[i]), path[i + 1], found[i + 1])
            if ahead is not None:
                fitting.append(shape)
                reached += [x for x in ahead if x not in reached]
        found[i] = fitting
        if fitting:
            found[i + 1] = reached
    for i in range(len(path) - 2, -1, -1):
        found[i] = [x for x in found[i] if _reached(edge(x, path[i]), path[i + 1], found[i + 1]) is not None]
    return [_preferred(shapes) for shapes in found]


def _narrowed(shapes: list[Shape], said: Shape | None, offset: int) -> list[Shape]:
    """Those in which ``said`` begins at an offset, if there are any."""
    return [shape for shape in shapes if _has_at(shape, said, offset)] or shapes


def _reached(by: Edge | None, obj: Object, shapes: list[Shape]) -> list[Shape] | None:
    """Which of these an edge leads to; None if it cannot lead there."""
    if by is None:
        return None
    if by.target is None or not shapes:
        return shapes
    return [shape for shape in shapes if _has_at(shape, by.target, obj.inside)] or None


def _preferred(shapes: list[Shape]) -> list[Shape]:
    """Nobody but a walk refers to a node of a map; and a map is a map, whatever it is of."""
    maps = [x for x in shapes if isinstance(x, type) and issubclass(x, Map)]
    if maps and all(x is NODE or x in maps for x in shapes):
        return maps if len(maps) == 1 else [Map]
    return shapes


def name(shapes: list[Shape], obj: Object) -> str:
    """What to call an object that may be one of these."""
    names = {references.called(shape) for shape in shapes}
    return names.pop() if len(names) == 1 else f"object of {obj.size} bytes"


def label(shapes: list[Shape], obj: Object) -> str:
    """What to call the reference through which the path leaves it: "" within a map."""
    labels = {found.label for shape in shapes if (found := edge(shape, obj)) is not None}
    return labels.pop() if len(labels) == 1 else f" + {obj.out}"
