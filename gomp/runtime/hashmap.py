"""``gomp.map``: hash maps in the shared heap, from Python. The map itself is :mod:`gomp.core.mutator.hashmap`.

A map's keys are ints (of 64 bits), strings and bytes (of at most 64 KiB), mixed as one likes: ``1``, ``"1"`` and ``b"1"`` are three keys. Its
values are references to structs, arrays and other maps; None is no value, it is what ``get`` says of a key that is not there. ``gomp.map(T)`` makes
a ``gomp.Map[T]``, whose values are all of class T, and which compiled code can read; ``gomp.map(str, T)`` a ``gomp.Map[str, T]``, whose keys are all
strings, and over which compiled code can walk; ``gomp.map()`` a ``gomp.Map``, which holds any.

Every operation on one key is atomic for all processes. A walk over a map meets every key that is there from its beginning to its end exactly
once, with a value that it has meanwhile; of keys that come or go it meets some.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import ItemsView as _ItemsView
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import KeysView as _KeysView
from collections.abc import ValuesView as _ValuesView
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, overload

from gomp.core.heap.sizeclass import round_up_size
from gomp.core.mutator import mapcalls
from gomp.core.mutator.boundary import ARRAY_HEADER
from gomp.core.mutator.hashmap import (
    ADDED,
    COUNT,
    ENTRY_MASK,
    ENTRY_TYPE,
    GROW,
    MAP_BYTES,
    MAP_MASK,
    SCAN_BYTES,
    SEED,
    SENTINEL_BYTES,
    SENTINEL_MASK,
    SPLIT,
    TABLE_TYPE,
)
from gomp.core.mutator.mapcalls import ABSENT, COPIED
from gomp.core.sched.status import RETRY
from gomp.core.shm.atomics import signed
from gomp.errors import OutOfMemory
from gomp.runtime import handles, type_table
from gomp.runtime.handles import kernels, table
from gomp.runtime.mapkeys import ANY_KEY, KIND_NAMES, Key, key_of_entry, kind_of, words, words_of_kind
from gomp.runtime.parts import ArrayOf, Later, MapOf, Names, evaluated
from gomp.runtime.references import (
    OpaqueLayout,
    Reference,
    ReferenceMeta,
    address_of,
    how_made,
    is_declared,
    is_usable,
    key_of,
    slot_of,
    word_at,
)
from gomp.runtime.slots import allocated, filled, object_new, passed_on
from gomp.runtime.typekeys import class_of_key

__all__ = ["Map", "map"]

MAP_SLOT = round_up_size(MAP_BYTES, noscan=False)
_MISSING: Any = object()
V = TypeVar("V")
T = TypeVar("T")
N = TypeVar("N", bound=Reference)
if TYPE_CHECKING:
    from gomp.runtime.texts import Bytes, Str

    K = TypeVar("K", bound=Key)
else:
    K = TypeVar("K")


class _Calls:
    """The kernels, as :class:`~gomp.runtime.handles.Kernels` has the others."""

    map_begin: Any
    map_clear: Any
    map_copy: Any
    map_get: Any
    map_has: Any
    map_insert: Any
    map_new_entry: Any
    map_next: Any
    map_next_length: Any
    map_remove: Any
    map_replace: Any
    map_set_table: Any
    map_split: Any

    def __init__(self) -> None:
        self.bind()

    def bind(self) -> None:
        for name in self.__annotations__:
            kernel = getattr(mapcalls, name)
            setattr(self, name, getattr(kernel, "entry", kernel))


_calls = _Calls()
handles.on_open(_calls.bind)


# --- classes ----------------------------------------------------------------------------------------------------------


class _Node(Reference):
    """What a walk stands on, and what a change makes: no object that anybody else has."""

    __slots__ = ()
    called: ClassVar[str] = "part of a map"  # in messages


class Map(Reference, Generic[K, V]):
    """A reference to a map: ``gomp.Map[T]`` if all values are of class T, ``gomp.Map[str, T]`` if all keys are strings too, else ``gomp.Map``."""

    __slots__ = ()
    elem: ClassVar[Any] = None
    key_kind: ClassVar[int] = ANY_KEY
    made_by: ClassVar[str] = "gomp.map()"
    _elem_key: ClassVar[int] = 0
    _words: ClassVar[Any] = staticmethod(words)
    layout: ClassVar[OpaqueLayout] = OpaqueLayout("map")

    if not TYPE_CHECKING:  # which knows what Generic makes of it

        def __class_getitem__(cls, what: Any) -> Any:
            key, elem = what if isinstance(what, tuple) and len(what) == 2 else (Any, what)
            kind = kind_of(evaluated(key, Names()))
            elem = evaluated(elem, Names())
            if isinstance(elem, (Later, ArrayOf, MapOf)):
                return MapOf(elem, kind)
            if not isinstance(elem, ReferenceMeta):
                raise TypeError(
                    f"a map holds structs, arrays, texts or maps, not {getattr(elem, '__name__', elem)}: "
                    "write gomp.Map[T], or gomp.Map[str, T] with keys of one kind"
                )
            return map_class(elem, kind)

    # --- one key

    def __getitem__(self, key: K | Str | Bytes) -> V:
        value = self.get(key, _MISSING)
        if value is _MISSING:
            raise KeyError(key)
        return value

    @overload
    def get(self, key: K | Str | Bytes, /) -> V | None: ...
    @overload
    def get(self, key: K | Str | Bytes, default: T, /) -> V | T: ...
    def get(self, key: Any, default: Any = None, /) -> Any:
        """The key's value; ``default`` if it is not there."""
        m = slot_of(self)
        meta, word, _held = self._words(key)
        owner: Any = object_new(self.elem or Reference)
        while True:
            try:
                owner._slot, table.free = table.free, table.free.next  # type: ignore[union-attr]
                break
            except AttributeError:  # there is none
                table.grow()
        taken = owner._slot
        owner._handle = taken.handle
        into = taken.slot
        found = _calls.map_get(m, meta, word, into)
        if found == RETRY:
            found = table.call(_calls.map_get, m, meta, word, into)
        return self._value(found, owner, default)

    def __contains__(self, key: object) -> bool:
        meta, word, _held = self._words(key)
        return bool(table.call(_calls.map_has, slot_of(self), meta, word))

    def __setitem__(self, key: K | Str | Bytes, value: V) -> None:
        type_key = self._check(value)
        meta, word, _held = self._words(key)
        held: Any = value
        if not table.call(_calls.map_replace, slot_of(self), meta, word, slot_of(held), type_key):
            self._insert(meta, word, held, type_key, 0)

    def setdefault(self, key: K | Str | Bytes, default: V, /) -> V:
        """The key's value; if it is not there it is ``default`` from now on."""
        type_key = self._check(default)
        meta, word, _held = self._words(key)
        held: Any = default
        value = self.get(key)
        while value is None and not self._insert(meta, word, held, type_key, 1):
            value = self.get(key)
        return default if value is None else value

    @overload
    def pop(self, key: K | Str | Bytes, /) -> V: ...
    @overload
    def pop(self, key: K | Str | Bytes, default: T, /) -> V | T: ...
    def pop(self, key: Any, default: Any = _MISSING, /) -> Any:
        """Remove the key; what was its value, or ``default`` if it was not there."""
        if self.elem is None:
            self.get(key)  # a value of a type that is not known here stays where it is
        meta, word, _held = self._words(key)
        found, owner = filled(self.elem or Reference, _calls.map_remove, slot_of(self), meta, word)
        value = self._value(found, owner, default)
        if value is _MISSING:
            raise KeyError(key)
        return value

    def __delitem__(self, key: K | Str | Bytes) -> None:
        self.pop(key)

    # --- all of them

    def __len__(self) -> int:
        return word_at(slot_of(self), COUNT)

    def __iter__(self) -> Iterator[K]:
        return (key_of_entry(cursor) for cursor, _ in self._walk())

    def keys(self) -> Keys[K]:
        """The keys, to walk over: a view, as dict's."""
        return Keys(self)

    def values(self) -> Values[V]:
        """The values, to walk over."""
        return Values(self)

    def items(self) -> Items[K, V]:
        """Pairs of a key and its value, to walk over."""
        return Items(self)

    def _walk(self) -> Iterator[tuple[_Node, Any]]:
        """Each entry with its value; the entry is that of the last step as soon as the next is made."""
        _, cursor = filled(_Node, _calls.map_begin, slot_of(self))
        found = -1
        while found != ABSENT:
            found, owner = filled(Reference, _calls.map_next, slot_of(cursor))
            if found > 0:
                yield cursor, passed_on(owner, self._class_of(found))  # the walk itself keeps no value

    def update(self, other: Map[K, V] | Mapping[K, V] | Iterable[tuple[K, V]] = (), /, **named: V) -> None:
        """Give every key of ``other`` its value there, one after another."""
        pairs: Any = other.items() if isinstance(other, (Map, Mapping)) else other
        for key, value in itertools.chain(pairs, named.items()):
            self[key] = value

    def clear(self) -> None:
        """Remove every key at once, and give back what the map has grown to."""
        table.call(_calls.map_clear, slot_of(self))

    def __repr__(self) -> str:
        if not is_usable(self):
            return Reference.__repr__(self)
        return f"<{type(self).__name__} of {len(self)} @{address_of(self):#x}>"

    # --- how

    def _value(self, found: int, owner: Reference, default: Any) -> Any:
        """The reference to what a kernel has put into the owner's slot, of the type that it has ``found``."""
        if found == ABSENT:
            return default
        cls = self._class_of(found)
        if type(owner) is not cls:
            owner.__class__ = cls  # nobody else has it, and this is quicker than :func:`passed_on`
        return owner

    @classmethod
    def _class_of(cls, found: int) -> Any:
        """The class of values whose type has the key ``found``. TypeError if it is not known here."""
        return cls.elem if found == (cls._elem_key or cls._find_elem_key()) else class_of_key(found)

    @classmethod
    def _find_elem_key(cls) -> int:
        """The key of the values' type: late, as the struct may have been in the making when the class was."""
        cls._elem_key = -1 if cls.elem is None else key_of(cls.elem)
        return cls._elem_key

    def _check(self, value: object) -> int:
        """The key of the value's type, which this map may hold."""
        if not isinstance(value, Reference) or not is_declared(type(value)):
            got = "None (to remove a key, del it)" if value is None else f"{type(value).__name__}"
            raise TypeError(
                f"{type(self).__name__} holds references to structs, arrays, texts and maps, not {got}: make one with "
                f"{how_made(self.elem) if self.elem else 'gomp.new, gomp.array, gomp.str or gomp.map'}"
            )
        if self.elem is not None and type(value) is not self.elem:
            raise TypeError(
                f"{type(self).__name__} holds a {self.elem.__name__}, not a {type(value).__name__}: make one with {how_made(self.elem)}"
            )
        return type_table.described(type(value)) or key_of(type(value))

    def _insert(self, meta: int, word: int, value: Reference, type_key: int, keep: int) -> int:
        """Add an entry, and what the map needs to grow."""
        m = slot_of(self)
        entry = allocated(_Node, _calls.map_new_entry, meta, word, slot_of(value), type_key)
        done = table.call(_calls.map_insert, m, slot_of(entry), keep)
        if done & (GROW | SPLIT):
            with contextlib.suppress(OutOfMemory):  # the key is there; the map is only slower
                self._grow(m) if done & GROW else self._split(m, slot_of(entry))
        return done & ADDED

    @staticmethod
    def _split(m: int, entry: int) -> None:
        sentinel = allocated(_Node, kernels.new_struct, SENTINEL_BYTES, SENTINEL_MASK, 0, 0)
        table.call(_calls.map_split, m, entry, slot_of(sentinel))

    @staticmethod
    def _grow(m: int) -> None:
        new = new_links(_Node, table.call(_calls.map_next_length, m), TABLE_TYPE)
        at = 0
        while at != COPIED:
            at = table.call(_calls.map_copy, m, slot_of(new), at)
        table.call(_calls.map_set_table, m, slot_of(new))


