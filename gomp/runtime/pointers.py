"""Pointers: references, and places in objects; and what all calls that take one say of what is none, and of a place where nothing can be armed."""

from __future__ import annotations

from typing import Any

import numpy as np

from gomp.core.mutator import boundary, specialcalls
from gomp.errors import OutOfMemory
from gomp.runtime.fields import Field
from gomp.runtime.references import Reference, address_of, is_struct, is_usable, owner_of_lost, read_inside
from gomp.runtime.structs import info

__all__ = ["Pointer", "address", "keep_alive", "pointer"]

_TINY_BYTES = 16


class Pointer(Reference):
    """A place in an object, which it keeps alive. Equal to another that points to the same place."""

    __slots__ = ("is_tiny",)
    is_tiny: bool  # whether it may lie anywhere in its slot

    def __repr__(self) -> str:
        return f"<pointer {self.address:#x}>" if is_usable(self) else f"<pointer of {owner_of_lost(self)}>"

    def __copy__(self) -> Any:
        return self

    def __reduce__(self) -> Any:
        raise TypeError(
            "a pointer into an object stays in its process: send the object, and take gomp.pointer of it there"
        )


def pointer(obj: Any, field: str) -> Pointer:
    """A pointer to a field of ``obj``."""
    found = getattr(type(obj), field, None) if isinstance(obj, Reference) else None
    if not isinstance(found, Field):
        raise TypeError(
            f"gomp.pointer({type(obj).__name__}, {field!r}): give an object and the name of one of its fields"
        )
    made: Pointer = read_inside(Pointer, obj, found.offset)
    made.is_tiny = not found.part.reference_words and found.part.size < _TINY_BYTES
    return made


def may_be_tiny(obj: Reference) -> bool:
    """Whether it has no references and less than 16 bytes: then it may lie anywhere in a slot."""
    if isinstance(obj, Pointer):
        return obj.is_tiny
    return is_struct(type(obj)) and not info(type(obj)).reference_words and info(type(obj)).size < _TINY_BYTES


def has_own_slot(obj: Reference) -> bool:
    """Whether its class says that no other object lies in its slot."""
    return (isinstance(obj, Pointer) or is_struct(type(obj))) and not may_be_tiny(obj)


def no_pointer(value: object) -> str:
    """What is wrong with what should be a pointer."""
    if isinstance(value, np.ndarray):
        return f"{type(value).__name__} is an array of numpy's: weakref.ref and weakref.finalize know when this process has let go of it"
    return f"{type(value).__name__} is no pointer into the shared heap: give what gomp.new, gomp.array, gomp.map, gomp.str or gomp.bytes has made"


def error_of(status: int, kind: type[Exception], pointer: str) -> Exception:
    """What to raise where a kernel has answered with a status: a ``kind`` of error, or OutOfMemory. ``pointer`` begins the message."""
    match status:
        case specialcalls.NOT_IN_BLOCK:
            return kind(f"{pointer} not in allocated block")
        case specialcalls.NOT_AT_START:
            return kind(f"{pointer} not at beginning of allocated block")
        case specialcalls.ALREADY_SET:
            return kind("runtime.SetFinalizer: finalizer already set")
        case boundary.OUT_OF_MEMORY:
            return OutOfMemory("no memory for another finalizer, cleanup or weak pointer, even after a collection")
        case _:
            raise AssertionError(f"status {status} of a kernel")


def address(obj: object) -> int:
    """Where the object is, as a number that keeps nothing alive: ``obj.address``, for type checkers, and where a field has that name."""
    if not isinstance(obj, Reference):
        raise TypeError(f"gomp.address: {no_pointer(obj)}")
    return address_of(obj)


def keep_alive(*objects: object) -> None:
    """Nothing; but whoever has to hold the objects until this call does. For what still uses an object's memory by its bare address."""
