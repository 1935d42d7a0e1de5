"""What compiled code has Python do, in the middle of a program (:mod:`gomp.core.mutator.pythoncalls` says why the heap stays whole meanwhile).

A :class:`PythonCall` is a constant of the machine code: the function, and what becomes of each argument. The code calls it with words; it makes of
them what Python has, and its result is ints. Constants go into the cache of programs with the code: there classes are keys and functions names, and
the process that loads them puts its own in their place (:func:`bind`).

What the function raises stays with the thread, while the program ends with Raised; :func:`run` raises it then. A program that catches it goes on,
and nobody hears of it. Ctrl-C is Python's while Python runs: what it has handled does not end the program as well.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_constant
from numba.extending import models, register_model, typeof_impl

from gomp.core.jit import inline
from gomp.core.mutator.pythoncalls import begin_call, end_call, root_address
from gomp.core.sched.status import OK
from gomp.core.shm.records import POLL_INTERRUPT, self_p
from gomp.errors import OutOfMemory, RuntimeLost
from gomp.runtime import interrupt
from gomp.runtime.references import key_of
from gomp.runtime.refops import call_inline, raise_if
from gomp.runtime.reftypes import NullType, RefType, rejection, shown
from gomp.runtime.slots import filled
from gomp.runtime.typekeys import class_of_key

_I64 = ir.IntType(64)
_RAISED = "gomp.raised"  # under which a thread's dict has what was raised


class Raised(Exception):
    """What a function that compiled code had Python call has raised is with the thread: :func:`run` takes it from there."""


# --- functions that are named in compiled code ------------------------------------------------------------------------


class PythonFunction:
    """What the compiler step puts in place of a function of Python that is named in compiled code."""

    def __init__(self, function: FunctionType) -> None:
        self.function = function


class FunctionName(types.Callable):  # type: ignore[misc]
    """The type of a function of Python that is named in compiled code: it can be given to what Python does, and not be called."""

    def __init__(self, function: FunctionType) -> None:
        self.function = function
        super().__init__(name=f"function {function.__name__}#{id(function):x}")

    def get_call_type(self, context: Any, args: Any, kws: Any) -> Any:
        module, name = function_key(self.function)
        if module.partition(".")[0] == "gomp":
            raise rejection(f"gomp.{name} is Python's alone: call it there, and give what it returns as an argument")
        raise rejection(
            f"{name} is a function of Python, which compiled code cannot call: decorate it with @gomp.compiled"
        )

    def get_call_signatures(self) -> Any:
        return (), False

    def get_impl_key(self, sig: Any) -> Any:
        return self.key


register_model(FunctionName)(models.OpaqueModel)


@lower_constant(FunctionName)
def _no_value(context: Any, builder: Any, type_: types.Type, value: object) -> Any:
    return context.get_dummy_value()


@typeof_impl.register(PythonFunction)
def _typeof_function(value: PythonFunction, context: object) -> types.Type:
    return FunctionName(value.function)


# --- constants --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Named:
    """In the cache: a function by its name, or a class by its key. ``kind`` is what becomes of the word."""

    kind: str
    name: Any


def function_key(function: Any) -> tuple[str, str]:
    """What stands for a function in the cache."""
    return function.__module__, function.__qualname__


@dataclass(frozen=True)
class Argument:
    """What becomes of an argument: ``value`` itself, a ``reference`` to a ``given`` class, or what is ``given`` without a word."""

    kind: str
    given: Any = None

    @property
    def has_word(self) -> bool:
        return self.kind != "given"

    def __reduce__(self) -> Any:
        if self.kind == "reference":
            return Named, (self.kind, key_of(self.given))
        if self.kind == "given" and self.given is not None:
            return Named, (self.kind, function_key(self.given))
        return Argument, (self.kind, self.given)

    def made_of(self, words: Iterable[Any]) -> Any:
        if self.kind == "given":
            return self.given
        word = next(words)  # type: ignore[call-overload]
        return word if self.kind == "value" else _reference_to(self.given, word)


def _reference_to(cls: Any, addr: int) -> Any:
    if addr == 0:
        return None
    return filled(cls, root_address, addr)[1]


@dataclass
class PythonCall:
    """``function``, which is a module's in gomp and returns ints in a tuple, with its arguments."""

    function: Callable[..., tuple[int, ...]]
    arguments: tuple[Any, ...]

    def __call__(self, *words: Any) -> tuple[int, ...]:
        remaining = iter(words)
        try:
            return self.function(*(argument.made_of(remaining) for argument in self.arguments))
        finally:
            if interrupt.handler.word[0] & POLL_INTERRUPT:
                interrupt.handler.drop_stale()

    def bind(self, classes: Iterable[Any], functions: dict[tuple[str, str], Any]) -> None:
        """Put this process's classes and functions in the place of names. TypeError if it has none such."""
        self.arguments = tuple(_bound(a, classes, functions) if isinstance(a, Named) else a for a in self.arguments)


