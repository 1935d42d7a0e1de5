"""``gomp.box(value)`` in compiled code: of an int, a float or a bool, however wide, as Python has it."""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.extending import typeof_impl

from gomp.runtime.boxes import BoxMeta, box, box_class
from gomp.runtime.kinds import BOOL, FLOAT, INT
from gomp.runtime.reftypes import ESCAPES, GenericName, StackAddress, in_compiled_code, rejection, shown
from gomp.runtime.structs import new

_KINDS = ((types.Boolean, BOOL), (types.Integer, INT), (types.Float, FLOAT))


@typeof_impl.register(BoxMeta)
def _typeof_box(value: Any, context: object) -> types.Type:
    return GenericName(value)


@in_compiled_code(box)
def _box(value: Any) -> Any:
    if isinstance(value, StackAddress):
        raise rejection(f"gomp.box cannot take a {shown(value)}, an address in a goroutine's stack, {ESCAPES}")
    kind = next((kind for type_, kind in _KINDS if isinstance(value, type_)), None)
    if kind is None:
        raise rejection(
            f"gomp.box puts an int, a float or a bool on the heap, not a {shown(value)}: an object is there already, and a reference leads to it"
        )
    made = box_class(kind)
    return lambda value: new(made, value)
