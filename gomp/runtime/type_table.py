"""The runtime's type table, as Python fills it: the types of objects that carry their type (see ``gomp/core/mutator/types.py``)."""

from __future__ import annotations

import contextlib
import struct as packing
from collections.abc import Callable
from typing import Any

from gomp.core.mutator.types import find_type, name_type, publish_type, reserve_mask, set_mask_word
from gomp.core.shm.atomics import signed
from gomp.errors import OutOfMemory
from gomp.runtime import handles
from gomp.runtime.handles import check_table, table
from gomp.runtime.references import called, is_declared, is_struct, key_of, trait

_registered: set[int] = set()
_named: dict[Any, int] = {}
also_registered: list[Callable[[], None]] = []  # what makes types known that have no class: called once a runtime
for _known in (_registered, _named):
    handles.on_open(_known.clear)
    handles.on_close(_known.clear)


def register(cls: Any) -> None:
    """Make sure that the runtime's type table has ``cls``, if its objects carry their type. Before any is made, once a runtime."""
    key = key_of(cls)
    if key in _registered:
        return
    table.check_open()
    if not _registered:
        for register_more in also_registered:
            register_more()
    if is_struct(cls):
        layout = cls._info
        if layout.allocation.by_type:
            publish(key, layout.size, layout.ptr_bytes, 0, mask_words(layout.reference_words), cls)
    elif trait(cls, "holds_links"):
        part = cls.layout.part
        words = part.reference_words
        publish(key, part.size, 8 * (words[-1] + 1), part.size, mask_words(words), cls)
    _registered.add(key)


def named(cls: Any) -> int:
    """The key of a class whose name the type table has from now on, for processes that do not know the class. 0 if it has no key, or no room."""
    if cls not in _named:
        _named[cls] = 0
        with contextlib.suppress(
            TypeError, OutOfMemory
        ):  # it refers to a struct that is not declared; the table is full
            if is_declared(cls):
                _named[cls] = _name(cls)
    return _named[cls]


def _name(cls: Any) -> int:
    register(cls)
    key = key_of(cls)
    publish(key, 0, 0, 0, [], cls)  # of a class whose objects do not carry their type
    name_type(find_type(key), *packing.unpack("<3q", called(cls).encode()[:24].ljust(24, b"\0")))
    return key


def mask_words(reference_words: tuple[int, ...]) -> list[int]:
    """The pointer mask of a type: bit i is word i."""
    words = [0] * (reference_words[-1] // 64 + 1) if reference_words else []
    for i in reference_words:
        words[i // 64] |= 1 << (i % 64)
    return [signed(w) for w in words]


def publish(key: int, size: int, ptr_bytes: int, elem_size: int, words: list[int], cls: type) -> None:
    if find_type(key):
        return
    what = f"the type {cls.__name__} in the type table"
    mask = check_table(table.call(reserve_mask, len(words)), what)
    for i, word in enumerate(words):
        set_mask_word(mask, i, word)
    check_table(table.call(publish_type, key, size, ptr_bytes, elem_size, mask), what)