def _bound(named: Named, classes: Iterable[Any], functions: dict[tuple[str, str], Any]) -> Argument:
    if named.kind == "reference":
        return Argument("reference", class_of_key(named.name, among=classes))
    if named.name not in functions:
        raise TypeError(f"a program of the cache names {'.'.join(named.name)}, which is not what it was")
    return Argument("given", functions[named.name])


def calls_of(environments: Iterable[Any]) -> list[PythonCall]:
    """The calls among the constants of machine code."""
    return [const for e in environments for const in e.consts if isinstance(const, PythonCall)]


def is_function(type_: types.Type) -> bool:
    """Whether it is one that Python can be given: of Python, or compiled."""
    return isinstance(type_, FunctionName) or (
        isinstance(type_, types.Dispatcher) and hasattr(type_.dispatcher, "compiled")
    )


def argument_of(type_: types.Type, what: str) -> Argument:
    """What becomes of an argument of that type. CompileError, about ``what``, if Python cannot have it."""
    type_ = types.unliteral(type_)
    if isinstance(type_, RefType):
        return Argument("reference", type_.cls)
    if isinstance(type_, (NullType, types.NoneType)):
        return Argument("given", None)
    if is_function(type_):
        return Argument("given", type_.function if isinstance(type_, FunctionName) else type_.dispatcher.compiled)
    if isinstance(type_, (types.Integer, types.Float, types.Boolean, types.UnicodeType)):
        return Argument("value")
    raise rejection(f"{what} cannot be {shown(type_)} in compiled code: use a number, a str, a reference or None")


# --- machine code -----------------------------------------------------------------------------------------------------


@inline
def _begin() -> int:
    return begin_call()


@inline
def _end(region: int, native_base: int, stack_low: int, stack_thread: int) -> int:
    return end_call(region, native_base, stack_low, stack_thread)


@inline
def _native_base() -> int:
    return self_p().native_base


@inline
def _stack_low() -> int:
    return self_p().stack_low


@inline
def _stack_thread() -> int:
    return self_p().stack_thread


def call_python(
    context: Any, builder: Any, call: PythonCall, given: tuple[types.Type, ...], values: Any, nresults: int = 0
) -> list[Any]:
    """Emit the call of ``call`` with those of the values that have a word; the ints that it returns.

    The caller has every address that it gives, and every one that it needs afterwards, on the stack (``polling.keep_on_stack``).
    """
    api = context.get_python_api(builder)
    consts = context.get_env_manager(builder)
    callee = consts.read_const(consts.add_const(call))
    state = [call_inline(context, builder, f, types.int64, ()) for f in (_native_base, _stack_low, _stack_thread)]
    region = call_inline(context, builder, _begin, types.int64, ())
    no_room = builder.icmp_signed("<", region, ir.Constant(_I64, 0))
    raise_if(context, builder, no_room, OutOfMemory, "there is no memory for the roots of a program that calls Python")
    words = [
        (type_, value)
        for argument, type_, value in zip(call.arguments, given, values, strict=True)
        if argument.has_word
    ]
    made = _call_boxed(context, builder, api, callee, words)
    failed = cgutils.is_null(builder, made)
    results = [cgutils.alloca_once(builder, _I64) for _ in range(nresults)]
    with builder.if_else(failed, likely=False) as (then, otherwise):
        with then:
            _keep_raised(builder, api)
        with otherwise:
            for i, result in enumerate(results):
                builder.store(api.long_as_longlong(api.tuple_getitem(made, i)), result)
            api.decref(made)
    ended = call_inline(context, builder, _end, types.int64, (region, *state))
    is_lost = builder.icmp_signed("!=", ended, ir.Constant(_I64, OK))
    raise_if(context, builder, is_lost, RuntimeLost, "the runtime has ended")
    raise_if(context, builder, failed, Raised, "what compiled code had Python call has raised")
    return [builder.load(result) for result in results]