class Keys(_KeysView[K]):
    """``m.keys()``: as dict's, without set operations' speed."""


class Values(_ValuesView[V]):
    """``m.values()``."""

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._mapping._walk())  # type: ignore[attr-defined]

    def __contains__(self, value: object) -> bool:
        return any(value == found for found in self)


class Items(_ItemsView[K, V]):
    """``m.items()``."""

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return ((key_of_entry(cursor), value) for cursor, value in self._mapping._walk())  # type: ignore[attr-defined]


def new_links(cls: type[N], n: int, type_key: int) -> N:
    """A ``cls`` that is an array of ``n`` references, all None, and has no class that programs know."""
    return allocated(cls, kernels.new_array, n, ARRAY_HEADER + 8 * n, type_key)


# --- making them ------------------------------------------------------------------------------------------------------


@functools.cache
def map_class(elem: Any, kind: int) -> Any:
    """``Map[elem]``, whose keys are of a kind; the struct ``elem`` may be in the making, or on its way to this process."""
    of = elem.__name__ if kind == ANY_KEY else f"{KIND_NAMES[kind]}, {elem.__name__}"
    what = {"__slots__": (), "elem": elem, "key_kind": kind, "_elem_key": 0, "layout": OpaqueLayout("map", [elem])}
    what["made_by"] = f"gomp.map({of})"
    if kind != ANY_KEY:
        what["_words"] = staticmethod(words_of_kind(kind, f"Map[{of}]"))
    made: Any = ReferenceMeta(f"Map[{of}]", (Map,), what)
    made.__module__ = Map.__module__
    return made


