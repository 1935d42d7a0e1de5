"""Select in compiled code. In functions ``gomp.select`` waits; in frames ``f.select`` is an action that does.

===================================================  =====================================================================================
``ch.receiving()``, ``ch.sending(value)``            cases: an address and a word, on the native stack until a select has them
``place, value, ok = gomp.select(case, ...)``        as in Python; what it receives from is of one class
``gomp.select(case, ..., default=True)``             does not wait: place -1
``return f.select(case, ..., into="place")``         each ``ch.receiving(into="slot", ok="slot")`` says where what it receives goes
===================================================  =====================================================================================
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, errors, types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, Signature, infer_getattr, infer_global
from numba.extending import models, register_model

from gomp.core.jit import inline
from gomp.core.mutator.action import ACTION_SELECT, forget_action, note_action
from gomp.core.mutator.chan import VALUE
from gomp.core.mutator.select import CASE_BYTES, MOST_CASES, NONE_READY, SENDS
from gomp.core.mutator.selectcalls import select_waiting
from gomp.core.shm import layout
from gomp.core.shm.atomics import store64
from gomp.core.shm.records import CHAN_CLOSED, CHAN_DONE, INTO_BITS, P_OUT, self_p
from gomp.errors import ClosedChannel
from gomp.runtime.actiontypes import check_slot_named, given_by_name, named_signature
from gomp.runtime.chantypes import check_sent, word_of
from gomp.runtime.endings import raise_for
from gomp.runtime.frametypes import ACTION, FrameRef, actions, pointer_at, slot_type
from gomp.runtime.refops import call_inline, load_part
from gomp.runtime.reftypes import ChanRef, part_type, rejection, shown
from gomp.runtime.select import select

_I64 = ir.IntType(64)
_OUT = layout.SELF_BASE + P_OUT
_CALL = "f.select(ch.receiving(into='slot', ok='slot'), ch.sending(value), ..., into='slot', default=True)"


class CaseType(types.Type):
    """A case of a channel. ``into`` and ``ok`` name slots of the frame that selects, '' if it gives none."""

    def __init__(self, ch: ChanRef, sends: bool, into: str = "", ok: str = "") -> None:
        self.ch, self.sends, self.into, self.ok = ch, sends, into, ok
        super().__init__(name=f"case of {ch.name} {'sending' if sends else f'receiving {into} {ok}'}")


@register_model(CaseType)
class _CaseModel(models.StructModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: CaseType) -> None:
        super().__init__(manager, fe_type, [("ch", fe_type.ch), ("word", types.int64)])


# --- cases ------------------------------------------------------------------------------------------------------------


@infer_getattr
class _CaseAttribute(AttributeTemplate):  # type: ignore[misc]
    key = ChanRef

    def resolve_receiving(self, ch: ChanRef) -> types.Type:
        return _method("receiving", ch, _type_receiving)

    def resolve_sending(self, ch: ChanRef) -> types.Type:
        return _method("sending", ch, _type_sending)


def _method(name: str, ch: ChanRef, resolve: Callable[..., Signature]) -> types.Type:
    raised: list[errors.TypingError] = []

    class Method(AbstractTemplate):  # type: ignore[misc]
        key = f"gomp.chan.{name}"
        prefer_literal = True

        def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
            try:
                return resolve(ch, args, kws)
            except errors.TypingError as error:  # Numba tries again without literals, and would show what is wrong then
                raised.append(error)
                raise raised[0] from None

    return types.BoundFunction(Method, ch)


def _type_receiving(ch: ChanRef, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
    if args or kws.keys() - {"into", "ok"} or not all(isinstance(name, types.StringLiteral) for name in kws.values()):
        raise rejection(
            "ch.receiving(into='slot of the frame that selects', ok='slot'), with names that are written out"
        )
    return named_signature(CaseType(ch, False, **{name: t.literal_value for name, t in kws.items()}), ch, args, kws)


def _type_sending(ch: ChanRef, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
    if kws or len(args) != 1:
        raise rejection("ch.sending(value)")
    check_sent(ch, args[0])
    return Signature(CaseType(ch, True), (types.unliteral(args[0]),), recvr=ch)


@lower_builtin("gomp.chan.receiving", ChanRef, types.VarArg(types.Any))
def _lower_receiving(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    return _case(context, builder, sig, args[0], ir.Constant(_I64, 0))


@lower_builtin("gomp.chan.sending", ChanRef, types.Any)
def _lower_sending(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    return _case(context, builder, sig, args[0], word_of(context, builder, sig.args[0], sig.args[1], args[1]))


def _case(context: Any, builder: Any, sig: Signature, ch: Any, word: Any) -> Any:
    made = cgutils.create_struct_proxy(sig.return_type)(context, builder)
    made.ch, made.word = ch, word
    return made._getvalue()


def _check_cases(args: tuple[types.Type, ...]) -> None:
    for each in args:
        if not isinstance(each, CaseType):
            raise rejection(f"select takes ch.receiving() and ch.sending(value), not {shown(each)}")
    if len(args) > MOST_CASES:
        raise rejection(f"a select in compiled code has {MOST_CASES} cases at most")


def _put_cases(context: Any, builder: Any, cases: list[tuple[CaseType, Any, int, int]]) -> None:
    """Leave cases in P_OUT, each with where what it receives goes."""
    call_inline(context, builder, forget_action, types.none, ())
    for i, (type_, value, into, ok) in enumerate(cases):
        case = cgutils.create_struct_proxy(type_)(context, builder, value=value)
        for j, word in enumerate((case.ch, case.word, ir.Constant(_I64, into), ir.Constant(_I64, ok))):
            builder.store(word, pointer_at(builder, ir.Constant(_I64, _OUT), CASE_BYTES * i + 8 * j, _I64))


def _is_default(kws: dict[str, types.Type]) -> bool:
    given = kws.get("default")
    if given is not None and not isinstance(given, types.BooleanLiteral):
        raise rejection("select: default= is True or False, written out")
    return given is not None and given.literal_value


# --- frames -----------------------------------------------------------------------------------------------------------


def _type_select(frame: FrameRef, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
    if kws.keys() - {"into", "default"}:
        raise rejection(_CALL)
    _check_cases(args)
    _is_default(kws)
    if "into" in kws:
        check_slot_named(frame.cls, kws["into"], types.int64, "f.select", "into", "the place of a case is an int")
    for case in args:
        element = slot_type(case.ch.cls.part)
        gives = f"{shown(case.ch)} gives a {shown(element)}"
        if case.into:
            check_slot_named(frame.cls, types.literal(case.into), element, "ch.receiving", "into", gives)
        if case.ok:
            says = "whether something was received is a bool"
            check_slot_named(frame.cls, types.literal(case.ok), types.boolean, "ch.receiving", "ok", says)
    return named_signature(ACTION, frame, args, kws)


actions["select"] = _type_select


@lower_builtin("gomp.frame.select", FrameRef, types.VarArg(types.Any))
def _lower_select(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    cls, given = sig.args[0].cls, given_by_name(sig, args)

    def place(name: str) -> int:
        at, p = cls.layout.slot(name) if name else (0, None)
        return at | p.size << INTO_BITS if p else 0

    cases = [
        (type_, value, SENDS if type_.sends else place(type_.into), place(type_.ok))
        for type_, value in zip(sig.args, args, strict=True)
        if isinstance(type_, CaseType)
    ]
    _put_cases(context, builder, cases)
    which = place(given["into"][0].literal_value) if "into" in given else 0
    blocks = not _is_default({name: type_ for name, (type_, _) in given.items()})
    words = (ir.Constant(_I64, word) for word in (which, len(cases), int(blocks)))
    return call_inline(context, builder, _note_select, types.int64, tuple(words))


@inline
def _note_select(into: int, n: int, blocks: int) -> int:
    me = self_p()
    me.out_into = into
    me.out_ncases = n
    me.out_blocks = blocks
    return note_action(ACTION_SELECT, CASE_BYTES * n)


# --- functions --------------------------------------------------------------------------------------------------------


@infer_global(select)
class _Select(AbstractTemplate):  # type: ignore[misc]
    prefer_literal = True

    def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
        if kws.keys() - {"default"}:
            raise rejection("gomp.select(case, ..., default=True); a timeout= is for Python's side")
        _check_cases(args)
        _is_default(kws)
        classes = {case.ch for case in args if not case.sends}
        if len(classes) > 1:
            raise rejection(
                "in a compiled function a select receives from channels of one class; in a frame each case has its slot"
            )
        if any(case.into or case.ok for case in args):
            raise rejection(
                "ch.receiving(into=, ok=) names slots of a frame, for f.select; gomp.select returns what is received"
            )
        value = part_type(classes.pop().cls.part) if classes else types.none
        return named_signature(types.Tuple((types.int64, value, types.boolean)), None, args, kws)


@lower_builtin(select, types.VarArg(types.Any))
def _lower_gomp_select(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    cases = [(t, v, SENDS if t.sends else 0, 0) for t, v in zip(sig.args, args, strict=True) if isinstance(t, CaseType)]
    _put_cases(context, builder, cases)
    given = {name: type_ for name, (type_, _) in given_by_name(sig, args).items()}
    receiving = sum(1 << i for i, (type_, *_) in enumerate(cases) if not type_.sends)
    run = _selector(len(cases), not _is_default(given), receiving)
    outcome = context.compile_internal(builder, run, types.UniTuple(types.int64, 2)(), ())
    place, ok = cgutils.unpack_tuple(builder, outcome)
    value_type = sig.return_type.types[1]
    if value_type == types.none:
        value = context.get_dummy_value()
    else:
        ch = next(type_.ch for type_, *_ in cases if not type_.sends)
        value = load_part(context, builder, ch.cls.part, ir.Constant(_I64, VALUE))
    return context.make_tuple(
        builder, sig.return_type, (place, value, builder.icmp_signed("!=", ok, ir.Constant(_I64, 0)))
    )


@functools.cache
def _selector(n: int, blocks: bool, receiving: int) -> Callable[[], tuple[int, int]]:
    """Do the select whose cases are in P_OUT: the place, and whether something was received or sent. VALUE is 0 if nothing was received."""

    def run() -> tuple[int, int]:
        self_p().out_bytes = CASE_BYTES * n
        place = select_waiting(n, 1 if blocks else 0)
        if place < 0:
            if place != NONE_READY:
                raise_for(place)
            store64(VALUE, 0)
            return -1, 0
        done = self_p().selected
        if not receiving >> place & 1:
            if done == CHAN_CLOSED:
                raise ClosedChannel("send on closed channel")
            store64(VALUE, 0)
        return place, 1 if done == CHAN_DONE else 0

    return run
