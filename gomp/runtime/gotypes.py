"""Goroutines in compiled code: ``F.run(x=...)`` runs one here and to its end, ``gomp.go(F, x=...)`` has one run anywhere."""

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
from gomp.runtime.endings import raise_for
from gomp.runtime.frames import FrameLink, FrameMeta
from gomp.runtime.frametypes import FrameClass
from gomp.runtime.references import key_of
from gomp.runtime.reftypes import rejection


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
        if len(args) != 1 or not isinstance(args[0], FrameClass):
            raise rejection(
                "gomp.go(F, slot=value, ...) starts a goroutine with a frame F; calls are started from Python"
            )
        if "labels" in kws:
            raise rejection(
                "labels= is given from Python; a goroutine that compiled code starts has those of who starts it"
            )
        _bind_first(args[0].cls, kws)
        return named_signature(types.int64, None, args, kws)


@lower_builtin(current.go, FrameClass, types.VarArg(types.Any))
def _lower_go(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    cls = sig.args[0].cls
    put_out(context, builder, cls, given_by_name(sig, args))
    return context.compile_internal(builder, _starter(key_of(cls)), types.int64(), ())


@functools.cache
def _starter(key: int) -> Callable[[], int]:
    def start() -> int:
        goid = goroutine.go(find_type(key))
        if goid < 0:
            raise_for(goid)
        return goid

    return start
