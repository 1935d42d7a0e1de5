"""``gomp.Pool``: Go's sync.Pool. The pool itself is :mod:`gomp.core.mutator.pool`.

Declared at module level, as ``POOL = gomp.Pool(Node)`` or with a function that makes an object. Processes know a pool by its name: by default
module, line and column of its declaration. What ``put`` gives away must not be used any more; what ``get`` gives is as it was put, or new.
"""

from __future__ import annotations

import ctypes
import itertools
import operator
import struct as packing
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Generic, TypeVar

import llvmlite.binding as llvm

from gomp.core.mutator import pool as kernels_of_pools
from gomp.core.mutator.boundary import NULL
from gomp.core.mutator.pool import OTHER_TYPE, RING_TYPE
from gomp.core.mutator.types import TABLE_FULL
from gomp.core.shm import layout
from gomp.errors import OutOfMemory
from gomp.runtime import handles, structs
from gomp.runtime.handles import table
from gomp.runtime.hashmap import new_links
from gomp.runtime.kinds import INT, brief
from gomp.runtime.memstats import PoolStats, read_pools
from gomp.runtime.references import (
    Reference,
    is_reference_class,
    is_struct,
    key_of,
    name_of,
    slot_of,
    wrong_class,
)
from gomp.runtime.slots import filled
from gomp.runtime.type_table import register

__all__ = ["Pool"]

MAX_NAME = 32
UNBOUND = -1
T = TypeVar("T")
_cells: list[ctypes.c_int64] = []
_declared: dict[str, tuple[Any, ctypes.c_int64]] = {}  # by name: the class and the place of the last declaration


class _Ring(Reference):
    """What a pool keeps more than one object in."""

    __slots__ = ()
    called: ClassVar[str] = "ring of a pool"  # in messages


class Pool(Generic[T]):
    """A pool of objects of one class. ``new``: a struct, a function that makes one, or None; then ``of`` names the class.

    ``max_bytes``: objects above that size are dropped when they are put. A function says by its annotation what it returns, or ``of`` does.
    """

    def __init__(
        self,
        new: type[T] | Callable[[], T] | None,
        *,
        of: type[T] | None = None,
        name: str | None = None,
        max_bytes: int = 0,
    ) -> None:
        self.new = new
        self.cls: Any = of or _class_made_by(new)
        self.name = name or _place_of_declaration(_caller(self))
        data = self.name.encode()
        if not 0 < len(data) <= MAX_NAME or b"\0" in data:
            raise ValueError(f"a pool's name is a string of 1 to {MAX_NAME} bytes, not {brief(self.name)}")
        self.max_bytes = _checked_limit(max_bytes)
        self.words: tuple[int, ...] = packing.unpack("<4q", data.ljust(MAX_NAME, b"\0"))
        self.symbol = f"gomp_pool_{data.hex()}"
        self._cell = self._declare()

    def _declare(self) -> ctypes.c_int64:
        """The word with its place: that of another declaration if its class is the same. A place is bound for one class."""
        cls, cell = _declared.get(self.name, (None, ctypes.c_int64(UNBOUND)))
        if cls is self.cls:
            return cell
        if cls is not None:
            if name_of(cls) != name_of(self.cls):
                raise TypeError(self.other_type)
            cell = ctypes.c_int64(UNBOUND)  # the class was declared again, perhaps with other fields
        _cells.append(cell)
        _declared[self.name] = self.cls, cell
        llvm.add_symbol(self.symbol, ctypes.addressof(cell))
        return cell

    def get(self) -> T | None:
        """An object: one that somebody has put, else a new one; None if the pool makes none."""
        status, found = filled(self.cls, kernels_of_pools.pool_get, self._place())
        if status != NULL:
            return found  # type: ignore[no-any-return]
        if self.new is None:
            return None
        return structs.new(self.cls) if is_struct(self.new) else self._made()

    def _made(self) -> T:
        made: Any = self.new()  # type: ignore[misc]
        if type(made) is not self.cls:
            raise TypeError(
                f"pool {self.name!r}: the function that makes its objects gave a {type(made).__name__}, not a {self.cls.__name__}"
            )
        return made  # type: ignore[no-any-return]

    def put(self, value: T | None, /) -> None:
        """Give an object away. None is ignored. Dropped if there is no memory to keep it."""
        if value is None:
            return
        if type(value) is not self.cls:
            raise wrong_class(self.cls, value, lambda: f"pool {self.name!r}")
        place, slot = self._place(), slot_of(value)  # type: ignore[arg-type]
        n = table.call(kernels_of_pools.pool_put, place, slot)
        while n > NULL:  # the ring is full; a collection may take the new one, too, before it is used
            try:
                ring = new_links(_Ring, n, RING_TYPE)
            except OutOfMemory:  # Go's put never fails
                table.call(kernels_of_pools.pool_drop, place)
                return
            table.call(kernels_of_pools.pool_grow, place, slot_of(ring))
            n = table.call(kernels_of_pools.pool_put, place, slot)

    def stats(self) -> PoolStats:
        """What it has done so far."""
        place = self._place()
        return read_pools()[place]

    def _place(self) -> int:
        """The pool's number in the runtime that is open."""
        cell = self._cell
        if cell.value == UNBOUND:
            register(self.cls)
            place = table.call(kernels_of_pools.bind_pool, *self.words, key_of(self.cls), self.max_bytes)
            if place == OTHER_TYPE:
                raise TypeError(self.other_type)
            if place == TABLE_FULL:
                raise OutOfMemory(self.too_many)
            cell.value = place
        return cell.value

    @property
    def too_many(self) -> str:
        """What is wrong where there is no place for it."""
        return f"pool {self.name!r}: a runtime has {layout.MAX_POOLS} pools at most; give those of one class one name, and they are one pool"

    @property
    def other_type(self) -> str:
        """What is wrong where the place of its name is another's."""
        return f"pool {self.name!r} holds another type than {self.cls.__name__}: give one of them another name"

    def __repr__(self) -> str:
        return f"<gomp.Pool {self.name!r} of {self.cls.__name__}>"

    def __reduce__(self) -> Any:
        return _made, (self.new, self.cls, self.name, self.max_bytes)


