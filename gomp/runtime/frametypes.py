"""Frames in compiled code: a Numba type whose value is the frame's address in its goroutine's stack.

======================================  ===========================================================================
``f.x``, ``f.x = value``                a slot: a load or a plain store at a constant offset; stacks have no barrier
``f.up = f``                            of the step's own frame only: what is further in would be gone first
``f.call(F, ...)``, ``f.ret(value)``    stores to P_OUT, and a value of the type :class:`ActionType`
======================================  ===========================================================================

Frames move between steps, so an address lives as long as its step. No field, element, global or result takes one: ``StackEscapeError``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import errors, types
from numba.core.imputils import lower_builtin, lower_constant
from numba.core.typeconv import Conversion
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, Signature, infer_getattr
from numba.extending import (
    lower_cast,
    lower_getattr_generic,
    lower_setattr_generic,
    models,
    register_model,
    typeof_impl,
)

from gomp.core.shm import layout
from gomp.core.shm.records import P_OUT
from gomp.errors import NilDereference
from gomp.runtime import frames
from gomp.runtime.frames import FrameLink, FrameMeta
from gomp.runtime.kinds import Scalar
from gomp.runtime.references import key_of
from gomp.runtime.refops import check_part, different, load_part, raise_if, same
from gomp.runtime.reftypes import (
    NullType,
    StackAddress,
    part_type,
    rejection,
    shown,
)

_I8, _I64 = ir.IntType(8), ir.IntType(64)
_OUT = layout.SELF_BASE + P_OUT


class FrameRef(StackAddress):
    """A frame of the class ``cls``, or None. ``is_own``: it is the step's own, the innermost of all."""

    def __init__(self, cls: FrameMeta, is_own: bool = False) -> None:
        self.cls, self.is_own = cls, is_own
        super().__init__(name=f"frame {cls.__name__}#{key_of(cls):x}{' of this step' if is_own else ''}")

    @property
    def key(self) -> tuple[int, int, bool]:
        return key_of(self.cls), id(self.cls), self.is_own

    def can_convert_to(self, context: Any, other: types.Type) -> Conversion | None:
        same = isinstance(other, FrameRef) and other.cls is self.cls and not other.is_own
        return Conversion.safe if same else None

    def can_convert_from(self, context: Any, other: types.Type) -> Conversion | None:
        return Conversion.safe if isinstance(other, NullType) else None

    def unify(self, context: Any, other: types.Type) -> types.Type | None:
        same = isinstance(other, FrameRef) and other.cls is self.cls
        return FrameRef(self.cls) if same else None


class FrameClass(types.Type):
    """A frame's class itself, as an argument of ``f.call``."""

    def __init__(self, cls: FrameMeta) -> None:
        self.cls = cls
        super().__init__(name=f"class of frame {cls.__name__}#{key_of(cls):x}")

    @property
    def key(self) -> tuple[str, int, int]:
        return "frame", key_of(self.cls), id(self.cls)


class ActionType(types.Type):
    """What a step returns: what is to be done next."""

    def __init__(self) -> None:
        super().__init__(name="action")


ACTION = ActionType()


@register_model(FrameRef)
@register_model(ActionType)
class _WordModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: types.Type) -> None:
        super().__init__(manager, fe_type, _I64)


register_model(FrameClass)(models.OpaqueModel)


@typeof_impl.register(FrameMeta)
def _typeof_class(value: FrameMeta, context: object) -> types.Type:
    return FrameClass(value)


@lower_constant(FrameClass)
def _no_value(context: Any, builder: Any, type_: types.Type, value: object) -> Any:
    return context.get_dummy_value()


@lower_cast(FrameRef, FrameRef)
@lower_cast(NullType, FrameRef)
def _same_word(context: Any, builder: Any, given: types.Type, wanted: types.Type, value: Any) -> Any:
    return ir.Constant(_I64, 0) if isinstance(given, NullType) else value


# --- slots ------------------------------------------------------------------------------------------------------------


