"""Keys of maps: how they cross from Python, and what ``gomp.Map[str, T]`` says of them.

A key is an int of 64 bits, a string or bytes; a ``gomp.Str`` or ``gomp.Bytes`` is the key that it is equal to. A map takes all of them, or those of
one kind, if its type says so: then compiled code knows what a walk over its keys gives.
"""

from __future__ import annotations

import ctypes
import operator
import types as python_types
from collections.abc import Callable
from typing import Any, get_args, get_origin

from gomp.core.jit import COMPILED
from gomp.core.mutator.hashmap import BYTES_KEY, INT_KEY, KEY, KIND_BITS, MAX_KEY_BYTES, META, STR_KEY
from gomp.core.shm.atomics import allow_range
from gomp.runtime.kinds import INT, Scalar, brief
from gomp.runtime.references import Reference, address_of, slot_of, word_at
from gomp.runtime.texts import Bytes, Str

Key = int | str | bytes
AnyKey = Key | Str | Bytes
ANY_KEY = -1
KIND_NAMES = {INT_KEY: "int", STR_KEY: "str", BYTES_KEY: "bytes"}
_KINDS: dict[Any, int] = {int: INT_KEY, INT: INT_KEY, str: STR_KEY, Str: STR_KEY, bytes: BYTES_KEY, Bytes: BYTES_KEY}
_KIND_MASK = (1 << KIND_BITS) - 1
_BYTES_OFFSET = bytes.__basicsize__ - 1  # of the first byte in a bytes object of CPython, a multiple of 8


def kind_of(annotation: Any) -> int:
    """The kind of keys that the K of ``gomp.Map[K, T]`` names; ANY_KEY for Any, object, and several of them. Raises TypeError."""
    if annotation is Any or annotation is object:
        return ANY_KEY
    if isinstance(annotation, python_types.UnionType) or "Union" in str(get_origin(annotation)):
        kinds = {kind_of(one) for one in get_args(annotation)}
        return kinds.pop() if len(kinds) == 1 else ANY_KEY
    if isinstance(annotation, (Scalar, type)) and annotation in _KINDS:
        return _KINDS[annotation]
    shown = getattr(annotation, "__name__", annotation)
    raise TypeError(
        f"the keys of a map are int, str or bytes, not {shown}: write gomp.Map[str, T], with T what it holds"
    )


def words(key: object) -> tuple[int, int, bytes]:
    """A key as it crosses: its META word, and an int or the address of its bytes; and those, which the caller holds meanwhile."""
    if isinstance(key, (Str, Bytes)):
        key = str(key) if isinstance(key, Str) else bytes(key)
    if isinstance(key, str):
        kind, data = STR_KEY, str.encode(key, "utf-8", "surrogatepass")
    elif isinstance(key, bytes):
        kind, data = (
            BYTES_KEY,
            bytes.__getitem__(key, slice(None)),
        )  # of a subclass, its bytes: whatever it says that they are
    else:
        return INT_KEY, _int_key(key), b""
    n = len(data)
    if n > MAX_KEY_BYTES:
        raise ValueError(f"a key has at most {MAX_KEY_BYTES} bytes, not {n}")
    return kind | n << KIND_BITS, id(data) + _BYTES_OFFSET if COMPILED else _copied(data), data


def words_of_kind(kind: int, map_name: str) -> Callable[[object], tuple[int, int, bytes]]:
    """The same, for maps whose keys are of one kind."""

    def words_of(key: object) -> tuple[int, int, bytes]:
        found = words(key)
        if found[0] & _KIND_MASK != kind:
            raise TypeError(f"a key of a {map_name} is {_a(KIND_NAMES[kind])}, not {type(key).__name__} {key!r}")
        return found

    return words_of


def _a(name: str) -> str:
    return f"an {name}" if name == "int" else f"a {name}" if name == "str" else name


_buffer = ctypes.create_string_buffer(MAX_KEY_BYTES + 16)


def _copied(data: bytes) -> int:
    """In plain Python kernels read only what is known to be mapped."""
    addr = (ctypes.addressof(_buffer) + 7) & -8
    allow_range(addr, MAX_KEY_BYTES + 8)
    ctypes.memmove(addr, data, len(data))
    return addr


def _int_key(key: object) -> int:
    try:
        number = operator.index(key)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"a key is an int, a str or bytes, not {type(key).__name__} {key!r}") from None
    if not INT.low <= number <= INT.high:
        raise OverflowError(f"an int key is an int64; {brief(number)} does not fit")
    return number


def key_of_entry(entry: Reference) -> Any:
    slot = slot_of(entry)
    meta = word_at(slot, META)
    if meta == INT_KEY:
        return word_at(slot, KEY)
    data = ctypes.string_at(address_of(entry) + KEY, meta >> KIND_BITS)  # the handle keeps it, and it never changes
    return data if meta & _KIND_MASK == BYTES_KEY else data.decode("utf-8", "surrogatepass")
