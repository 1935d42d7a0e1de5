"""Where a call in compiled code stands, as a constant that only a sampled allocation looks at (:mod:`~gomp.core.mutator.samples`)."""

from __future__ import annotations

import struct as packing
from typing import Any

from llvmlite import ir as llvm_ir
from numba.core import ir, types

from gomp.core.mutator.malloc import PROGRAM
from gomp.core.shm import layout
from gomp.core.shm.records import P_MAKES_AT
from gomp.runtime import arrays, sitetable, structs
from gomp.runtime.reftypes import MapRef, SlotType, TextRef
from gomp.runtime.sitetable import Site

MADE = "<frame "  # so begin the files of functions that gomp makes for Python
_I64 = llvm_ir.IntType(64)
_MAKE_TEXTS = ("binop", "inplace_binop", "getitem", "static_getitem")
_SAY_SO = (structs.new, arrays.array)  # their calls have places of their own


def stand_at(lower: Any, inst: Any) -> None:
    """What is lowered from here on stands where this statement does."""
    lower.builder.stands_at = lower.func_ir.func_id.func_qualname, inst.loc.filename, inst.loc.line
    if _shares_what_it_calls(lower, inst):
        place = lower.builder.inttoptr(llvm_ir.Constant(_I64, layout.SELF_BASE + P_MAKES_AT), _I64.as_pointer())
        lower.builder.store(caller_here(lower.context, lower.builder), place)


def _shares_what_it_calls(lower: Any, inst: ir.Stmt) -> bool:
    """Whether it may make an object in a function that other calls share: of a map, a text, a pool, a weak pointer."""
    if isinstance(inst, (ir.SetItem, ir.StaticSetItem)):
        return isinstance(lower.typeof(inst.target.name), MapRef)
    if not isinstance(inst, ir.Assign) or not isinstance(inst.value, ir.Expr):
        return False
    made, op = lower.typeof(inst.target.name), inst.value.op
    if op != "call":
        return isinstance(made, TextRef) and op in _MAKE_TEXTS
    callee = lower.typeof(inst.value.func.name)
    if isinstance(callee, types.BoundFunction):
        return isinstance(callee.this, (MapRef, TextRef))
    return (
        isinstance(made, SlotType) and getattr(callee, "typing_key", None) not in _SAY_SO and not _is_compiled(callee)
    )


def _is_compiled(callee: types.Type) -> bool:
    """Whether what it calls is a function of the program, in which other places follow."""
    return isinstance(callee, types.Dispatcher)


def caller_here(context: Any, builder: Any) -> Any:
    """For an allocation, its caller: the place at which the compiler is, or just a program."""
    where = getattr(builder, "stands_at", None)
    if where is None or where[1].startswith(MADE):
        return llvm_ir.Constant(_I64, PROGRAM)
    text = Site(*where).text
    key = sitetable.key_of(text)
    place = packing.pack("<qq", key, len(text)) + text
    return builder.ptrtoint(context.insert_const_bytes(builder.module, place, f"place.{key:x}"), _I64)
