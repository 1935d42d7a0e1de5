"""The steps of frames as machine code: compiled, cached and loaded as programs are, and called by address (``mutator/goroutine.py``).

A program whose result is the address of a function beside it: the step itself between C's calling convention and Numba's. What a step raises
is kept in the P's record, and raised again by whoever runs the goroutine.
"""

from __future__ import annotations

import ctypes
import dis
import threading
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit
from numba.core import errors, types
from numba.core.compiler import CompileResult
from numba.extending import intrinsic

from gomp.core.mutator.action import ACTION_RAISED
from gomp.core.mutator.boundary import NO_SLOT
from gomp.core.mutator.schedule import run_slice
from gomp.core.mutator.types import find_type
from gomp.core.shm import layout
from gomp.core.shm.records import LEADS_INTO_STACK, P_RAISED_CODE, P_RAISED_INFO, TYPE_BYTES, p_dtype, view
from gomp.errors import CompileError
from gomp.runtime import handles, pythoncalls, sites
from gomp.runtime.compiled import Compiled, Program, compile_error
from gomp.runtime.crossing import Result
from gomp.runtime.frames import FrameMeta
from gomp.runtime.frametypes import ACTION, FrameRef
from gomp.runtime.handles import table
from gomp.runtime.references import key_of
from gomp.runtime.sitetable import Site
from gomp.runtime.type_table import described, mask_words, publish

_I64 = ir.IntType(64)
_programs: dict[FrameMeta, Program] = {}
_ready: set[FrameMeta] = set()
_under_way: dict[FrameMeta, None] = {}
_loading = threading.RLock()
_addresses: Any = None  # the array that the P's record leads to; and what is in plain Python


def load(cls: FrameMeta) -> bool:
    """Have the step of ``cls``, and of every frame that it calls, known to this process in the runtime that is open. Raises CompileError.

    All of them or none: what is in ``_ready`` may be run by any thread. False within the loading of others, who then load this one too.
    """
    if cls in _ready:
        return True
    with _loading:
        if _under_way:
            _under_way.setdefault(cls)
            return False
        try:
            _under_way[cls] = None
            _load_all()
            _ready.update(_under_way)
        finally:
            _under_way.clear()
    return True


def _load_all() -> None:
    """Go through what is under way, which grows meanwhile."""
    table.check_open()
    done: set[FrameMeta] = set()
    while more := [cls for cls in _under_way if cls not in done]:
        for cls in more:
            done.add(cls)
            if cls not in _programs:
                _programs[cls] = Step(cls).program(())
            _programs[cls].get_ready()  # tells of those that it calls
    for cls in done:
        publish_frame(cls)
        known_steps()[_place_of(key_of(cls))] = _programs[cls].code.entry(NO_SLOT, ())


def reached_from(cls: FrameMeta) -> set[FrameMeta]:
    """Every frame that one of ``cls``, which is loaded, may lead to: itself first of all."""
    found, more = {cls}, [cls]
    while more:
        program = _programs.get(more.pop())  # a function of Python's, which takes its arguments in a frame, has none
        called = {c for c in program.classes if isinstance(c, FrameMeta)} - found if program else set()
        found |= called
        more += called
    return found


def is_known(key: int) -> bool:
    """Whether this process has the step of the frame type with that key, which is in the table."""
    return bool(known_steps()[_place_of(key)])


def _place_of(key: int) -> int:
    return int(find_type(key) - layout.TYPES_BASE) // TYPE_BYTES


def known_steps() -> Any:
    """By a type's place in the table, the address of its step here."""
    global _addresses
    if _addresses is None:
        _addresses = (ctypes.c_int64 * layout.MAX_TYPES)()
        me = view(p_dtype, layout.SELF_BASE)[0]
        me.steps = ctypes.addressof(_addresses)
        me.scheduler = getattr(run_slice, "address", 0)  # there is none in plain Python
    return _addresses


def _forget() -> None:
    global _addresses
    _addresses = None
    _ready.clear()


handles.on_open(_forget)
handles.on_close(_forget)


