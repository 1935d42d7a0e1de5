"""Channels in compiled code. In functions, where an operation waits; in frames, whose actions are in ``actiontypes``, it is an action that does.

===================  =================================================================================================
``ch.send(value)``   waits; ClosedChannel
``ch.recv()``        waits; ClosedChannel if the channel is closed and empty
``ch.close()``       ClosedChannel if it is closed already
``len(ch)``          how many values it holds that nobody has received; ``ch.capacity``
===================  =================================================================================================
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, lower_getattr

from gomp.core.heap.waitq import COUNT, SIZE
from gomp.core.jit import inline
from gomp.core.mutator.chan import VALUE, close
from gomp.core.mutator.chancalls import receive_waiting, send_waiting
from gomp.core.shm.atomics import load64
from gomp.core.shm.records import CHAN_CLOSED
from gomp.errors import ClosedChannel, NilDereference
from gomp.runtime.endings import raise_for
from gomp.runtime.kinds import Scalar
from gomp.runtime.refops import address, call_inline, check_part, check_range, load_part
from gomp.runtime.reftypes import ChanRef, in_compiled_code, part_type, rejection, shown

_I64 = ir.IntType(64)
_METHODS = ("send", "recv", "close", "receiving", "sending")


def word_of(context: Any, builder: Any, ch: ChanRef, given: types.Type, value: Any) -> Any:
    """The word in which a channel has a value, whose type was checked. OverflowError if it does not fit."""
    part = ch.cls.part
    check_range(context, builder, part, given, value, f"a {ch.cls.__name__}")
    value = context.cast(builder, value, given, part_type(part))
    if not isinstance(part, Scalar):
        return value
    if part.code == "?":
        return builder.zext(value, _I64)
    return builder.bitcast(value, _I64) if part.code == "d" else value


@intrinsic  # type: ignore[untyped-decorator]
def _as_word(context: Any, ch: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return word_of(context, builder, sig.args[0], sig.args[1], args[1])

    return types.int64(ch, types.unliteral(value)), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _received(context: Any, ch: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return load_part(context, builder, sig.args[0].cls.part, ir.Constant(_I64, VALUE))

    return part_type(ch.cls.part)(ch), codegen


def check_sent(ch: ChanRef, given: types.Type) -> None:
    """CompileError if such values are none that the channel takes."""
    check_part(ch.cls.part, types.unliteral(given), f"a {ch.cls.__name__}")


@in_compiled_code(ChanRef, "send")
def _send(ch: Any, value: Any) -> Any:
    check_sent(ch, value)

    def send(ch: Any, value: Any) -> None:
        done = send_waiting(address(ch), _as_word(ch, value))
        if done == CHAN_CLOSED:
            raise ClosedChannel("send on closed channel")
        if done < 0:
            raise_for(done)

    return send


@in_compiled_code(ChanRef, "recv")
def _recv(ch: Any) -> Any:
    def recv(ch: Any) -> Any:
        done = receive_waiting(address(ch))
        if done == CHAN_CLOSED:
            raise ClosedChannel("receive from a closed channel that is empty")
        if done < 0:
            raise_for(done)
        return _received(ch)

    return recv


@in_compiled_code(ChanRef, "close")
def _close(ch: Any) -> Any:
    def close_channel(ch: Any) -> None:
        if close(_check_there(address(ch))) == CHAN_CLOSED:
            raise ClosedChannel("close of closed channel")

    return close_channel


@inline
def _check_there(ch: int) -> int:
    if ch == 0:
        raise NilDereference("a channel that is None")
    return ch


@in_compiled_code(len)
def _len(ch: Any) -> Any:
    if isinstance(ch, ChanRef):
        return lambda ch: load64(_check_there(address(ch)) + COUNT)
    return None


@in_compiled_code(bool)
def _bool(ch: Any) -> Any:
    return (lambda ch: address(ch) != 0) if isinstance(ch, ChanRef) else None


@infer_getattr
class _ChanAttribute(AttributeTemplate):  # type: ignore[misc]
    key = ChanRef

    def generic_resolve(self, type_: ChanRef, attr: str) -> types.Type | None:
        if attr == "capacity":
            return types.int64
        if attr not in _METHODS:
            what = "is a method of Python's side" if hasattr(type_.cls, attr) else "is no method"
            raise rejection(f"{attr} {what}; in compiled code a {shown(type_)} has {', '.join(_METHODS)} and capacity")
        return None


@inline
def _capacity(ch: int) -> int:
    return load64(_check_there(ch) + SIZE)


@lower_getattr(ChanRef, "capacity")
def _lower_capacity(context: Any, builder: Any, type_: types.Type, ch: Any) -> Any:
    return call_inline(context, builder, _capacity, types.int64, (ch,))