def _checked_limit(max_bytes: Any) -> int:
    """TypeError or ValueError if it is no number of bytes; a limit above every object's size is none."""
    try:
        limit = operator.index(max_bytes)
    except TypeError:
        raise TypeError(f"max_bytes is a number of bytes, 0 for no limit, not {brief(max_bytes)}") from None
    if limit < 0:
        raise ValueError(f"max_bytes is 0 (no limit) or more, not {brief(limit)}")
    return limit if limit <= INT.high else 0


def _caller(pool: object) -> FrameType:
    """Who makes the pool, above what is called ``__init__`` of its own class."""
    frame = sys._getframe(2)
    while frame.f_code.co_name == "__init__" and any(local is pool for local in frame.f_locals.values()):
        assert frame.f_back is not None
        frame = frame.f_back
    return frame


def _place_of_declaration(caller: FrameType) -> str:
    """The module, line and column of the call: what two pools never share, unless one call declares both. Cells of a notebook are files."""
    code = caller.f_code
    module = caller.f_globals.get("__name__", "")
    _, _, column, _ = next(itertools.islice(code.co_positions(), caller.f_lasti // 2, None))
    where = Path(code.co_filename).stem if module == "__main__" else module
    return f"{where.encode(errors='replace')[-20:].decode(errors='ignore')}:{caller.f_lineno}:{column}"


def _made(new: Any, of: Any, name: str, max_bytes: int) -> Pool[Any]:
    return Pool(new, of=of, name=name, max_bytes=max_bytes)


def _class_made_by(new: Any) -> type[Reference]:
    if is_reference_class(new):
        return new  # type: ignore[no-any-return]
    made = typing.get_type_hints(getattr(new, "py_func", new)).get("return") if callable(new) else None
    if not is_reference_class(made):
        raise TypeError(
            "gomp.Pool wants a struct, or a function whose annotation says which class it makes; or say of=..."
        )
    return made  # type: ignore[return-value]


def _unbind() -> None:
    for cell in _cells:
        cell.value = UNBOUND


handles.on_open(_unbind)
handles.on_close(_unbind)
