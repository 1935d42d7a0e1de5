"""``for c in text`` in compiled code: the characters of a Str, as Numba's strings of length 1, and the bytes of a Bytes, as ints."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import RefType as Ownership
from numba.core.imputils import iternext_impl
from numba.core.typing.templates import Signature
from numba.extending import lower_builtin, models, register_model

from gomp.core.jit import inline
from gomp.core.shm.atomics import load8, load64
from gomp.runtime.polling import keep_on_stack
from gomp.runtime.refops import call_inline
from gomp.runtime.reftypes import TextRef, walks
from gomp.runtime.texts import BYTES_HEADER, STR_HEADER, Str
from gomp.runtime.texttypes import check_text, code_point_at, next_character

_I64 = ir.IntType(64)


class TextWalk(types.common.SimpleIteratorType):  # type: ignore[misc,name-defined]
    """A walk: the text, and how many of its bytes a word in the program's frame says are behind."""

    def __init__(self, text: TextRef) -> None:
        self.is_str = text.cls is Str
        super().__init__(name=f"walk over {text.name}", yield_type=types.unicode_type if self.is_str else types.int64)


@register_model(TextWalk)
class _WalkModel(models.StructModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: TextWalk) -> None:
        super().__init__(manager, fe_type, [("base", types.int64), ("done", types.CPointer(types.int64))])


walks[TextRef] = TextWalk


@lower_builtin("getiter", TextRef)
def _begin(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    walk = context.make_helper(builder, sig.return_type)
    walk.base = call_inline(context, builder, check_text, types.int64, args)
    keep_on_stack(builder, walk.base, "walked")
    walk.done = cgutils.alloca_once_value(builder, ir.Constant(_I64, 0))
    return walk._getvalue()


@inline
def _byte_at(base: int, done: int) -> tuple[int, int]:
    return load8(base + BYTES_HEADER + done), done + 1


@inline
def _character_at(base: int, done: int) -> tuple[int, int]:
    at = base + STR_HEADER + done
    return code_point_at(at), next_character(at) - base - STR_HEADER


def _as_string(code_point: int) -> str:
    return chr(code_point)


@lower_builtin("iternext", TextWalk)
@iternext_impl(Ownership.NEW)
def _step(context: Any, builder: Any, sig: Signature, args: Any, result: Any) -> None:
    (walk_type,) = sig.args
    walk = context.make_helper(builder, walk_type, value=args[0])
    done = builder.load(walk.done)
    n = call_inline(context, builder, load64, types.int64, (walk.base,))
    is_there = builder.icmp_signed("<", done, n)
    result.set_valid(is_there)
    with builder.if_then(is_there):
        read = _character_at if walk_type.is_str else _byte_at
        found, after = cgutils.unpack_tuple(builder, call_inline(context, builder, read, None, (walk.base, done)), 2)
        builder.store(after, walk.done)
        if walk_type.is_str:
            found = context.compile_internal(builder, _as_string, types.unicode_type(types.int64), (found,))
        result.yield_(found)