def slot_type(p: frames.Slot) -> types.Type:
    """What compiled code reads from a slot."""
    return FrameRef(p.target) if isinstance(p, FrameLink) else part_type(p)


@infer_getattr
class _FrameAttribute(AttributeTemplate):  # type: ignore[misc]
    key = FrameRef

    def generic_resolve(self, type_: FrameRef, attr: str) -> types.Type:
        if attr in actions:
            return _bound(type_, attr)
        try:
            return slot_type(type_.cls.layout.slot(attr)[1])
        except TypeError as error:
            raise rejection(str(error)) from None


@lower_getattr_generic(FrameRef)
def _load_slot(context: Any, builder: Any, type_: FrameRef, frame: Any, attr: str) -> Any:
    at, p = type_.cls.layout.slot(attr)
    _check_frame(context, builder, type_, frame, attr)
    if isinstance(p, FrameLink):
        return builder.load(pointer_at(builder, frame, at, _I64))
    return load_part(context, builder, p, frame, at)


@lower_setattr_generic(FrameRef)
def _store_slot(context: Any, builder: Any, sig: Signature, args: Any, attr: str) -> None:
    at, p = sig.args[0].cls.layout.slot(attr)
    _check_frame(context, builder, sig.args[0], args[0], attr)
    store(context, builder, p, builder.add(args[0], ir.Constant(_I64, at)), sig.args[1], args[1])


def _check_frame(context: Any, builder: Any, type_: FrameRef, frame: Any, attr: str) -> None:
    if not type_.is_own:
        missing = builder.icmp_signed("==", frame, ir.Constant(_I64, 0))
        raise_if(context, builder, missing, NilDereference, f"{attr} of a {type_.cls.__name__} that is None")


def pointer_at(builder: Any, addr: Any, offset: int, to: Any) -> Any:
    return builder.inttoptr(builder.add(addr, ir.Constant(_I64, offset)), to.as_pointer())


def store(context: Any, builder: Any, p: frames.Slot, addr: Any, given: types.Type, value: Any) -> None:
    """Store a value that was checked, on the stack or in P_OUT."""
    value = context.cast(builder, value, given, slot_type(p))
    if isinstance(p, Scalar) and p.code == "?":
        value = builder.zext(value, _I8)
    builder.store(value, pointer_at(builder, addr, 0, value.type))


def check_slot(p: frames.Slot, given: types.Type, where: str, of_own: bool) -> None:
    """When a store is compiled. CompileError if values of the type ``given`` are none that the slot takes. ``of_own``: of the step's own frame."""
    if not isinstance(p, FrameLink):
        check_part(p, given, where)
        return
    if isinstance(given, NullType):
        return
    if not isinstance(given, FrameRef) or given.cls is not p.target:
        raise rejection(f"{where} holds a frame {p.target.__name__} or None, not {shown(given)}")
    if not of_own:
        raise rejection(f"{where}: only a step's own frame holds frames, any other would outlive them")


for _operation, _lower in (
    (operator.eq, same),
    (operator.ne, different),
    (operator.is_, same),
    (operator.is_not, different),
):
    for _pair in ((FrameRef, FrameRef), (FrameRef, NullType), (NullType, FrameRef)):
        lower_builtin(_operation, *_pair)(_lower)


# --- actions ----------------------------------------------------------------------------------------------------------

# By name, what each gives for the arguments that it is given; see ``actiontypes``.
actions: dict[str, Callable[..., Signature]] = {}


def _bound(frame: FrameRef, action: str) -> types.Type:
    """An action's method, ``f.call`` and so on, of a step's own frame."""
    if not frame.is_own:
        raise rejection(f"{action} is for the step's own frame: what another does, its own step says")

    raised: list[errors.TypingError] = []

    class Method(AbstractTemplate):  # type: ignore[misc]
        key = f"gomp.frame.{action}"
        prefer_literal = True

        def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
            try:
                return actions[action](frame, args, kws)
            except errors.TypingError as error:  # Numba tries again without literals, and would show what is wrong then
                raised.append(error)
                raise raised[0] from None

    return types.BoundFunction(Method, frame)
