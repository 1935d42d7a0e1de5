"""What a step of a frame says is to be done next, in compiled code: ``f.call(F, ...)``, ``f.ret(value)`` and the others of ``frames``.

Each is stores to P_OUT, and a value of the type :class:`~gomp.runtime.frametypes.ActionType`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import Signature

from gomp.core.jit import inline
from gomp.core.mutator.action import (
    ACTION_LOCK,
    ACTION_RECEIVE,
    ACTION_RETURN,
    ACTION_SEND,
    ACTION_WAIT,
    ACTION_YIELD,
    forget_action,
    note_action,
)
from gomp.core.mutator.types import find_type
from gomp.core.shm import layout
from gomp.core.shm.records import FRAME_HEADER, INTO_BITS, P_OUT, self_p
from gomp.runtime import frames
from gomp.runtime.chantypes import word_of
from gomp.runtime.frames import FrameLink, FrameMeta
from gomp.runtime.frametypes import (
    ACTION,
    FrameClass,
    FrameRef,
    actions,
    check_slot,
    pointer_at,
    slot_type,
    store,
)
from gomp.runtime.kinds import Scalar
from gomp.runtime.parts import Link
from gomp.runtime.references import key_of
from gomp.runtime.refops import call_inline, check_part, check_range, load_part, raise_if
from gomp.runtime.reftypes import (
    ChanRef,
    GroupRef,
    MutexRef,
    NullType,
    RefType,
    numba_type,
    rejection,
    shown,
)
from gomp.runtime.synctypes import check_there

_I64 = ir.IntType(64)
_OUT = layout.SELF_BASE + P_OUT
_LITERAL = ("into", "ok", "default")  # given by name, and worked out when a call is compiled


def bind_slots(cls: FrameMeta, kws: dict[str, types.Type]) -> dict[str, tuple[int, frames.Slot]]:
    """The slots that are given, each of a type that it takes. CompileError."""
    try:
        slots = frames.given_slots(cls, kws)
    except TypeError as error:
        raise rejection(str(error)) from None
    for name, (_, p) in slots.items():
        check_slot(p, kws[name], f"slot {name} of {cls.__name__}", of_own=True)
    return slots


def put_out(context: Any, builder: Any, cls: FrameMeta, given: dict[str, tuple[types.Type, Any]]) -> None:
    """Leave the slots of a frame of ``cls`` in P_OUT. An action that was made before is not the last from here on, whatever this raises."""
    slots = {name: cls.layout.slot(name) for name in given}
    call_inline(context, builder, forget_action, types.none, ())
    for name, (_, p) in slots.items():
        if not isinstance(p, FrameLink):
            check_range(context, builder, p, *given[name], f"slot {name} of {cls.__name__}")
    nbytes = max((at - FRAME_HEADER + p.size for at, p in slots.values()), default=0) + 7 & -8
    for word in range(0, nbytes, 8):
        builder.store(ir.Constant(_I64, 0), pointer_at(builder, ir.Constant(_I64, _OUT), word, _I64))
    for name, (at, p) in slots.items():
        type_, value = given[name]
        store(context, builder, p, ir.Constant(_I64, _OUT + at - FRAME_HEADER), type_, value)
    call_inline(context, builder, _note_bytes, types.none, (ir.Constant(_I64, nbytes),))


@inline
def _note_bytes(nbytes: int) -> None:
    self_p().out_bytes = nbytes


@inline
def _note_call(key: int, into: int, room: int) -> int:
    me = self_p()
    me.out_room = room
    me.out_into = into
    return note_action(find_type(key), me.out_bytes)


@inline
def _note_receive(into: int, ok_into: int) -> int:
    me = self_p()
    me.out_into = into
    me.out_ok = ok_into
    return note_action(ACTION_RECEIVE, 8)


def act(context: Any, builder: Any, what: int, nbytes: int) -> Any:
    return call_inline(context, builder, note_action, types.int64, (ir.Constant(_I64, what), ir.Constant(_I64, nbytes)))


def _type_call(frame: FrameRef, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
    if len(args) != 1 or not isinstance(args[0], FrameClass):
        raise rejection("f.call(F, slot=value, ..., into='slot of this frame') calls a frame F")
    cls = args[0].cls
    bind_slots(cls, {name: types.unliteral(type_) for name, type_ in kws.items() if name not in ("into", "room")})
    if not isinstance(kws.get("room", types.int64), types.Integer):
        raise rejection(f"f.call: room= is a number of bytes, not {shown(kws['room'])}")
    if "into" in kws:
        _check_into(frame.cls, cls, kws["into"])
    return named_signature(ACTION, frame, args, kws)


def _check_into(caller: FrameMeta, callee: FrameMeta, into: types.Type) -> None:
    returned = numba_type_of(callee.layout.returns)
    what = "nothing" if returned == types.none else f"a {shown(returned)}"
    check_slot_named(caller, into, returned, "f.call", "into", f"frame {callee.__name__} returns {what}")


def check_slot_named(
    cls: FrameMeta, name: types.Type, wanted: types.Type, action: str, keyword: str, gives: str
) -> None:
    """CompileError if ``keyword=`` of an action is not the name of a slot of ``cls`` for such a value; ``gives`` says in words what it is."""
    if not isinstance(name, types.StringLiteral):
        raise rejection(f"{action}: {keyword}= is the name of a slot of this frame, written out")
    try:
        _, p = cls.layout.slot(name.literal_value)
    except TypeError as error:
        raise rejection(f"{action}: {error}") from None
    if slot_type(p) != wanted:
        raise rejection(
            f"{action}: {gives}, and slot {name.literal_value} of {cls.__name__} holds a {shown(slot_type(p))}"
        )


def _type_ret(frame: FrameRef, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
    if kws or len(args) > 1:
        raise rejection("f.ret takes the result, or nothing")
    returns = frame.cls.layout.returns
    given = types.unliteral(args[0]) if args else types.none
    if returns is None:
        if not isinstance(given, (NullType, types.NoneType)):
            raise rejection(f"frame {frame.cls.__name__} is declared to return nothing: derive it from gomp.Frame[...]")
    else:
        check_part(result_part(returns), given, f"the result of {frame.cls.__name__}")
    return Signature(ACTION, tuple(map(types.unliteral, args)), recvr=frame)


def _type_yield(frame: FrameRef, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
    if kws or args:
        raise rejection("f.yield_() takes nothing: this frame goes on when others have had their turn")
    return Signature(ACTION, (), recvr=frame)


def _type_recv(frame: FrameRef, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
    if len(args) != 1 or not isinstance(args[0], ChanRef) or kws.keys() - {"into", "ok"}:
        raise rejection(
            "f.recv(channel, into='slot of this frame', ok='slot that says whether something was received')"
        )
    element = slot_type(args[0].cls.part)
    if "into" in kws:
        check_slot_named(
            frame.cls, kws["into"], element, "f.recv", "into", f"{shown(args[0])} gives a {shown(element)}"
        )
    if "ok" in kws:
        check_slot_named(
            frame.cls, kws["ok"], types.boolean, "f.recv", "ok", "whether something was received is a bool"
        )
    return named_signature(ACTION, frame, args, kws)


def _type_send(frame: FrameRef, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
    if kws or len(args) != 2 or not isinstance(args[0], ChanRef):
        raise rejection("f.send(channel, value)")
    check_part(args[0].cls.part, types.unliteral(args[1]), f"a {args[0].cls.__name__}")
    return Signature(ACTION, (args[0], types.unliteral(args[1])), recvr=frame)


def _type_wait_for(kind: type[RefType], call: str) -> Callable[..., Signature]:
    def resolve(frame: FrameRef, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
        if kws or len(args) != 1 or not isinstance(args[0], kind):
            raise rejection(call)
        return Signature(ACTION, args, recvr=frame)

    return resolve


actions.update(
    {
        "call": _type_call,
        "ret": _type_ret,
        "yield_": _type_yield,
        "recv": _type_recv,
        "send": _type_send,
        "lock": _type_wait_for(MutexRef, "f.lock(mutex)"),
        "wait": _type_wait_for(GroupRef, "f.wait(group)"),
    }
)


def named_signature(
    result: types.Type, recvr: types.Type, args: tuple[types.Type, ...], kws: dict[str, types.Type]
) -> Signature:
    """Of a method that takes ``args``, whose parameters begin with _, and then what is given by name."""
    parameters = [
        inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        for n in (*(f"_{i}" for i in range(len(args))), *kws)
    ]
    given = (*args, *(type_ if name in _LITERAL else types.unliteral(type_) for name, type_ in kws.items()))
    return _NamedSignature(result, given, recvr=recvr, pysig=inspect.Signature(parameters))


class _NamedSignature(Signature):  # type: ignore[misc]
    """One that knows what is given by which name in a method's lowering, too."""

    __slots__ = ()

    def as_function(self) -> Signature:
        if self.recvr is None:
            return self
        return _NamedSignature(self.return_type, (self.recvr, *self.args), recvr=None, pysig=self.pysig)


