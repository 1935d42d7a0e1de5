"""Walks over maps in compiled code: ``for key in m``, ``m.keys()``, ``m.values()`` and ``m.items()``, with the promises of those from Python.

A walk is where it stands, the map itself or an entry: an address in the program's frame, which keeps the entry, and what the entry leads to. It takes
no lock. Its loop polls as every loop does, and a step that passes many nodes without an entry polls too.

What a key is has to be known when the walk is compiled, so the map's type says it: of a ``gomp.Map[int, T]`` an int, of a ``gomp.Map[str, T]``
or ``gomp.Map[bytes, T]`` a new Str or Bytes of the heap.
"""

from __future__ import annotations

from typing import Any

from numba.core import cgutils, types
from numba.core.imputils import RefType as Ownership
from numba.core.imputils import iternext_impl
from numba.extending import intrinsic, lower_builtin, models, register_model

from gomp.core.jit import inline
from gomp.core.mutator.boundary import set_length
from gomp.core.mutator.hashmap import BYTES_KEY, INT_KEY, KEY, KIND_BITS, META, NEXT, STR_KEY, VALUE, is_entry
from gomp.core.mutator.malloc import PROGRAM, new_bytes
from gomp.core.mutator.mapcalls import map_len
from gomp.core.shm.atomics import load8, load64, load_acquire, store64
from gomp.errors import NilDereference, OutOfMemory
from gomp.runtime.mapkeys import ANY_KEY
from gomp.runtime.polling import poll_in_loop
from gomp.runtime.refops import HEAP_FULL, address, call_inline
from gomp.runtime.reftypes import MapRef, in_compiled_code, numba_type, rejection, shown, walks
from gomp.runtime.texts import BYTES_HEADER, CHARACTERS, STR_HEADER, Bytes, Str

_POLL_AFTER = 1024
KEYS, VALUES, ITEMS = "keys", "values", "items"


class MapView(types.IterableType):  # type: ignore[misc]
    """``m.keys()``, ``m.values()`` or ``m.items()``: the map's address."""

    def __init__(self, m: MapRef, what: str) -> None:
        self.map, self.what = m, what
        super().__init__(name=f"{what} of {m.name}")

    @property
    def iterator_type(self) -> MapWalk:
        return MapWalk(self.map, self.what)


class MapWalk(types.common.SimpleIteratorType):  # type: ignore[misc,name-defined]
    """A walk: where a word in the program's frame says that it stands."""

    def __init__(self, m: MapRef, what: str) -> None:
        self.map, self.what = m, what
        self.node = types.CPointer(types.int64)
        key = None if what == VALUES else _key_type(m)
        value = None if what == KEYS else _value_type(m)
        given = types.Tuple((key, value)) if what == ITEMS else key or value
        super().__init__(name=f"walk over {what} of {m.name}", yield_type=given)


def _key_type(m: MapRef) -> types.Type:
    kind = m.cls.key_kind
    if kind == ANY_KEY:
        of = f", {m.cls.elem.__name__}]" if m.cls.elem else ", T]"
        raise rejection(
            f"keys of a {shown(m)} may be ints, texts and bytes: to walk over them in compiled code, declare it gomp.Map[int{of}, "
            f"gomp.Map[str{of} or gomp.Map[bytes{of}; m.values() needs no such type"
        )
    return types.int64 if kind == INT_KEY else numba_type(Str if kind == STR_KEY else Bytes)


def _value_type(m: MapRef) -> types.Type:
    if m.cls.elem is None:
        raise rejection("what a map holds is unknown here: make it with gomp.map(T), and it is a gomp.Map[T]")
    return numba_type(m.cls.elem)


@register_model(MapView)
class _ViewModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: types.Type) -> None:
        super().__init__(manager, fe_type, manager[types.int64].get_value_type())


@register_model(MapWalk)
class _WalkModel(models.StructModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: MapWalk) -> None:
        super().__init__(manager, fe_type, [("node", fe_type.node)])


# --- beginning --------------------------------------------------------------------------------------------------------


@inline
def _checked(m: int) -> int:
    if m == 0:
        raise NilDereference("a walk over a map that is None")
    return m


