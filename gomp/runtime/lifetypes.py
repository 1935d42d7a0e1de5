"""Lifetimes in compiled code: finalizers, cleanups, weak pointers, ``keep_alive``. What they mean is said in :mod:`~gomp.runtime.lifetimes` and
:mod:`~gomp.runtime.weak`.

Finalizers and cleanups are functions that this process holds and runs in its threads, so it is Python that registers them, in the middle of the
program (``pythoncalls``). The function is one that the program names: of Python, or compiled, which is then called from Python.
"""

from __future__ import annotations

import inspect
import operator
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import (
    AbstractTemplate,
    AttributeTemplate,
    Signature,
    bound_function,
    infer_getattr,
    infer_global,
)
from numba.extending import box, intrinsic, lower_builtin, models, register_model

from gomp.core.mutator.weak import weak_value_waiting, weak_waiting
from gomp.errors import OutOfMemory
from gomp.runtime import lifetimes, pointers
from gomp.runtime.lifetimes import Cleanup
from gomp.runtime.polling import keep_on_stack, refused
from gomp.runtime.pythoncalls import Argument, PythonCall, argument_of, call_python, is_function
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
from gomp.runtime.weak import Weak, WeakHandle, target_class, weak


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

    def made(self, handle: WeakHandle | None) -> Weak[Any]:
        return Weak(None, None) if handle is None else Weak(handle, self.target)


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


@in_compiled_code(weak)
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


@infer_global(pointers.keep_alive)
class _KeepAlive(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
        return Signature(types.none, args, recvr=None)


@lower_builtin(pointers.keep_alive, types.VarArg(types.Any))
def _keep_alive(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    for type_, value in zip(sig.args, args, strict=True):
        if isinstance(type_, SlotType):
            keep_on_stack(builder, value, "kept")
    return context.get_dummy_value()


# --- finalizers and cleanups ------------------------------------------------------------------------------------------


class CleanupType(types.Type):  # type: ignore[misc]
    """A Cleanup: what the heap knows it by."""

    def __init__(self) -> None:
        super().__init__(name="gomp.Cleanup")


CLEANUP = CleanupType()


@register_model(CleanupType)
class _CleanupModel(models.UniTupleModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: types.Type) -> None:
        super().__init__(manager, types.UniTuple(types.int64, 2))


@box(CleanupType)  # type: ignore[untyped-decorator]
def _box_cleanup(type_: types.Type, value: Any, c: Any) -> Any:
    made = c.pyapi.unserialize(c.pyapi.serialize_object(Cleanup))
    words = [c.pyapi.long_from_longlong(c.builder.extract_value(value, i)) for i in range(2)]
    cleanup = c.pyapi.call_function_objargs(made, words)
    for each in (made, *words):
        c.pyapi.decref(each)
    return cleanup


def _set_finalizer(obj: Any, function: Any) -> tuple[int, ...]:
    lifetimes.set_finalizer(obj, function)
    return ()


def _add_cleanup(ptr: Any, function: Any, arg: Any) -> tuple[int, ...]:
    return lifetimes.add_cleanup(ptr, function, arg).words


def _stop_cleanup(record: int, number: int) -> tuple[int, ...]:
    Cleanup(record, number).stop()
    return ()


class _Registration(AbstractTemplate):  # type: ignore[misc]
    """Typing of what registers a function: ``parameters`` are its names, of which the second is the function."""

    parameters: tuple[str, ...]
    gives: types.Type

    def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
        names = self.parameters
        given = (*args, *(kws[name] for name in names[len(args) :] if name in kws))
        if len(given) != len(names) or len(args) + len(kws) != len(names):
            raise rejection(f"write gomp.{self.key.__name__}({', '.join(names)})")
        if not (is_function(given[1]) or (isinstance(given[1], NullType) and self.gives == types.none)):
            raise rejection(
                f"the function of gomp.{self.key.__name__} is one that has a name in its module, of Python or compiled, not {shown(given[1])}"
            )
        for name, type_ in zip(names, given, strict=True):
            if not isinstance(type_, GlobalType):
                argument_of(type_, f"{name} of gomp.{self.key.__name__}")
        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        return Signature(self.gives, given, recvr=None, pysig=inspect.Signature(parameters))


@infer_global(lifetimes.set_finalizer)
class _SetFinalizer(_Registration):
    key = lifetimes.set_finalizer
    parameters, gives = ("obj", "function"), types.none


@infer_global(lifetimes.add_cleanup)
class _AddCleanup(_Registration):
    key = lifetimes.add_cleanup
    parameters, gives = ("ptr", "function", "arg"), CLEANUP


def _register(context: Any, builder: Any, sig: Signature, args: Any, function: Any, nresults: int) -> list[Any]:
    if isinstance(sig.args[0], GlobalType):  # it never dies
        return [ir.Constant(ir.IntType(64), 0)] * nresults
    for type_, value in zip(sig.args, args, strict=True):
        if isinstance(type_, SlotType):
            keep_on_stack(builder, value, "given")
    call = PythonCall(function, tuple(argument_of(type_, "an argument") for type_ in sig.args))
    return call_python(context, builder, call, sig.args, args, nresults)


@lower_builtin(lifetimes.set_finalizer, types.VarArg(types.Any))
def _lower_set_finalizer(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    _register(context, builder, sig, args, _set_finalizer, 0)
    return context.get_dummy_value()


@lower_builtin(lifetimes.add_cleanup, types.VarArg(types.Any))
def _lower_add_cleanup(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    return cgutils.pack_array(builder, _register(context, builder, sig, args, _add_cleanup, 2))


@infer_getattr
class _CleanupAttribute(AttributeTemplate):  # type: ignore[misc]
    key = CleanupType

    @bound_function("gomp.Cleanup.stop")  # type: ignore[untyped-decorator]
    def resolve_stop(self, cleanup: types.Type, args: Any, kws: Any) -> Signature | None:
        return None if args or kws else Signature(types.none, (), recvr=cleanup)


@lower_builtin("gomp.Cleanup.stop", CleanupType)
def _lower_stop(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    words = [builder.extract_value(args[0], i) for i in range(2)]
    call = PythonCall(_stop_cleanup, (Argument("value"), Argument("value")))
    call_python(context, builder, call, (types.int64, types.int64), words)
    return context.get_dummy_value()


# --- what is Python's -------------------------------------------------------------------------------------------------

refused[pointers.pointer] = "gomp.pointer is Python's: compiled code reads the field of the object itself"
