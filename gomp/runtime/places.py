"""Where a call in compiled code stands, as a constant that only a sampled allocation looks at (:mod:`~gomp.core.mutator.samples`)."""

from __future__ import annotations

import struct as packing
from typing import Any

from llvmlite import ir as llvm_ir

from gomp.core.mutator.malloc import PROGRAM
from gomp.runtime import sitetable
from gomp.runtime.sitetable import Site

MADE = "<frame "  # so begin the files of functions that gomp makes for Python
_I64 = llvm_ir.IntType(64)


def stand_at(lower: Any, loc: Any) -> None:
    """What is lowered from here on stands there."""
    lower.builder.stands_at = lower.func_ir.func_id.func_qualname, loc.filename, loc.line


def caller_here(context: Any, builder: Any) -> Any:
    """For an allocation, its caller: the place at which the compiler is, or just a program."""
    where = getattr(builder, "stands_at", None)
    if where is None or where[1].startswith(MADE):
        return llvm_ir.Constant(_I64, PROGRAM)
    text = Site(*where).text
    key = sitetable.key_of(text)
    place = packing.pack("<qq", key, len(text)) + text
    return builder.ptrtoint(context.insert_const_bytes(builder.module, place, f"place.{key:x}"), _I64)
