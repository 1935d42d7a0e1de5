"""Lifetimes in compiled code: ``gomp.weak(x)``, ``w.value()``, ``gomp.keep_alive(x)``. What they mean is said in :mod:`~gomp.runtime.lifetimes`.

Finalizers and cleanups are functions of Python, held by the process that registers them and run in its threads: a program has neither functions nor
their arguments to give. They are registered from Python, for the object that a program returns, and asking for one here is an error that says so.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.typing.templates import AbstractTemplate, Signature, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

from gomp.core.mutator.boundary import NO_SLOT
from gomp.core.mutator.lifetimes import weak_value_waiting, weak_waiting
from gomp.errors import OutOfMemory
from gomp.runtime import lifetimes
from gomp.runtime.lifetimes import Weak, target_class, weak_of
from gomp.runtime.polling import keep_on_stack, refused
from gomp.runtime.references import key_of
from gomp.runtime.refops import address
from gomp.runtime.reftypes import (
    GlobalType,
    NullType,
    RefType,
    SlotType,
    in_compiled_code,
    numba_type,
    rejection,
    shown,
    typed_by_value,
)


class WeakRef(SlotType):
    """A weak pointer to an object of the class ``target``: the address of its handle, 0 of one that was made of None."""

    def __init__(self, target: Any) -> None:
        self.target = target
        super().__init__(name=f"Weak[{target.__name__}]#{key_of(target):x}")

    @property
    def key(self) -> tuple[str, int, int]:
        return "weak", key_of(self.target), id(self.target)


@dataclass(frozen=True)
class WeakResult:
    """That a program returns a weak pointer to an object of a class."""

    target: Any

    def made(self, slot: int) -> Weak[Any]:
        return Weak(None, None) if slot == NO_SLOT else weak_of(self.target, slot)


@register_model(WeakRef)
class _HandleModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: types.Type) -> None:
        super().__init__(manager, fe_type, ir.IntType(64))


def _type_of(pointer: Weak[Any]) -> Any:
    target = target_class(pointer)
    return type(None) if target is None else WeakRef(target)


typed_by_value[Weak] = _type_of


# --- weak pointers ----------------------------------------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def _as_weak(context: Any, ref: Any, handle: Any) -> Any:
    return WeakRef(ref.cls)(ref, types.int64), _second


@intrinsic  # type: ignore[untyped-decorator]
def _as_target(context: Any, pointer: Any, addr: Any) -> Any:
    return numba_type(pointer.target)(pointer, types.int64), _second


def _second(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return args[1]


@in_compiled_code(lifetimes.weak)
def _weak(ptr: Any) -> Any:
    if isinstance(ptr, GlobalType):
        raise rejection("a global never dies: take a weak pointer to what it holds, gomp.weak(g.get())")
    if isinstance(ptr, NullType):
        raise rejection("gomp.weak(None) is made in Python: here nobody knows what it would point to")
    if not isinstance(ptr, RefType):
        raise rejection(f"gomp.weak: {shown(ptr)} is no reference")

    def weak(ptr: Any) -> Any:
        handle: int = 0
        if address(ptr) != 0:
            handle = weak_waiting(address(ptr))
            if handle == 0:
                raise OutOfMemory("no memory for another finalizer, cleanup or weak pointer, even after a collection")
        return _as_weak(ptr, handle)

    return weak


@in_compiled_code(WeakRef, "value")
def _value(pointer: Any) -> Any:
    def value(pointer: Any) -> Any:
        handle: int = address(pointer)
        return _as_target(pointer, weak_value_waiting(handle) if handle != 0 else 0)

    return value


@in_compiled_code(operator.eq)
def _eq(a: Any, b: Any) -> Any:
    if isinstance(a, WeakRef) and isinstance(b, WeakRef):
        return lambda a, b: address(a) == address(b)
    return None


@in_compiled_code(operator.ne)
def _ne(a: Any, b: Any) -> Any:
    if isinstance(a, WeakRef) and isinstance(b, WeakRef):
        return lambda a, b: address(a) != address(b)
    return None


# --- keep_alive -------------------------------------------------------------------------------------------------------


@infer_global(lifetimes.keep_alive)
class _KeepAlive(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
        return Signature(types.none, args, recvr=None)


@lower_builtin(lifetimes.keep_alive, types.VarArg(types.Any))
def _keep_alive(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    for type_, value in zip(sig.args, args, strict=True):
        if isinstance(type_, SlotType):
            keep_on_stack(builder, value, "kept")
    return context.get_dummy_value()


# --- what is Python's -------------------------------------------------------------------------------------------------

for _function in (lifetimes.set_finalizer, lifetimes.add_cleanup):
    refused[_function] = (
        f"gomp.{_function.__name__} registers a function of Python, which compiled code has none of: return the object, and register it "
        "from Python"
    )
refused[lifetimes.pointer] = "gomp.pointer is Python's: compiled code reads the field of the object itself"
