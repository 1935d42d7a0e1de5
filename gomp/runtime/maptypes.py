"""Maps in compiled code: what :mod:`~gomp.runtime.reftypes` says of structs and arrays, for ``gomp.Map[T]``.

====================  ================================================================================================
``m[key]``            KeyError if it is not there
``m.get(key)``        None if it is not there, or a default
``m[key] = value``    ``value`` is a T
``del m[key]``        KeyError if it is not there
``m.pop(key)``        what was removed; KeyError, or a default
``m.setdefault(…)``   what is there, else the default from now on
``key in m``          ``len(m)``, ``m.clear()``, walks (``mapwalks``)
``gomp.map(T)``       a new one; ``gomp.map(str, T)``
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
from gomp.core.mutator.boundary import OUT_OF_MEMORY
from gomp.core.mutator.hashmap import ADDED, BYTES_KEY, INT_KEY, KIND_BITS, MAX_KEY_BYTES, STR_KEY, find_value
from gomp.core.mutator.mapcalls import ABSENT, clear_waiting, map_len, new_map, put_waiting, remove_waiting
from gomp.core.shm.atomics import load64
from gomp.errors import NilDereference, OutOfMemory
from gomp.runtime import hashmap
from gomp.runtime.hashmap import map_class
from gomp.runtime.mapkeys import ANY_KEY, KIND_NAMES, kind_of
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
    refusal,
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

_MISSING = "missing"  # in place of a default that was not given

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
    if m.cls.key_kind not in (ANY_KEY, kind_of(kind)):
        raise rejection(f"a key of a {shown(m)} is {KIND_NAMES[m.cls.key_kind]}, not {shown(key)}")
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


def _is_none(default: Any) -> bool:
    return default is None or isinstance(default, (types.Omitted, NullType))


def _check_held(m: MapRef, value: types.Type, what: str) -> None:
    """CompileError if a value of that type, or None, is not what the map holds."""
    elem = _require_elem(m)
    if not can_store(numba_type(elem), value):
        raise refusal(f"a {shown(m)}", value, f"{what} a {shown(m)} is a {elem.__name__}, not {shown(value)}")


@in_compiled_code(MapRef, "get")
def _get(m: Any, key: Any, default: Any = None) -> Any:
    meta, word = _how(m, key)
    _require_elem(m)

    def get_or_none(m: Any, key: Any, default: Any = None) -> Any:
        return _as_value(m, find_value(_check_map(address(m)), meta(key), word(key)))

    def get(m: Any, key: Any, default: Any = None) -> Any:
        value = find_value(_check_map(address(m)), meta(key), word(key))
        return _as_value(m, value if value != 0 else address(default))

    if _is_none(default):
        return get_or_none
    _check_held(m, default, "a default of")
    return get


@in_compiled_code(operator.contains)
def _contains(m: Any, key: Any) -> Any:
    if not isinstance(m, MapRef):
        return None
    meta, word = _how(m, key)
    return lambda m, key: find_value(_check_map(address(m)), meta(key), word(key)) != 0


@inline
def _check_value(value: int) -> int:
    if value == 0:
        raise NilDereference("None is no value of a map: to remove a key, del it")
    return value


@in_compiled_code(operator.setitem)
def _setitem(m: Any, key: Any, value: Any) -> Any:
    if not isinstance(m, MapRef):
        return None
    _check_held(m, value, "a value of")
    meta, word = _how(m, key)
    type_key = key_of(m.cls.elem)

    def setitem(m: Any, key: Any, value: Any) -> None:
        held = _check_value(address(value))
        if put_waiting(_check_map(address(m)), meta(key), word(key), held, type_key, 0) == OUT_OF_MEMORY:
            raise OutOfMemory(HEAP_FULL)

    return setitem


@in_compiled_code(MapRef, "setdefault")
def _setdefault(m: Any, key: Any, default: Any) -> Any:
    _check_held(m, default, "a value of")
    meta, word = _how(m, key)
    type_key = key_of(m.cls.elem)

    def setdefault(m: Any, key: Any, default: Any) -> Any:
        at, held = _check_map(address(m)), _check_value(address(default))
        value = find_value(at, meta(key), word(key))
        while value == 0:
            done = put_waiting(at, meta(key), word(key), held, type_key, 1)
            if done == OUT_OF_MEMORY:
                raise OutOfMemory(HEAP_FULL)
            value = held if done == ADDED else find_value(at, meta(key), word(key))
        return _as_value(m, value)

    return setdefault


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
def _pop(m: Any, key: Any, default: Any = _MISSING) -> Any:
    meta, word = _how(m, key)
    _require_elem(m)

    def pop(m: Any, key: Any, default: Any = _MISSING) -> Any:
        value = remove_waiting(_check_map(address(m)), meta(key), word(key))
        if value == 0:
            raise KeyError("the key is not in the map")
        return _as_value(m, value)

    def pop_or_none(m: Any, key: Any, default: Any = _MISSING) -> Any:
        return _as_value(m, remove_waiting(_check_map(address(m)), meta(key), word(key)))

    def pop_or_default(m: Any, key: Any, default: Any = _MISSING) -> Any:
        value = remove_waiting(_check_map(address(m)), meta(key), word(key))
        return _as_value(m, value if value != 0 else address(default))

    if default is _MISSING or isinstance(default, types.Omitted):
        return pop
    if _is_none(default):
        return pop_or_none
    _check_held(m, default, "a default of")
    return pop_or_default


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


_METHODS = ("get", "setdefault", "pop", "keys", "values", "items", "clear")


@infer_getattr
class _MapAttribute(AttributeTemplate):  # type: ignore[misc]
    key = MapRef

    def generic_resolve(self, type_: MapRef, attr: str) -> None:
        if attr not in _METHODS:
            what = "is a method of Python's side" if hasattr(type_.cls, attr) else "is no method"
            raise rejection(f"{attr} {what}; in compiled code a {shown(type_)} has {', '.join(_METHODS)}")


# --- making one -------------------------------------------------------------------------------------------------------


@infer_global(hashmap.map)
class _Map(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
        if kws or len(args) not in (1, 2) or not isinstance(args[-1], StructClass):
            raise rejection(
                "write gomp.map(T) or gomp.map(K, T), with T what it holds, and K one of int, str and bytes"
            )
        key = Any if len(args) == 1 else getattr(args[0], "typing_key", None) or getattr(args[0], "cls", None)
        try:
            kind = kind_of(key)
        except TypeError as error:
            raise rejection(str(error)) from None
        return Signature(numba_type(map_class(args[-1].cls, kind)), args, recvr=None)


def _new_map() -> int:
    m = new_map()
    if m == 0:
        raise OutOfMemory(HEAP_FULL)
    return m


@lower_builtin(hashmap.map, types.Any)
@lower_builtin(hashmap.map, types.Any, types.Any)
def _lower_map(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    return context.compile_internal(builder, _new_map, types.int64(), ())
