"""What compiled code raises for what a goroutine has ended by, or a wait in a program."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.callconv import Status
from numba.extending import intrinsic

from gomp.core.heap.stack import STACK_OVERFLOW
from gomp.core.jit import inline
from gomp.core.mutator.goroutine import NO_MEMORY, OTHER_ACTION, RAISED, SENT_ON_CLOSED, WAITS_IN_STEP
from gomp.core.mutator.poll import POLL_INTERRUPTED
from gomp.core.mutator.schedule import POLLED, failure
from gomp.core.sched.interrupt import clear_interrupt
from gomp.core.shm import layout
from gomp.core.shm.records import P_RAISED_CODE, P_RAISED_INFO
from gomp.errors import ClosedChannel, Interrupted, OutOfMemory, RuntimeLost, StackOverflow
from gomp.runtime.reftypes import in_compiled_code

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _raise_for(why: int) -> None:
    if why == RAISED:
        _raise_again()
    if why == STACK_OVERFLOW:
        raise StackOverflow("stack overflow: goroutine stack exceeds its limit, which gomp.debug.set_max_stack sets")
    if why == NO_MEMORY:
        raise OutOfMemory("there is no memory for another goroutine, or for a larger stack")
    if why == SENT_ON_CLOSED:
        raise ClosedChannel("send on closed channel")
    if why == WAITS_IN_STEP:
        raise RuntimeError(
            "a step would wait here, and all of its P's goroutines with it: send, receive and call frames by actions, f.send, f.recv and f.call"
        )
    if why == POLLED - POLL_INTERRUPTED:
        clear_interrupt()
        raise Interrupted("a compiled program was interrupted")
    if why <= POLLED:
        raise RuntimeLost("the runtime has ended")
    if why == OTHER_ACTION:
        raise RuntimeError("a step made one action and returned another: return each where it is made")
    raise RuntimeError("a goroutine has a frame that this process does not know")


raise_for = inline(_raise_for)


def raise_failure(number: int) -> None:
    """In compiled code: raise what the goroutine of that number, which was set aside here, has ended by."""
    raise TypeError(f"for compiled code, to raise what goroutine {number} has ended by")


@in_compiled_code(raise_failure)
def _raise_failure(number: types.Type) -> Any:
    return lambda number: raise_for(failure(number))


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
