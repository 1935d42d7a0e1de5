"""``gomp.globals``: named roots, seen by every process of the runtime.

A global is a record of the root table: a reference, the key of its type, a name of at most 47 bytes. The first store decides the type, and
a name keeps its place and its type as long as the runtime lives: so reading takes no lock, and a process may remember where a name is.

``gomp.globals`` is a mapping from names to references, for ordinary Python. ``gomp.Global(name, T)``, declared once at module level, is one of
them with its type: ``.get()`` and ``.set(x)`` work in compiled code too, where a name would have to be looked up each time.
"""

from __future__ import annotations

import ctypes
import struct as packing
from collections.abc import Iterator, MutableMapping
from typing import Any, Generic, TypeVar

import llvmlite.binding as llvm
import numpy as np

from gomp.core.mutator import boundary
from gomp.core.mutator.boundary import NO_SLOT, NO_TYPE, NULL
from gomp.core.shm import layout
from gomp.core.shm.records import global_dtype, view
from gomp.runtime import handles, type_table
from gomp.runtime.handles import check_table, table
from gomp.runtime.kinds import brief
from gomp.runtime.ndarrays import Memory, memory_of
from gomp.runtime.references import (
    Reference,
    called,
    is_reference_class,
    key_of,
    slot_of,
    wrong_class,
)
from gomp.runtime.slots import filled, passed_on
from gomp.runtime.typekeys import class_of_key

MAX_NAME = 47
UNBOUND = -1
T = TypeVar("T")
_places: dict[str, int] = {}
handles.on_open(_places.clear)
handles.on_close(_places.clear)


def name_words(name: str) -> tuple[int, ...]:
    """The name as the six words that are stored."""
    data = name.encode() if isinstance(name, str) else b""
    if not data or len(data) > MAX_NAME or b"\0" in data:
        raise ValueError(f"a global's name is a string of 1 to {MAX_NAME} bytes, not {brief(name)}")
    return packing.unpack("<6q", data.ljust(48, b"\0"))


def place_of(name: str) -> int:
    """The global's number; its record is added if the name is new."""
    if name not in _places:
        words = name_words(name)
        table.check_open()
        place = table.call(boundary.add_global, *words)
        is_full = place < 0 and boundary.count_globals() >= layout.MAX_GLOBALS
        what = f"more than {layout.MAX_GLOBALS} globals" if is_full else f"global {name!r}: there is no memory for it"
        _places[name] = check_table(place, what)
    return _places[name]


def _find(name: object) -> int:
    """The number of a global that exists, or UNBOUND."""
    if isinstance(name, str) and name not in _places:
        _read_names()
    return _places.get(name, UNBOUND)  # type: ignore[call-overload, no-any-return]


def _read_names() -> None:
    table.check_open()
    known = len(_places)
    n = boundary.count_globals()
    if n > known:
        for idx, name in enumerate(view(global_dtype, layout.GLOBALS_BASE, n)["name"]):
            _places[bytes(name).decode()] = idx


def _read(place: int) -> Any:
    status, owner = filled(Reference, boundary.read_global, place)
    if status == NULL:
        return None
    found: Any = passed_on(owner, class_of_key(boundary.global_type(place)))
    return found.present() if isinstance(found, Memory) else found


def _write(name: str, value: Reference | None, key: int) -> None:
    place = place_of(name)
    slot = NO_SLOT if value is None else slot_of(value)
    if value is not None:
        type_table.described(type(value))
    if table.call(boundary.write_global, place, slot, key) == NO_TYPE:
        raise _other_type(name, boundary.global_type(place), key)


def _other_type(name: str, held: int, given: int) -> TypeError:
    try:
        holds = f"a {called(class_of_key(held))}"
    except TypeError as error:  # which names a struct that is declared differently elsewhere
        return TypeError(f"global {name!r} holds {error}")
    gives = called(class_of_key(given))
    if holds == f"a {gives}":
        holds += " as it was declared before"
    return TypeError(
        f"global {name!r} holds {holds}, not a {gives}: a name keeps the type of its first value, take another name"
    )


class Globals(MutableMapping[str, Any]):
    """The mapping ``gomp.globals``."""

    def __getitem__(self, name: str) -> Any:
        place = _find(name)
        value = None if place == UNBOUND else _read(place)
        if value is None:
            raise KeyError(name)
        return value

    def __setitem__(self, name: str, value: Any) -> None:  # structs are no References to type checkers
        if isinstance(value, np.ndarray):
            value = memory_of(value, f"gomp.globals[{name!r}]")
        if not isinstance(value, Reference):
            raise TypeError(
                f"gomp.globals[{name!r}] holds what gomp.new, gomp.array, gomp.map, gomp.str or gomp.ndarray has made, not "
                f"{type(value).__name__}; to clear it, del it"
            )
        _write(name, value, key_of(type(value)))

    def __delitem__(self, name: str) -> None:
        place = _find(name)
        if place == UNBOUND or not boundary.is_global_set(place):
            raise KeyError(name)
        table.call(boundary.write_global, place, NO_SLOT, boundary.global_type(place))

    def __contains__(self, name: object) -> bool:
        place = _find(name)
        return place != UNBOUND and bool(boundary.is_global_set(place))

    def __iter__(self) -> Iterator[str]:
        _read_names()
        for name, place in sorted(_places.items(), key=lambda item: item[1]):
            table.check_open()  # the runtime may have ended since the last step
            if boundary.is_global_set(place):
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<gomp.globals: {', '.join(self) or 'none'}>" if table.is_open else "<gomp.globals: no runtime is open>"


globals = Globals()  # noqa: A001 (its name in the package)


class Global(Generic[T]):
    """The global ``name``, which holds a ``T`` or None: declared at module level, used in Python and in compiled code.

    Compiled code finds its place through a word of this process, known to the linker as ``symbol``: UNBOUND until it was looked up
    in the runtime that is open now.
    """

    def __init__(self, name: str, cls: type[T]) -> None:
        if not is_reference_class(cls):
            fix = "use gomp.globals" if isinstance(cls, type) and issubclass(cls, np.ndarray) else "give its class"
            raise TypeError(f"global {name!r} holds a struct or an array, not {getattr(cls, '__name__', cls)}: {fix}")
        self.name = name
        self.cls = cls
        self.words = name_words(name)
        self.symbol = f"gomp_global_{name.encode().hex()}"
        if name not in _cells:
            _cells[name] = ctypes.c_int64(UNBOUND)
            llvm.add_symbol(self.symbol, ctypes.addressof(_cells[name]))

    def get(self) -> T | None:
        place = place_of(self.name)
        key = boundary.global_type(place)
        if key not in (0, key_of(self.cls)):
            other = class_of_key(key)  # whose own error names a struct that is declared differently elsewhere
            raise TypeError(
                f"global {self.name!r} does not hold a {self.cls.__name__}, but a {called(other)}: a name keeps the type of its first value, "
                "take another name"
            )
        return _read(place)  # type: ignore[no-any-return]

    def set(self, value: T | None) -> None:
        if value is not None and type(value) is not self.cls:
            raise wrong_class(self.cls, value, lambda: f"global {self.name!r}")
        _write(self.name, value, key_of(self.cls))  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"gomp.Global({self.name!r}, {self.cls.__name__})"

    def __reduce__(self) -> Any:
        return Global, (self.name, self.cls)


_cells: dict[str, ctypes.c_int64] = {}


def _unbind() -> None:
    for cell in _cells.values():
        cell.value = UNBOUND


handles.on_open(_unbind)
handles.on_close(_unbind)
