"""``Global.get`` and ``Global.set`` in compiled code.

A global is found through a word of this process, known to the linker by the symbol of its name: the place in the root table, once it was looked up.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from gomp.core.jit import inline
from gomp.core.mutator.barrier import read_pointer
from gomp.core.mutator.boundary import OK, bind_global, global_addr, global_type_of, set_global
from gomp.core.shm.atomics import load64, store64
from gomp.errors import OutOfMemory
from gomp.runtime.references import key_of, name_of
from gomp.runtime.refops import address
from gomp.runtime.reftypes import GlobalType, can_store, in_compiled_code, numba_type, refusal, shown
from gomp.runtime.root_table import UNBOUND, Global

_I64 = ir.IntType(64)


@intrinsic  # type: ignore[untyped-decorator]
def _cell_addr(context: Any, root: Any) -> Any:
    """Address of the process's word that says where the global is."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        symbol = sig.args[0].root.symbol
        cell = builder.module.globals.get(symbol) or ir.GlobalVariable(builder.module, _I64, symbol)
        return builder.ptrtoint(cell, _I64)

    return types.int64(root), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _as_value(context: Any, root: Any, addr: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return args[1]

    return numba_type(root.root.cls)(root, types.int64), codegen


def _place_finder(root: Global[Any]) -> Any:
    w0, w1, w2, w3, w4, w5 = root.words

    @inline
    def place(cell: int) -> int:
        idx = load64(cell)
        if idx == UNBOUND:
            idx = bind_global(w0, w1, w2, w3, w4, w5)
            if idx < 0:
                raise OutOfMemory("no room for more globals")
            store64(cell, idx)
        return idx

    return place


def _wrong_type(root: Global[Any]) -> str:
    cls = root.cls
    return f"global {root.name!r} does not hold a {cls.__name__} as {name_of(cls)} is declared here; declare it alike in every process"


@in_compiled_code(GlobalType, "get")
def _get(root: Any) -> Any:
    place, key = _place_finder(root.root), key_of(root.root.cls)
    message = _wrong_type(root.root)

    def get(root: Any) -> Any:
        idx = place(_cell_addr(root))
        held = global_type_of(idx)
        if held != 0 and held != key:
            raise TypeError(message)
        return _as_value(root, read_pointer(global_addr(idx)))

    return get


@in_compiled_code(GlobalType, "set")
def _set(root: Any, value: Any) -> Any:
    if not can_store(numba_type(root.root.cls), value):
        where = f"global {root.root.name!r}"
        raise refusal(where, value, f"{where} holds {root.root.cls.__name__}, not {shown(value)}")
    place, key = _place_finder(root.root), key_of(root.root.cls)
    message = _wrong_type(root.root)

    def set(root: Any, value: Any) -> None:  # noqa: A001
        if set_global(place(_cell_addr(root)), address(value), key) != OK:
            raise TypeError(message)

    return set