@overload
def map() -> Map[Any, Any]: ...  # noqa: A001
@overload
def map(elem: type[V], /) -> Map[Any, V]: ...  # noqa: A001
@overload
def map(key: type[K], elem: type[V], /) -> Map[K, V]: ...  # noqa: A001
def map(*of: Any) -> Any:  # noqa: A001 (its name in the package)
    """A new map, of references to the class that is named last, with keys of the kind that is named before; without them, of anything to anything."""
    if len(of) > 2:
        raise TypeError(f"write gomp.map(T) or gomp.map(K, T): {len(of)} types were given")
    cls: Any = Map
    if of:
        cls = cls[of if len(of) == 2 else of[0]]
    if isinstance(cls, MapOf):
        raise TypeError(f"gomp.map holds what is declared: {of[-1]} is not")
    type_table.register(cls)
    return allocated(
        cls, kernels.new_struct, MAP_BYTES, MAP_MASK, SEED, signed(int.from_bytes(os.urandom(8), "little"))
    )


def _register_types() -> None:
    """What objects carry their type: entries with long keys, and tables."""
    type_table.publish(ENTRY_TYPE, 0, SCAN_BYTES, 0, [ENTRY_MASK], Map)
    type_table.publish(TABLE_TYPE, 8, 8, 8, [1], Map)


type_table.also_registered.append(_register_types)