def publish_frame(cls: FrameMeta) -> None:
    """Have the runtime that is open know frames of ``cls``, whatever is to be done with them."""
    info = cls.layout
    n = (info.size + 511) // 512
    words = [*mask_words(info.reference_words), *[0] * n][:n]
    if info.frame_words:
        words += [*mask_words(info.frame_words), *[0] * n][:n]
    ptr_bytes = 8 * (info.reference_words[-1] + 1) if info.reference_words else 0
    publish(key_of(cls), info.size, ptr_bytes, LEADS_INTO_STACK if info.frame_words else 0, words, cls)
    described(cls)
    sites.publish(key_of(cls), place_of(cls).text)


def place_of(cls: FrameMeta) -> Site:
    """Where the step of ``cls`` begins, or the function that it is given to."""
    code: Any = cls.step.__code__  # type: ignore[attr-defined]
    return Site(code.co_qualname, code.co_filename, code.co_firstlineno)


class Step(Compiled[Any, Any]):
    """The step of a frame."""

    def __init__(self, cls: FrameMeta) -> None:
        super().__init__(cls.step)
        self.cls = cls
        self.__name__ = f"{cls.__name__}.step"

    def numba_types(self, kinds: tuple[Any, ...]) -> tuple[types.Type, ...]:
        return (FrameRef(self.cls, is_own=True),)

    def _with_annotations(self, given: tuple[types.Type, ...]) -> tuple[types.Type, ...]:
        return given

    def _problem_with(self, given: tuple[types.Type, ...]) -> str:
        return ""

    def compile_for(self, args: tuple[types.Type, ...]) -> tuple[Result, CompileResult]:
        try:
            signature = types.Dispatcher(self.dispatcher).get_call_type(self.dispatcher.typingctx, args, {})
            if not any(i.opname.startswith("RETURN") for i in dis.get_instructions(self.py_func)):
                raise CompileError(
                    f"{self.__name__} does nothing but raise: some way through it ends in an action, as in 'return f.ret()'"
                )
            if signature.return_type != ACTION:
                raise CompileError(
                    f"{self.__name__} returns {signature.return_type} somewhere: each way through it ends in an action, as in 'return f.ret()'"
                )
            wrapper = njit(_address_of_step(self, args, signature))
            wrapper.compile((types.int64, types.Tuple(())))
        except (errors.NumbaError, errors.UnsupportedBytecodeError) as error:
            raise compile_error(error, self.py_func) from None
        result = wrapper.overloads[types.int64, types.Tuple(())]
        if pythoncalls.calls_of(result._find_referenced_environments()):
            raise CompileError(f"{self.__name__} calls Python, which a step cannot: leave that to a compiled function")
        return None, result


def _address_of_step(step: Step, args: tuple[types.Type, ...], signature: Any) -> Callable[..., Any]:
    """The program that gives the address."""

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        code = step.dispatcher.overloads[args]
        context.add_linking_libs([code.library])
        function = ir.Function(
            builder.module, ir.FunctionType(_I64, [_I64]), name=f"gomp.step.{code.fndesc.mangled_name}"
        )
        function.linkage = "internal"
        inner = ir.IRBuilder(function.append_basic_block("entry"))
        status, action = context.call_internal_no_propagate(inner, code.fndesc, signature, function.args)
        with inner.if_then(status.is_error, likely=False):
            for at, word in (
                (P_RAISED_CODE, inner.zext(status.code, _I64)),
                (P_RAISED_INFO, inner.ptrtoint(status.excinfoptr, _I64)),
            ):
                inner.store(word, inner.inttoptr(ir.Constant(_I64, layout.SELF_BASE + at), _I64.as_pointer()))
            inner.ret(ir.Constant(_I64, ACTION_RAISED))
        inner.ret(action)
        return builder.ptrtoint(function, _I64)

    @intrinsic  # type: ignore[untyped-decorator]
    def address(context: Any) -> Any:
        return types.int64(), codegen

    def run(slot: int, words: tuple[()]) -> Any:
        return address()

    return run
