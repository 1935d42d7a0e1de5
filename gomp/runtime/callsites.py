"""Places in compiled code: what is put before calls that start goroutines or wait, and before the actions of frames.

==========================================  ==================================================================================
``gomp.go(F, ...)``, ``F.run(...)``, and    the number of the place goes to the P's record, from where a goroutine that begins takes it:
methods that wait                           a load, a compare and a store; the first time, the place gets into the table
``return f.call(...)`` and other actions    the line goes into the frame: a store
==========================================  ==================================================================================
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir as llvm_ir
from numba.core import ir, types
from numba.core.typing.templates import Signature
from numba.extending import intrinsic

from gomp.core.mutator.sites import note_known_site, note_site
from gomp.core.shm.records import FRAME_LINE
from gomp.runtime import current, sitetable
from gomp.runtime.frametypes import FrameClass, FrameRef
from gomp.runtime.places import MADE
from gomp.runtime.refops import call_inline
from gomp.runtime.reftypes import ChanRef, GroupRef, MutexRef
from gomp.runtime.select import select
from gomp.runtime.sitetable import Site

_I32, _I64 = llvm_ir.IntType(32), llvm_ir.IntType(64)
_STARTS_OR_WAITS = (FrameClass, ChanRef, GroupRef, MutexRef)


@intrinsic
def begin_at(context: Any, site: Any, labels: Any) -> Any:
    """In a compiled function that gomp has made: what follows begins at the place of that number, and a goroutine that begins there has the labels of
    that number, or those of who starts it."""

    def codegen(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
        call_inline(context, builder, note_known_site, types.none, tuple(args))
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), codegen


def note_call(lower: Any, inst: ir.Stmt) -> None:
    """Before a statement is lowered: note where it stands, if it is such a call."""
    if not isinstance(inst, ir.Assign) or not isinstance(inst.value, ir.Expr) or inst.value.op != "call":
        return
    callee = lower.typeof(inst.value.func.name)
    if isinstance(callee, types.BoundFunction):
        if isinstance(callee.this, FrameRef):
            _note_line(lower.builder, lower.loadvar(inst.value.func.name), inst.loc.line)
        elif isinstance(callee.this, _STARTS_OR_WAITS):
            _note_site(lower, inst.loc)
    elif getattr(callee, "typing_key", None) in (current.go, select):
        _note_site(lower, inst.loc)


def _note_line(builder: Any, frame: Any, line: int) -> None:
    place = builder.inttoptr(builder.add(frame, llvm_ir.Constant(_I64, FRAME_LINE)), _I32.as_pointer())
    builder.store(llvm_ir.Constant(_I32, line), place)


def _note_site(lower: Any, loc: ir.Loc) -> None:
    if loc.filename.startswith(MADE):
        return
    site = Site(lower.func_ir.func_id.func_qualname, loc.filename, loc.line)
    builder, text, key = lower.builder, site.text, sitetable.key_of(site.text)
    # Bytes of one name are the same in all of a module.
    at = builder.ptrtoint(lower.context.insert_const_bytes(builder.module, text, f"site.{key:x}"), _I64)
    words = (llvm_ir.Constant(_I64, key), at, llvm_ir.Constant(_I64, len(text)))
    call_inline(lower.context, builder, note_site, types.none, words)
