"""Classes written out in compiled code, as ``gomp.Array[Node]`` and ``gomp.Map[int, Node]``, are worked out before anything is typed."""

from __future__ import annotations

import types as python_types
from typing import Any

from numba.core import errors, ir
from numba.core.ir_utils import get_definition, guard

from gomp.runtime.arrays import Array
from gomp.runtime.boxes import Box
from gomp.runtime.chan import Chan
from gomp.runtime.hashmap import Map
from gomp.runtime.reftypes import MARK

GENERIC: tuple[Any, ...] = (Array, Map, Chan, Box)
_UNKNOWN = object()


def fold_classes(func_ir: Any) -> list[Any]:
    """Put the class itself in the place of each such expression; which classes there are. Raises what Python raises, as a Numba error."""
    found = []
    for block in func_ir.blocks.values():
        for statement in block.find_insts(ir.Assign):
            value = statement.value
            if not (isinstance(value, ir.Expr) and value.op in ("getitem", "static_getitem")):
                continue
            generic = _constant(func_ir, value.value)
            if not any(generic is known for known in GENERIC):
                continue
            index = value.index if value.op == "static_getitem" else _constant(func_ir, value.index)
            try:
                made = generic[index]
            except (TypeError, ValueError) as error:
                raise errors.TypingError(f"{MARK}{error}", loc=value.loc) from None
            statement.value = ir.Global(made.__name__, made, value.loc)
            func_ir._definitions[statement.target.name] = [statement.value]
            found.append(made)
    return found


def _constant(func_ir: Any, var: Any) -> Any:
    """What a variable is, if it is a name of the module, an attribute of such, a constant or a tuple of those."""
    value = guard(get_definition, func_ir, var)
    if isinstance(value, (ir.Global, ir.FreeVar, ir.Const)):
        return value.value
    if not isinstance(value, ir.Expr):
        return _UNKNOWN
    if value.op == "getattr":
        module = _constant(func_ir, value.value)
        return getattr(module, value.attr, _UNKNOWN) if isinstance(module, python_types.ModuleType) else _UNKNOWN
    if value.op == "build_tuple":
        return tuple(_constant(func_ir, item) for item in value.items)
    return _UNKNOWN