def _call_boxed(context: Any, builder: Any, api: Any, callee: Any, words: list[tuple[types.Type, Any]]) -> Any:
    """Call with these values as Python's objects: what it returns; NULL if it raises, or if one of the objects cannot be made."""
    null = api.get_null_object()
    boxes = [cgutils.alloca_once_value(builder, null) for _ in words]
    made = cgutils.alloca_once_value(builder, null)
    with contextlib.ExitStack() as all_so_far:
        for box, (type_, value) in zip(boxes, words, strict=True):
            builder.store(_boxed(context, builder, api, type_, value), box)
            all_so_far.enter_context(builder.if_then(cgutils.is_not_null(builder, builder.load(box)), likely=True))
        builder.store(api.call_function_objargs(callee, [builder.load(box) for box in boxes]), made)
    for box in boxes:
        api.decref(builder.load(box))
    return builder.load(made)


def _boxed(context: Any, builder: Any, api: Any, type_: types.Type, value: Any) -> Any:
    plain = types.unliteral(type_)
    if isinstance(plain, RefType):
        return api.long_from_longlong(value)
    value = context.cast(builder, value, type_, plain)
    context.nrt.incref(builder, plain, value)  # the box takes one away
    return api.from_native_value(plain, value, context.get_env_manager(builder))


def _keep_raised(builder: Any, api: Any) -> None:
    """Let the thread have what was raised, by C's interface alone: no bytecode runs in which a signal could come between."""
    kind, value, traceback = parts = [cgutils.alloca_once_value(builder, api.get_null_object()) for _ in range(3)]
    for part in parts:
        builder.store(api.get_null_object(), part)
    api.err_fetch(kind, value, traceback)
    pointer, pointers = api.pyobj, api.pyobj.as_pointer()

    def c_function(name: str, result: Any, *parameters: Any) -> Any:
        return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, parameters), name)

    builder.call(c_function("PyErr_NormalizeException", ir.VoidType(), pointers, pointers, pointers), parts)
    with builder.if_then(cgutils.is_not_null(builder, builder.load(traceback))):
        set_traceback = c_function("PyException_SetTraceback", ir.IntType(32), pointer, pointer)
        builder.call(set_traceback, [builder.load(value), builder.load(traceback)])
    own = builder.call(c_function("PyThreadState_GetDict", pointer), [])
    set_item = c_function("PyDict_SetItemString", ir.IntType(32), pointer, api.cstring, pointer)
    name = api.context.insert_const_string(builder.module, _RAISED)
    builder.call(set_item, [own, name, builder.load(value)])
    for part in parts:
        api.decref(builder.load(part))


_thread_dict = ctypes.pythonapi.PyThreadState_GetDict
_thread_dict.restype = ctypes.c_void_p  # borrowed: a py_object would be taken for the caller's own


def run(entry: Callable[[int, tuple[Any, ...]], Any], slot: int, words: tuple[Any, ...]) -> Any:
    """Run a program that has Python do something, and raise what that has raised. What the program has caught is dropped."""
    own: dict[str, Any] = ctypes.cast(_thread_dict(), ctypes.py_object).value
    outer = own.pop(_RAISED, None)  # of a program in which this one runs, and which may not have come to raise it
    try:
        return entry(slot, words)
    except Raised:
        raised = own[_RAISED]
    finally:
        own.pop(_RAISED, None)
        if outer is not None:
            own[_RAISED] = outer
    try:
        raise raised
    finally:
        del raised  # which leads back to this frame by its traceback
