"""Maps in compiled code: what :mod:`~gomp.runtime.reftypes` says of structs and arrays, for ``gomp.Map[T]``.

====================  ================================================================================================
``m[key]``            KeyError if it is not there
``m.get(key)``        None if it is not there
``m[key] = value``    ``value`` is a T
``del m[key]``        KeyError if it is not there
``m.pop(key)``        what was removed, or None
``key in m``          and ``len(m)``
``gomp.map(T)``       a new one
====================  ================================================================================================

Keys are ints, Strs and Bytes: :data:`KEYS` says how a key's META word, and its int or the address of its bytes, come from a value of its type.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from numba.core import types
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, Signature, infer_getattr, infer_global
from numba.extending import intrinsic, lower_builtin

from gomp.core.jit import inline
from gomp.core.mutator.boundary import OK
from gomp.core.mutator.hashmap import BYTES_KEY, INT_KEY, KIND_BITS, MAX_KEY_BYTES, STR_KEY, find_value
from gomp.core.mutator.mapcalls import ABSENT, clear_waiting, map_len, new_map, put_waiting, remove_waiting
from gomp.core.shm.atomics import load64
from gomp.errors import NilDereference, OutOfMemory
from gomp.runtime import hashmap
from gomp.runtime.hashmap import Map
from gomp.runtime.references import key_of
from gomp.runtime.refops import HEAP_FULL, address
from gomp.runtime.reftypes import (
    MapRef,
    NullType,
    StructClass,
    TextRef,
    can_store,
    in_compiled_code,
    numba_type,
    rejection,
    shown,
)
from gomp.runtime.texts import BYTES_HEADER, STR_HEADER, Bytes, Str


@inline
def _int_meta(key: int) -> int:
    return INT_KEY


@inline
def _int_word(key: int) -> int:
    return key


@inline
def _text_bytes(text: int) -> int:
    if text == 0:
        raise NilDereference("a key that is None")
    n = load64(text)
    if n > MAX_KEY_BYTES:
        raise ValueError("a key has at most 65536 bytes")
    return n << KIND_BITS


# From a reference, for which Numba takes no annotation.
_str_meta = inline(lambda key: STR_KEY | _text_bytes(address(key)))
_str_word = inline(lambda key: address(key) + STR_HEADER)
_bytes_meta = inline(lambda key: BYTES_KEY | _text_bytes(address(key)))
_bytes_word = inline(lambda key: address(key) + BYTES_HEADER)

# By what a key is: the inlined functions from it to its META word, and to its int or the address of its bytes.
KEYS: dict[Any, tuple[Callable[..., int], Callable[..., int]]] = {
    int: (_int_meta, _int_word),
    Str: (_str_meta, _str_word),
    Bytes: (_bytes_meta, _bytes_word),
}


def _how(m: MapRef, key: types.Type) -> tuple[Callable[..., int], Callable[..., int]]:
    kind = int if isinstance(key, types.Integer) else key.cls if isinstance(key, TextRef) else None
    if kind not in KEYS:
        raise rejection(
            f"a key of a {shown(m)} cannot be {shown(key)} in compiled code: use an int, a gomp.Str or gomp.Bytes"
        )
    return KEYS[kind]


def _require_elem(m: MapRef) -> Any:
    if m.cls.elem is None:
        raise rejection("what a map holds is unknown here: make it with gomp.map(T), and it is a gomp.Map[T]")
    return m.cls.elem


@inline
def _check_map(m: int) -> int:
    if m == 0:
        raise NilDereference("a map that is None")
    return m


def _value_type(m: MapRef) -> types.Type:
    return numba_type(_require_elem(m))


@intrinsic  # type: ignore[untyped-decorator]
def _as_value(context: Any, m: Any, addr: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return args[1]

    return _value_type(m)(m, types.int64), codegen


@in_compiled_code(operator.getitem)
def _getitem(m: Any, key: Any) -> Any:
    if not isinstance(m, MapRef):
        return None
    _require_elem(m)
    meta, word = _how(m, key)

    def getitem(m: Any, key: Any) -> Any:
        value = find_value(_check_map(address(m)), meta(key), word(key))
        if value == 0:
            raise KeyError("the key is not in the map")
        return _as_value(m, value)

    return getitem


@in_compiled_code(MapRef, "get")
def _get(m: Any, key: Any) -> Any:
    _require_elem(m)
    meta, word = _how(m, key)
    return lambda m, key: _as_value(m, find_value(_check_map(address(m)), meta(key), word(key)))


@in_compiled_code(operator.contains)
def _contains(m: Any, key: Any) -> Any:
    if not isinstance(m, MapRef):
        return None
    meta, word = _how(m, key)
    return lambda m, key: find_value(_check_map(address(m)), meta(key), word(key)) != 0


@in_compiled_code(operator.setitem)
def _setitem(m: Any, key: Any, value: Any) -> Any:
    if not isinstance(m, MapRef):
        return None
    elem = _require_elem(m)
    if not can_store(numba_type(elem), value) or isinstance(value, NullType):
        raise rejection(f"a {shown(m)} holds a {elem.__name__}, not {shown(value)}")
    meta, word = _how(m, key)
    type_key = key_of(elem)

    def setitem(m: Any, key: Any, value: Any) -> None:
        if address(value) == 0:
            raise NilDereference("None is no value of a map: to remove a key, del it")
        if put_waiting(_check_map(address(m)), meta(key), word(key), address(value), type_key) != OK:
            raise OutOfMemory(HEAP_FULL)

    return setitem


@in_compiled_code(operator.delitem)
def _delitem(m: Any, key: Any) -> Any:
    if not isinstance(m, MapRef):
        return None
    meta, word = _how(m, key)

    def delitem(m: Any, key: Any) -> None:
        if remove_waiting(_check_map(address(m)), meta(key), word(key)) == ABSENT:
            raise KeyError("the key is not in the map")

    return delitem


@in_compiled_code(MapRef, "pop")
def _pop(m: Any, key: Any) -> Any:
    _require_elem(m)
    meta, word = _how(m, key)
    return lambda m, key: _as_value(m, remove_waiting(_check_map(address(m)), meta(key), word(key)))


@in_compiled_code(MapRef, "clear")
def _clear(m: Any) -> Any:
    return lambda m: clear_waiting(_check_map(address(m)))


@in_compiled_code(len)
def _len(m: Any) -> Any:
    if isinstance(m, MapRef):
        return lambda m: map_len(_check_map(address(m)))
    return None


@in_compiled_code(bool)
def _bool(m: Any) -> Any:
    if isinstance(m, MapRef):
        return lambda m: address(m) != 0 and map_len(address(m)) != 0
    return None


@infer_getattr
class _MapAttribute(AttributeTemplate):  # type: ignore[misc]
    key = MapRef

    def generic_resolve(self, type_: MapRef, attr: str) -> None:
        if attr not in ("get", "pop", "clear"):
            what = "is a method of Python's side" if hasattr(type_.cls, attr) else "is no method"
            raise rejection(f"{attr} {what}; in compiled code a {shown(type_)} has get, pop and clear")


# --- making one -------------------------------------------------------------------------------------------------------


@infer_global(hashmap.map)
class _Map(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
        if len(args) != 1 or kws or not isinstance(args[0], StructClass):
            raise rejection("write gomp.map(T), with T the struct that it holds")
        return Signature(numba_type(Map[args[0].cls]), args, recvr=None)  # type: ignore[misc]


def _new_map() -> int:
    m = new_map()
    if m == 0:
        raise OutOfMemory(HEAP_FULL)
    return m


@lower_builtin(hashmap.map, types.Any)
def _lower_map(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    return context.compile_internal(builder, _new_map, types.int64(), ())
