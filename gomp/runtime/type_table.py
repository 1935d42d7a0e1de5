"""The runtime's type table, as Python fills it: the types of objects that carry their type (see ``gomp/core/mutator/types.py``)."""

from __future__ import annotations

import contextlib
import ctypes
import struct as packing
from collections.abc import Callable
from typing import Any

from gomp.core.mutator.types import describe_type, find_type, publish_type, reserve_mask, set_mask_word
from gomp.core.shm import layout
from gomp.core.shm.atomics import signed
from gomp.core.shm.records import type_dtype, view
from gomp.errors import OutOfMemory
from gomp.runtime import handles
from gomp.runtime.handles import check_table, table
from gomp.runtime.references import (
    LAYOUT_BITS,
    called,
    is_declared,
    is_struct,
    key_of,
    layout_of,
    reached_from,
    trait,
)

_MAX_TEXT = 2048

_registered: set[int] = set()
_described: dict[Any, int] = {}
also_registered: list[Callable[[], None]] = []  # what makes types known that have no class: called once a runtime
for _known in (_registered, _described):
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
        info = cls._info
        if info.allocation.by_type:
            publish(key, info.size, info.ptr_bytes, 0, mask_words(info.reference_words), cls)
    elif trait(cls, "holds_links"):
        part = cls.layout.part
        words = part.reference_words
        publish(key, part.size, 8 * (words[-1] + 1), part.size, mask_words(words), cls)
    _registered.add(key)


def described(cls: Any) -> int:
    """The key of a class of which the type table has a description from now on, and of all that it leads to, for processes that do not know it,
    or otherwise. 0 if it has no key, or no room.
    """
    if cls not in _described:
        with contextlib.suppress(
            TypeError, OutOfMemory
        ):  # it refers to a struct that is not declared; the table is full
            if is_declared(cls):
                for each in reached_from([cls]):
                    _described[each] = _describe(each)
        _described.setdefault(cls, 0)
    return _described[cls]


def _describe(cls: Any) -> int:
    register(cls)
    key = key_of(cls)
    publish(key, 0, 0, 0, [], cls)  # of a class whose objects do not carry their type
    found = find_type(key)
    if not view(type_dtype, found)[0].text:
        text = f"{called(cls)}\n{layout_of(cls).text}".encode()[:_MAX_TEXT]
        words = [word for (word,) in packing.iter_unpack("<q", text.ljust((len(text) + 7) & -8))]
        describe_type(found, reserved(words, f"the description of {cls.__name__}"), len(text))
    return key


def description(key: int) -> str:
    """What is known of a type, whoever has declared it: what it is called, and on a second line its layout, if that is not too long. Or ""."""
    found = find_type(key)
    return _text(view(type_dtype, found)[0]) if found else ""


def descriptions(name_hash: int) -> list[str]:
    """The layouts of all types of this name."""
    types = view(type_dtype, layout.TYPES_BASE, layout.MAX_TYPES)
    alike = types[(types["key"] >> LAYOUT_BITS) == name_hash]
    return [text.partition("\n")[2] for text in map(_text, alike) if text]


def _text(record: Any) -> str:
    return ctypes.string_at(int(record.text), int(record.text_bytes)).decode(errors="replace") if record.text else ""


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
    check_table(table.call(publish_type, key, size, ptr_bytes, elem_size, reserved(words, what)), what)


def reserved(words: list[int], what: str) -> int:
    """The address of these words among the masks, where they stay."""
    addr = check_table(table.call(reserve_mask, len(words)), what)
    for i, word in enumerate(words):
        set_mask_word(addr, i, word)
    return addr
