"""Goroutines in compiled code: ``F.run(x=...)`` runs one here and to its end, ``gomp.go(F, x=...)`` has one run anywhere, and
``gomp.go(function, x)`` one whose body is Python."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from numba.core import types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, Signature, infer_getattr, infer_global

from gomp.core.mutator import goroutine
from gomp.core.mutator.goroutine import (
    ENDED,
    PARKED,
    YIELDED,
    end_g,
    execute,
    start_here,
)
from gomp.core.mutator.schedule import go_on
from gomp.core.mutator.types import find_type
from gomp.runtime import current, frames
from gomp.runtime.actiontypes import bind_slots, given_by_name, load_result, named_signature, numba_type_of, put_out
from gomp.runtime.bodies import BodyMeta, Started, body_class, makes_body, slots_given
from gomp.runtime.endings import raise_for
from gomp.runtime.frames import FrameLink, FrameMeta
from gomp.runtime.frametypes import FrameClass
from gomp.runtime.kinds import BOOL, FLOAT, INT
from gomp.runtime.pythoncalls import FunctionName
from gomp.runtime.references import key_of
from gomp.runtime.reftypes import NullType, RefType, refusal, rejection, shown


def check_first(cls: FrameMeta, names: Iterable[str]) -> None:
    """TypeError if one of these slots, of the first frame of a goroutine, holds a frame."""
    for name, (_, p) in frames.given_slots(cls, names).items():
        if isinstance(p, FrameLink):
            raise TypeError(
                f"slot {name} of {cls.__name__} holds a frame, and the first of a goroutine has none to hold"
            )


def _bind_first(cls: FrameMeta, kws: dict[str, types.Type]) -> None:
    bind_slots(cls, {name: types.unliteral(given) for name, given in kws.items()})
    try:
        check_first(cls, kws)
    except TypeError as error:
        raise rejection(str(error)) from None


@infer_getattr
class _FrameClassAttribute(AttributeTemplate):  # type: ignore[misc]
    key = FrameClass

    def resolve_run(self, type_: FrameClass) -> types.Type:
        class Run(AbstractTemplate):  # type: ignore[misc]
            key = "gomp.Frame.run"

            def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
                if args:
                    raise rejection(f"{type_.cls.__name__}.run takes the slots by name")
                _bind_first(type_.cls, kws)
                return named_signature(numba_type_of(type_.cls.layout.returns), type_, (), kws)

        return types.BoundFunction(Run, type_)


@lower_builtin("gomp.Frame.run", FrameClass, types.VarArg(types.Any))
def _lower_run(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    cls = sig.args[0].cls
    put_out(context, builder, cls, given_by_name(sig, args))
    context.compile_internal(builder, _runner(key_of(cls)), types.none(), ())
    return load_result(context, builder, cls)


@functools.cache
def _runner(key: int) -> Callable[[], None]:
    def run_to_end() -> None:
        g = start_here(find_type(key))
        if g < 0:
            raise_for(g)
        why = execute(g)
        while why in (YIELDED, PARKED):
            why = go_on(g, why)
        end_g(g)
        if why != ENDED:
            raise_for(why)

    return run_to_end


@infer_global(current.go)
class _Go(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
        if "labels" in kws:
            raise rejection(
                "labels= is given from Python; a goroutine that compiled code starts has those of who starts it"
            )
        if args and isinstance(args[0], FunctionName) and makes_body(args[0].function):
            signature = named_signature(types.int64, None, tuple(map(types.unliteral, args)), kws)
            _body_class(signature)
            return signature
        if len(args) != 1 or not isinstance(args[0], FrameClass):
            raise rejection(
                "gomp.go(F, slot=value, ...) starts a goroutine with a frame F, and gomp.go(function, ...) one with what a function makes that "
                "yields or awaits; calls are started from Python"
            )
        _bind_first(args[0].cls, kws)
        return named_signature(types.int64, None, args, kws)


@lower_builtin(current.go, FrameClass, types.VarArg(types.Any))
def _lower_go(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    cls = sig.args[0].cls
    put_out(context, builder, cls, given_by_name(sig, args))
    return context.compile_internal(builder, _starter(key_of(cls)), types.int64(), ())


def _body_class(sig: Signature) -> BodyMeta:
    """The frames for what a call gives to a function of Python's. CompileError if it cannot be given that."""
    function = sig.args[0].function
    names = ["" if name == f"_{i}" else name for i, name in enumerate(sig.pysig.parameters)]
    given = [
        (name, _kind(type_, function, name, i))
        for i, (name, type_) in enumerate(zip(names, sig.args, strict=True))
        if i
    ]
    try:
        return body_class(function, tuple(given))
    except TypeError as error:
        raise rejection(f"gomp.go({function.__name__}, ...): {error}") from None


def _kind(type_: types.Type, function: Any, name: str, i: int) -> Any:
    """Of an argument, for the frame in which it is given."""
    if isinstance(type_, RefType):
        return type_.cls
    if isinstance(type_, (NullType, types.NoneType)):
        return None
    for kind, of_numba in ((INT, types.Integer), (FLOAT, types.Float), (BOOL, types.Boolean)):
        if isinstance(type_, of_numba):
            return kind
    what = f"argument {name or i} of gomp.go({function.__name__}, ...)"
    raise refusal(what, type_, f"{what} cannot be {shown(type_)} in compiled code: use a number, a reference or None")


@lower_builtin(current.go, FunctionName, types.VarArg(types.Any))
def _lower_go_body(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    cls = _body_class(sig)
    consts = context.get_env_manager(builder)
    consts.add_const(Started.of(cls))
    put_out(context, builder, cls, {name: (sig.args[i + 1], args[i + 1]) for i, name in slots_given(cls.given)})
    return context.compile_internal(builder, _starter(key_of(cls)), types.int64(), ())


@functools.cache
def _starter(key: int) -> Callable[[], int]:
    def start() -> int:
        goid = goroutine.go(find_type(key))
        if goid < 0:
            raise_for(goid)
        return goid

    return start
