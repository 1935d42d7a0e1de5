"""Pools in compiled code: ``POOL.get()`` and ``POOL.put(x)``, for a ``gomp.Pool`` of a module.

A new object comes from a struct, or from a compiled function.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_constant
from numba.extending import intrinsic, models, register_model, typeof_impl

from gomp.core.jit import inline
from gomp.core.mutator.pool import OTHER_TYPE, bind_pool_waiting, give, take
from gomp.core.shm.atomics import load64, store64
from gomp.errors import OutOfMemory
from gomp.runtime.pool import UNBOUND, Pool
from gomp.runtime.references import is_struct, key_of
from gomp.runtime.refops import address
from gomp.runtime.reftypes import can_store, in_compiled_code, numba_type, rejection, shown
from gomp.runtime.structs import new as new_struct


class PoolType(types.Type):
    """A ``gomp.Pool``."""

    def __init__(self, pool: Pool[Any]) -> None:
        self.pool = pool
        super().__init__(name=f"Pool {pool.name}: {pool.cls.__name__}#{key_of(pool.cls):x}")


register_model(PoolType)(models.OpaqueModel)


@typeof_impl.register(Pool)
def _typeof_pool(value: Pool[Any], context: object) -> types.Type:
    return PoolType(value)


@lower_constant(PoolType)
def _no_value(context: Any, builder: Any, type_: types.Type, value: object) -> Any:
    return context.get_dummy_value()


@intrinsic  # type: ignore[untyped-decorator]
def _cell_addr(context: Any, pool: Any) -> Any:
    """Address of the process's word that says which number the pool has."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        symbol, i64 = sig.args[0].pool.symbol, ir.IntType(64)
        cell = builder.module.globals.get(symbol) or ir.GlobalVariable(builder.module, i64, symbol)
        return builder.ptrtoint(cell, i64)

    return types.int64(pool), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _as_value(context: Any, pool: Any, addr: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return args[1]

    return numba_type(pool.pool.cls)(pool, types.int64), codegen


def _place_finder(pool: Pool[Any]) -> Any:
    w0, w1, w2, w3 = pool.words
    key, max_bytes = key_of(pool.cls), pool.max_bytes
    too_many, other_type = pool.too_many, pool.other_type

    @inline
    def place(cell: int) -> int:
        n = load64(cell)
        if n == UNBOUND:
            n = bind_pool_waiting(w0, w1, w2, w3, key, max_bytes)
            if n == OTHER_TYPE:
                raise TypeError(other_type)
            if n < 0:
                raise OutOfMemory(too_many)
            store64(cell, n)
        return n

    return place


@in_compiled_code(PoolType, "get")
def _get(pool: Any) -> Any:
    place, cls, new = _place_finder(pool.pool), pool.pool.cls, pool.pool.new

    def get_or_none(pool: Any) -> Any:
        return _as_value(pool, take(place(_cell_addr(pool))))

    def get_or_new(pool: Any) -> Any:
        value = take(place(_cell_addr(pool)))
        if value == 0:
            return new_struct(cls)
        return _as_value(pool, value)

    def get_or_made(pool: Any) -> Any:
        value = take(place(_cell_addr(pool)))
        if value == 0:
            return new()
        return _as_value(pool, value)

    if new is None:
        return get_or_none
    return get_or_new if is_struct(new) else get_or_made


@in_compiled_code(PoolType, "put")
def _put(pool: Any, value: Any) -> Any:
    cls = pool.pool.cls
    if not can_store(numba_type(cls), value):
        raise rejection(f"pool {pool.pool.name!r} holds a {cls.__name__}, not {shown(value)}")
    place = _place_finder(pool.pool)
    return lambda pool, value: give(place(_cell_addr(pool)), address(value))
