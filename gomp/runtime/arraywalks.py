"""``for x in array`` in compiled code: as the elements at 0, 1, … are read one after another."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import RefType as Ownership
from numba.core.imputils import iternext_impl
from numba.core.typing.templates import Signature
from numba.extending import lower_builtin, models, register_model

from gomp.runtime.arraytypes import length_finder
from gomp.runtime.polling import keep_on_stack
from gomp.runtime.refops import call_inline, load_part
from gomp.runtime.reftypes import ArrayRef, walks

_I64 = ir.IntType(64)


class ArrayWalk(types.common.SimpleIteratorType):  # type: ignore[misc,name-defined]
    """A walk: the array, and where a word in the program's frame says which element is next."""

    def __init__(self, array: ArrayRef) -> None:
        self.array = array
        super().__init__(name=f"walk over {array.name}", yield_type=array.elem)


@register_model(ArrayWalk)
class _WalkModel(models.StructModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: ArrayWalk) -> None:
        super().__init__(manager, fe_type, [("base", types.int64), ("index", types.CPointer(types.int64))])


walks[ArrayRef] = ArrayWalk


@lower_builtin("getiter", ArrayRef)
def _begin(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    (base,) = args
    call_inline(
        context, builder, length_finder(sig.args[0].cls), types.int64, args
    )  # NilDereference before the first step
    keep_on_stack(builder, base, "walked")
    walk = context.make_helper(builder, sig.return_type)
    walk.base = base
    walk.index = cgutils.alloca_once_value(builder, ir.Constant(_I64, 0))
    return walk._getvalue()


@lower_builtin("iternext", ArrayWalk)
@iternext_impl(Ownership.UNTRACKED)
def _step(context: Any, builder: Any, sig: Signature, args: Any, result: Any) -> None:
    (walk_type,) = sig.args
    cls = walk_type.array.cls
    walk = context.make_helper(builder, walk_type, value=args[0])
    i = builder.load(walk.index)
    n = call_inline(context, builder, length_finder(cls), types.int64, (walk.base,))
    is_there = builder.icmp_signed("<", i, n)
    result.set_valid(is_there)
    with builder.if_then(is_there):
        builder.store(builder.add(i, ir.Constant(_I64, 1)), walk.index)
        at = builder.add(walk.base, builder.mul(i, ir.Constant(_I64, cls.layout.part.size)))
        result.yield_(load_part(context, builder, cls.layout.part, at, cls.layout.first))
