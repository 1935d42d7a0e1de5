"""Running a frame as a goroutine of its own, here and to its end: ``F.run(x=...)``, from Python and in compiled code."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.callconv import Status
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, Signature, infer_getattr
from numba.extending import intrinsic

from gomp.core.heap.stack import STACK_OVERFLOW
from gomp.core.jit import COMPILED, inline
from gomp.core.mutator.goroutine import ENDED, NO_MEMORY, OTHER_ACTION, RAISED, end_g, execute, new_g
from gomp.core.mutator.types import find_type
from gomp.core.shm import layout
from gomp.core.shm.records import P_RAISED_CODE, P_RAISED_INFO
from gomp.errors import OutOfMemory, StackOverflow
from gomp.runtime import frames
from gomp.runtime.compiled import Compiled
from gomp.runtime.frames import FrameLink, FrameMeta
from gomp.runtime.frametypes import (
    FrameClass,
    bind_slots,
    given_by_name,
    load_result,
    named_signature,
    numba_type_of,
    put_out,
)
from gomp.runtime.references import key_of
from gomp.runtime.reftypes import rejection

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_runs: dict[tuple[FrameMeta, tuple[str, ...]], Compiled[..., Any]] = {}


def run(cls: FrameMeta, slots: dict[str, Any]) -> Any:
    """The result of a goroutine whose first frame is of ``cls`` with these slots."""
    if not COMPILED:
        raise TypeError(f"frame {cls.__name__} runs as machine code only: NUMBA_DISABLE_JIT is set")
    key = cls, tuple(slots)
    if key not in _runs:
        _check_first(cls, slots)
        _runs[key] = Compiled(_function(cls, tuple(slots)))
    return _runs[key](*slots.values())


def _check_first(cls: FrameMeta, names: Iterable[str]) -> None:
    """TypeError if one of these slots, of the first frame of a goroutine, holds a frame."""
    for name, (_, p) in frames.given_slots(cls, names).items():
        if isinstance(p, FrameLink):
            raise TypeError(
                f"slot {name} of {cls.__name__} holds a frame, and the first of a goroutine has none to hold"
            )


def _function(cls: FrameMeta, names: tuple[str, ...]) -> Callable[..., Any]:
    """A function from the slots to the result."""
    name = f"run_{cls.__name__}"
    given = ", ".join(f"{n}={n}" for n in names)
    scope: dict[str, Any] = {"cls": cls, "__name__": __name__}
    source = f"def {name}({', '.join(names)}):\n    return cls.run({given})\n"
    exec(compile(source, f"<frame {cls.__name__}>", "exec"), scope)
    function: Any = scope[name]
    links = {n: p.target for n, (_, p) in frames.given_slots(cls, names).items() if hasattr(p, "target")}
    function.__annotations__ = links
    function.__name__ = f"{cls.__name__}.run"
    return function  # type: ignore[no-any-return]


# --- in compiled code -------------------------------------------------------------------------------------------------


@infer_getattr
class _FrameClassAttribute(AttributeTemplate):  # type: ignore[misc]
    key = FrameClass

    def resolve_run(self, type_: FrameClass) -> types.Type:
        class Run(AbstractTemplate):  # type: ignore[misc]
            key = "gomp.Frame.run"

            def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
                if args:
                    raise rejection(f"{type_.cls.__name__}.run takes the slots by name")
                bind_slots(type_.cls, {name: types.unliteral(given) for name, given in kws.items()})
                try:
                    _check_first(type_.cls, kws)
                except TypeError as error:
                    raise rejection(str(error)) from None
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
        g = new_g(find_type(key))
        if g < 0:
            raise OutOfMemory("there is no memory for another goroutine, even after a collection")
        why = execute(g)
        end_g(g)
        if why != ENDED:
            _raise(why)

    return run_to_end


def _raise_for(why: int) -> None:
    if why == RAISED:
        _raise_again()
    if why == STACK_OVERFLOW:
        raise StackOverflow(
            "stack overflow: a goroutine's stack would be more than its maximum, gomp.debug.set_max_stack"
        )
    if why == NO_MEMORY:
        raise OutOfMemory("there is no memory for a larger stack")
    if why == OTHER_ACTION:
        raise RuntimeError("a step made one action and returned another: return each where it is made")
    raise RuntimeError("a goroutine has a frame that this process does not know")


_raise = inline(_raise_for)


@intrinsic  # type: ignore[untyped-decorator]
def _raise_again(context: Any) -> Any:
    """Raise what a step has raised."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        code, address = (
            builder.load(builder.inttoptr(ir.Constant(_I64, layout.SELF_BASE + at), _I64.as_pointer()))
            for at in (P_RAISED_CODE, P_RAISED_INFO)
        )
        to = context.call_conv._get_excinfo_argument(builder.function).type.pointee
        yes, no = ir.Constant(ir.IntType(1), 1), ir.Constant(ir.IntType(1), 0)
        status = Status(builder.trunc(code, _I32), no, no, yes, no, no, yes, builder.inttoptr(address, to))
        context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.none(), codegen