def numba_type_of(returns: Any) -> types.Type:
    """Of what a frame returns: a kind of number, a class of references, or None."""
    return types.none if returns is None else numba_type(returns)


def result_part(returns: Any) -> Scalar | Link:
    return returns if isinstance(returns, Scalar) else Link(returns, None, "")


def given_by_name(sig: Signature, args: Any) -> dict[str, tuple[types.Type, Any]]:
    """Types and values of what a call of :func:`named_signature` gives by name."""
    names = [name for name in sig.pysig.parameters if not name.startswith("_")]
    n = len(args) - len(names)
    return dict(zip(names, zip(sig.args[n:], args[n:], strict=True), strict=True))


def load_result(context: Any, builder: Any, cls: FrameMeta) -> Any:
    """What a frame of ``cls`` has returned, out of P_OUT."""
    if cls.layout.returns is None:
        return context.get_dummy_value()
    return load_part(context, builder, result_part(cls.layout.returns), ir.Constant(_I64, _OUT))


@lower_builtin("gomp.frame.call", FrameRef, types.VarArg(types.Any))
def _lower_call(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    caller, cls = sig.args[0].cls, sig.args[1].cls
    given = given_by_name(sig, args)
    into = 0
    if "into" in given:
        at, p = caller.layout.slot(given.pop("into")[0].literal_value)
        into = at | p.size << INTO_BITS
    room = ir.Constant(_I64, 0)
    if "room" in given:
        type_, value = given.pop("room")
        room = context.cast(builder, value, type_, types.int64)
        is_negative = builder.icmp_signed("<", room, ir.Constant(_I64, 0))
        raise_if(
            context, builder, is_negative, ValueError, "f.call: room= is a number of bytes, and cannot be negative"
        )
    put_out(context, builder, cls, given)
    return call_inline(
        context, builder, _note_call, types.int64, (ir.Constant(_I64, key_of(cls)), ir.Constant(_I64, into), room)
    )


@lower_builtin("gomp.frame.recv", FrameRef, types.VarArg(types.Any))
def _lower_recv(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    cls, given = sig.args[0].cls, given_by_name(sig, args)
    places = []
    for name in ("into", "ok"):
        at, p = cls.layout.slot(given[name][0].literal_value) if name in given else (0, None)
        places.append(ir.Constant(_I64, at | p.size << INTO_BITS if p else 0))
    builder.store(args[1], pointer_at(builder, ir.Constant(_I64, _OUT), 0, _I64))
    return call_inline(context, builder, _note_receive, types.int64, tuple(places))


@lower_builtin("gomp.frame.send", FrameRef, ChanRef, types.Any)
def _lower_send(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    call_inline(context, builder, forget_action, types.none, ())
    word = word_of(context, builder, sig.args[1], sig.args[2], args[2])
    builder.store(args[1], pointer_at(builder, ir.Constant(_I64, _OUT), 0, _I64))
    builder.store(word, pointer_at(builder, ir.Constant(_I64, _OUT), 8, _I64))
    return act(context, builder, ACTION_SEND, 16)


def _lower_wait_for(what: int) -> Callable[..., Any]:
    def lower(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
        call_inline(context, builder, forget_action, types.none, ())
        call_inline(context, builder, check_there, types.int64, (args[1],))
        builder.store(args[1], pointer_at(builder, ir.Constant(_I64, _OUT), 0, _I64))
        return act(context, builder, what, 8)

    return lower


lower_builtin("gomp.frame.lock", FrameRef, MutexRef)(_lower_wait_for(ACTION_LOCK))
lower_builtin("gomp.frame.wait", FrameRef, GroupRef)(_lower_wait_for(ACTION_WAIT))


@lower_builtin("gomp.frame.yield_", FrameRef)
def _lower_yield(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    return act(context, builder, ACTION_YIELD, 0)


@lower_builtin("gomp.frame.ret", FrameRef)
@lower_builtin("gomp.frame.ret", FrameRef, types.Any)
def _lower_ret(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    returns = sig.args[0].cls.layout.returns
    out = ir.Constant(_I64, _OUT)
    if returns is not None:
        check_range(
            context, builder, result_part(returns), sig.args[1], args[1], f"the result of {sig.args[0].cls.__name__}"
        )
    builder.store(ir.Constant(_I64, 0), pointer_at(builder, out, 0, _I64))
    if returns is not None:
        store(context, builder, result_part(returns), out, sig.args[1], args[1])
    return act(context, builder, ACTION_RETURN, 8)