def _declare_view(what: str) -> None:
    @intrinsic  # type: ignore[untyped-decorator]
    def as_view(context: Any, m: Any, addr: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return args[1]

        view = MapView(m, what)
        _ = view.iterator_type  # a walk that is impossible is refused here, in the line that asks for it
        return view(m, types.int64), codegen

    @in_compiled_code(MapRef, what)
    def _view(m: Any) -> Any:
        return lambda m: as_view(m, _checked(address(m)))


for _what in (KEYS, VALUES, ITEMS):
    _declare_view(_what)


@intrinsic  # type: ignore[untyped-decorator]
def _map_of(context: Any, view: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return args[0]

    return types.int64(view), codegen


@in_compiled_code(len)
def _len(view: Any) -> Any:
    return (lambda view: map_len(_map_of(view))) if isinstance(view, MapView) else None


walks[MapRef] = lambda m: MapWalk(m, KEYS)


@lower_builtin("getiter", MapRef)
@lower_builtin("getiter", MapView)
def _begin(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    walk = context.make_helper(builder, sig.return_type)
    walk.node = cgutils.alloca_once_value(builder, call_inline(context, builder, _checked, types.int64, args))
    return walk._getvalue()


# --- steps ------------------------------------------------------------------------------------------------------------


@inline
def _advance(node: int) -> tuple[int, int]:
    """The next entry after ``node`` and its value; 0 and 0 at the end, and after it."""
    steps = 0
    while node != 0:
        node = load_acquire(node + NEXT)
        if node != 0 and is_entry(node):
            value = load_acquire(node + VALUE)
            if value != 0:  # else it was removed while the walk stood before it
                return node, value
        steps += 1
        if steps % _POLL_AFTER == 0:
            poll_in_loop()
    return 0, 0


@lower_builtin("iternext", MapWalk)
@iternext_impl(Ownership.UNTRACKED)
def _step(context: Any, builder: Any, sig: Any, args: Any, result: Any) -> None:
    walk_type = sig.args[0]
    walk = context.make_helper(builder, walk_type, value=args[0])
    found = call_inline(context, builder, _advance, None, (builder.load(walk.node),))
    node, value = cgutils.unpack_tuple(builder, found, 2)
    builder.store(node, walk.node)
    is_there = builder.icmp_unsigned("!=", node, node.type(0))
    result.set_valid(is_there)
    with builder.if_then(is_there):
        result.yield_(_given(context, builder, walk_type, node, value))


def _given(context: Any, builder: Any, walk: MapWalk, node: Any, value: Any) -> Any:
    if walk.what == VALUES:
        return value
    key = call_inline(context, builder, _KEY_MAKERS[walk.map.cls.key_kind], types.int64, (node,))
    return key if walk.what == KEYS else context.make_tuple(builder, walk.yield_type, (key, value))


# --- keys -------------------------------------------------------------------------------------------------------------


@inline
def _int_key(node: int) -> int:
    return load64(node + KEY)


@inline
def _copied(node: int, header: int) -> int:
    """A text of the heap, with the bytes of an entry's key; the header is not filled."""
    n = load64(node + META) >> KIND_BITS
    text = new_bytes((header + n + 7) & -8, PROGRAM)
    if text == 0:
        raise OutOfMemory(HEAP_FULL)
    for at in range(0, n, 8):
        store64(text + header + at, load64(node + KEY + at))
    return text


@inline
def _bytes_key(node: int) -> int:
    text = _copied(node, BYTES_HEADER)
    set_length(text, load64(node + META) >> KIND_BITS)
    return text


@inline
def _str_key(node: int) -> int:
    text, n, characters = _copied(node, STR_HEADER), load64(node + META) >> KIND_BITS, 0
    for at in range(n):
        characters += load8(text + STR_HEADER + at) & 0xC0 != 0x80
    store64(text + CHARACTERS, characters)
    set_length(text, n)
    return text


_KEY_MAKERS = {INT_KEY: _int_key, STR_KEY: _str_key, BYTES_KEY: _bytes_key}
