"""``@gomp.compiled``: functions that run as machine code on the shared heap.

What such a function may do: arithmetic, loops, calls of other compiled functions, references (``reftypes``), numpy and whatever else Numba's
nopython mode knows. It takes ints, floats, bools, references, arrays of the heap and None, and returns a reference or anything without one.
Arguments that may be None are annotated with their struct.

A call from Python
------------------
1. The argument types choose a *program*: the function's body, and around it a wrapper with slots in place of references.
2. The wrapper, in one kernel call: enters; loads the addresses from the handle slots; runs the body; puts a resulting reference into a
   slot; leaves, also when the body raised. Between Python and machine code only numbers cross.
3. The body polls (``polling``), so it may be stopped, interrupted or ended at any loop and any call. While it waits, its frames are
   scanned from the poll up to the wrapper's frame, which is included: LLVM may inline the body there.

Programs are kept on disk (``program_cache``) under a fingerprint of everything they depend on. A script compiles its own, while its P
is SAFE. A P has a short-lived child compile (``compile_in_child``): the compiler's memory dies with the child.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types as python_types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import errors, types
from numba.core.compiler import CompileResult
from numba.extending import intrinsic, typeof_impl

from gomp.core import machine_code
from gomp.core.jit import COMPILED, inline
from gomp.core.machine_code import Loaded
from gomp.core.mutator.boundary import NO_SLOT, OK, fill_handle
from gomp.core.mutator.poll import clear_dead_stack
from gomp.core.mutator.samples import NO_PLACE
from gomp.core.sched.status import EVERY_STACK, enter_waiting, leave
from gomp.core.shm.records import POLL_INTERRUPT, self_p
from gomp.errors import Interrupted, RuntimeLost
from gomp.runtime import (  # Numba learns from those that are marked
    arraytypes,  # noqa: F401
    arraywalks,  # noqa: F401
    bodies,
    boxtypes,  # noqa: F401
    chantypes,  # noqa: F401
    collecttypes,  # noqa: F401
    fingerprint,
    globaltypes,  # noqa: F401
    gotypes,  # noqa: F401
    interrupt,
    madetypes,  # noqa: F401
    mapping,
    maptypes,  # noqa: F401
    mapwalks,  # noqa: F401
    pooltypes,  # noqa: F401
    program_cache,
    programwaits,
    pythoncalls,
    selecttypes,  # noqa: F401
    stacks,
    texttypes,  # noqa: F401
    textwalks,  # noqa: F401
)
from gomp.runtime.compile_errors import compile_error
from gomp.runtime.crossing import (
    Kind,
    Result,
    accepted_by,
    accepts,
    conversion,
    crosses_as,
    kind_annotated,
    kind_of,
    made_of,
    name_of_result,
    owner_class,
    received,
    result_named,
    result_of,
    type_of,
    type_of_none,
)
from gomp.runtime.fingerprint import Survey
from gomp.runtime.frames import FrameMeta
from gomp.runtime.handles import table
from gomp.runtime.kinds import INT
from gomp.runtime.ndarrays import Memory
from gomp.runtime.ndarraytypes import as_shared, root_result
from gomp.runtime.polling import PollingCompiler
from gomp.runtime.refops import call_inline
from gomp.runtime.reftypes import NULL_TYPE, NullType, SlotType, rejection, shown
from gomp.runtime.slots import empty, slot_in
from gomp.runtime.stacks import OtherThread, this_thread
from gomp.runtime.type_table import described, register

__all__ = ["Compiled", "compile_in_child", "compiled", "prepare"]

A = ParamSpec("A")
R = TypeVar("R")
compile_in_child = False  # set by a P when it starts
_NEVER, _OTHER_THREAD = -1, -2


def prepare() -> None:
    """Work out what every process needs for every program: what a coordinator has before it forks, its Ps share."""
    program_cache.directory()
    fingerprint.compiler_sources()
    stacks.stack_low()


def compiled(function: Callable[A, R]) -> Compiled[A, R]:
    """Compile a function when it is first called with arguments of given types."""
    return Compiled(function)


class Compiled(Generic[A, R]):
    """A compiled function; ``py_func`` is the function as it was written."""

    def __init__(self, function: Callable[A, R]) -> None:
        if not isinstance(function, python_types.FunctionType):
            raise TypeError(f"@gomp.compiled compiles functions written in Python, not {function!r}")
        functools.update_wrapper(self, function)
        self.py_func = function
        self._programs: dict[tuple[Kind, ...], Program] = {}
        code = function.__code__
        self._arity = code.co_argcount + code.co_kwonlyargcount
        if code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS):
            raise TypeError(
                f"{self.__name__}: a compiled function has a fixed number of arguments, not *{code.co_varnames[self._arity]}"
            )

    @functools.cached_property
    def dispatcher(self) -> Any:
        """Numba's side of the function; made late, because a function that comes by cloudpickle is not whole at first."""
        made = njit(pipeline_class=PollingCompiler, boundscheck=True)(self.py_func)
        made._compiler.fold_argument_types = self._fold
        made.compiled = self
        return made

    def __call__(self, *args: A.args, **kwargs: A.kwargs) -> R:
        if kwargs or len(args) != self._arity:
            args = self._bound(args, kwargs)  # type: ignore[assignment]
        if not COMPILED:
            return self.py_func(*args, **kwargs)
        program = self.program_for(args)
        try:
            return program.run(args)  # type: ignore[no-any-return]
        except OverflowError:
            self._check_widths(args)
            raise

    def program_for(self, args: tuple[Any, ...]) -> Program:
        """The program for these arguments, all by position, as :meth:`program`."""
        program = self._programs.get(tuple(map(type, args)))
        if program is None:
            table.check_open()  # machine code is linked with kernels that a runtime loads
            kinds = self._kinds(args)
            program = self._programs.get(kinds) or self.program(kinds)
        return program

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(
                f"{self.__name__}: {error}; its parameters are {', '.join(self._signature.parameters)}"
            ) from None
        bound.apply_defaults()
        return bound.args

    def _check_widths(self, args: tuple[Any, ...]) -> None:
        """OverflowError that names it, if an argument is an int of more than 64 bits."""
        for name, value in zip(self._signature.parameters, args, strict=True):
            if isinstance(value, int):
                INT.checked(value, lambda name=name: f"argument {name} of {self.__name__}")  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"<compiled {self.__module__}.{self.__qualname__}>"

    def __reduce__(self) -> Any:
        found: Any = sys.modules.get(self.__module__)
        for name in self.__qualname__.split("."):
            found = getattr(found, name, None)
        return self.__qualname__ if found is self and self.__module__ != "__main__" else (compiled, (self.py_func,))

    def _kinds(self, args: tuple[Any, ...]) -> tuple[Kind, ...]:
        """Of each argument its type; where that does not say enough, the Numba type that its value has."""
        return tuple(map(self._kind, self._signature.parameters, args))

    def _kind(self, name: str, value: object) -> Kind:
        with self._about_argument(name):
            return kind_of(value)

    @contextmanager
    def _about_argument(self, name: str) -> Iterator[None]:
        try:
            yield
        except TypeError as error:
            raise TypeError(f"argument {name} of {self.__name__} {error}") from None

    def program(self, kinds: tuple[Kind, ...]) -> Program:
        """The program for arguments of these kinds: from this process, from the cache, or compiled now."""
        if kinds not in self._programs:
            self._programs[kinds] = self._load(kinds, self.numba_types(kinds))
        return self._programs[kinds]

    def annotated_kinds(self) -> tuple[Kind, ...] | None:
        """The kinds of arguments that the annotations name; None if they do not say."""
        kinds = tuple(map(kind_annotated, self._annotations))
        return None if None in kinds else kinds  # type: ignore[return-value]

    def numba_types(self, kinds: tuple[Kind, ...]) -> tuple[types.Type, ...]:
        names = list(self._signature.parameters)
        given = tuple(self._argument_type(name, kind) for name, kind in zip(names, kinds, strict=True))
        problem = self._problem_with(given)
        if problem:
            raise TypeError(problem)
        return self._with_annotations(given)

    def _argument_type(self, name: str, kind: Kind) -> types.Type:
        with self._about_argument(name):
            return type_of(kind)

    @functools.cached_property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self.py_func)

    # --- what annotations say of references

    @functools.cached_property
    def _annotations(self) -> list[object]:
        """By position; what cannot be looked up says nothing."""
        return [self._evaluated(parameter.annotation) for parameter in self._signature.parameters.values()]

    def _evaluated(self, annotation: object) -> object:
        if not isinstance(annotation, str):
            return annotation
        try:
            scope = {**inspect.getclosurevars(self.py_func).nonlocals, **vars(python_types)}
            return eval(annotation, self.py_func.__globals__, scope)
        except (NameError, AttributeError, TypeError, SyntaxError, ValueError):
            return inspect.Parameter.empty

    def _problem_with(self, given: tuple[types.Type, ...]) -> str:
        """Which argument is not what its parameter is annotated with; "" if all are."""
        for name, annotation, type_ in zip(self._signature.parameters, self._annotations, given, strict=True):
            accepted = accepted_by(annotation)
            if accepted and not isinstance(type_, NullType) and not any(accepts(wanted, type_) for wanted in accepted):
                again = " as it was declared before" if shown(type_) in map(shown, accepted) else ""
                takes = " or ".join(map(shown, accepted))
                return f"argument {name} of {self.__name__} is a {takes} or None by its annotation, not {shown(type_)}{again}"
        return ""

    def _with_annotations(self, given: tuple[types.Type, ...]) -> tuple[types.Type, ...]:
        """With the annotated type in the place of None."""
        if not any(isinstance(t, NullType) for t in given):
            return given
        pairs = zip(given, map(type_of_none, self._annotations), strict=True)
        return tuple(wanted if isinstance(t, NullType) and wanted is not None else t for t, wanted in pairs)

    def _fold(
        self, args: tuple[types.Type, ...], kws: dict[str, types.Type]
    ) -> tuple[inspect.Signature, tuple[types.Type, ...]]:
        """Numba asks here which types a call from other compiled code has."""
        signature, folded = type(self.dispatcher._compiler).fold_argument_types(self.dispatcher._compiler, args, kws)
        nulls = tuple(
            NULL_TYPE if isinstance(t, types.Omitted) and t.value is None else types.unliteral(t) for t in folded
        )
        problem = self._problem_with(nulls)
        if problem:
            raise rejection(problem)
        return signature, self._with_annotations(nulls)

    # --- from source to program

    def _load(self, kinds: tuple[Kind, ...], args: tuple[types.Type, ...]) -> Program:
        survey = Survey(self.py_func)
        classes = tuple(survey.classes)
        if not survey.certain:
            result, compiled_code = self.compile_for(args)
            return Program(kinds, result, machine_code.compiled_here(compiled_code), classes)
        file = program_cache.directory() / f"{self.__name__}-{survey.hexdigest(*map(str, args))}.pickle"
        if not file.exists() and compile_in_child:
            with program_cache.turn(file):
                if not file.exists():
                    program_cache.make_room()
                    program_cache.do_in_child(lambda: self._compile_into(file, args))
        if file.exists():
            described, packed = program_cache.load(file)

            def bind(environments: tuple[Any, ...]) -> None:
                for constant in (*pythoncalls.calls_of(environments), *bodies.started_by(environments)):
                    constant.bind(classes, survey.functions)

            try:
                result = result_named(described, classes, args)
                return Program(kinds, result, machine_code.unpack(packed, bind), classes)
            except TypeError:  # a class that is only named inside the program: the compiler makes it
                pass
        result, compiled_code = self._compile_into(file, args)
        return Program(kinds, result, machine_code.compiled_here(compiled_code), classes)

    def _compile_into(self, file: Path, args: tuple[types.Type, ...]) -> tuple[Result, CompileResult]:
        program_cache.begin_names(file.stem)
        result, code = self.compile_for(args)
        program_cache.store(file, name_of_result(result), code)
        return result, code

    def compile_for(self, args: tuple[types.Type, ...]) -> tuple[Result, CompileResult]:
        """Compile for arguments of these Numba types: the class of the resulting reference, if it is one, and the code."""
        try:
            signature = types.Dispatcher(self.dispatcher).get_call_type(self.dispatcher.typingctx, args, {})
            result = result_of(signature.return_type, self.__name__)
            wrapper = njit(_wrapper(self, args, signature))
            slots = types.Tuple(list(map(crosses_as, args)))
            wrapper.compile((types.int64, slots))
        except (errors.NumbaError, errors.UnsupportedBytecodeError) as error:
            raise compile_error(error, self.py_func) from None
        return result, wrapper.overloads[types.int64, slots]


@typeof_impl.register(Compiled)
def _typeof_compiled(value: Compiled[Any, Any], context: object) -> types.Type:
    return types.Dispatcher(value.dispatcher)


# --- a program --------------------------------------------------------------------------------------------------------


@dataclass
class Program:
    """Machine code for one combination of argument types, and how to call it."""

    kinds: tuple[Kind, ...]
    result: Result
    code: Loaded
    classes: tuple[Any, ...]  # the type table must have them
    ready_for: int = _NEVER  # the handle table's ``first``, of the runtime that has

    def __post_init__(self) -> None:
        self.entry = _watched(self.code.entry) if pythoncalls.calls_of(self.code.environments) else self.code.entry
        self.conversions = [(i, convert) for i, kind in enumerate(self.kinds) if (convert := conversion(kind))]

    def run(self, args: tuple[Any, ...]) -> Any:
        if self.ready_for != table.first or not table.is_open:
            self.get_ready()
        words = args if not self.conversions else self._words(args)
        if interrupt.handler.word[0] & POLL_INTERRUPT:
            interrupt.handler.drop_stale()
        interrupted = None
        while interrupted is None:
            try:
                if self.result is None:
                    return self.entry(NO_SLOT, words)
                if self.result is type(None):
                    self.entry(NO_SLOT, words)
                    return None
                if self.result is np.ndarray:
                    return self._run_for_array(words, args)
                return self._run_for_reference(words)
            except stacks.OtherThread:
                stacks.announce()
            except Interrupted as error:
                interrupted = error
        try:
            programwaits.raise_kept()
            interrupt.raise_noted()  # out of the except block, so that KeyboardInterrupt is raised alone
            raise interrupted
        finally:
            del interrupted  # which leads back to this frame by its traceback

    def _words(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        words = list(args)
        for i, convert in self.conversions:
            words[i] = convert(words[i])
        return tuple(words)

    def _run_for_reference(self, words: tuple[Any, ...]) -> Any:
        owner = empty(owner_class(self.result))
        status = self.entry(slot_in(owner), words)
        return made_of(self.result, owner if status == OK else None)

    def _run_for_array(self, words: tuple[Any, ...], args: tuple[Any, ...]) -> Any:
        memory = empty(Memory)
        return as_shared(self.entry(slot_in(memory), words), memory, args)

    def get_ready(self) -> None:
        """Have the runtime that is open know the types, and this process the steps of frames."""
        table.check_open()
        for cls in self.classes:
            if isinstance(cls, FrameMeta):
                cls.get_ready()
            else:
                register(cls)
                described(cls)
        for started in bodies.started_by(self.code.environments):
            started.cls.get_ready()
        self.ready_for = table.first


def _watched(entry: Callable[..., Any]) -> Callable[..., Any]:
    """Of a program that calls Python, in which another thread may end the runtime: it comes back to memory that is still mapped."""

    def enter(slot: int, words: tuple[Any, ...]) -> Any:
        with mapping.asleep():
            return pythoncalls.run(entry, slot, words)

    return enter


@inline
def _begin(frame: int, thread: int) -> int:
    """SAFE → KERNEL. From here to the end the native stack of ``thread`` up to ``frame`` may hold addresses."""
    me = self_p()
    if me.stack_thread != thread:
        return _OTHER_THREAD
    if enter_waiting() != OK:
        return _NEVER
    me.native_base = frame
    me.stack_guard = EVERY_STACK
    me.makes_at = NO_PLACE
    clear_dead_stack()
    return OK


@intrinsic  # type: ignore[untyped-decorator]
def _frame_address(context: Any) -> Any:
    """The upper end of the frame of the function that this is compiled into."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        i32, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        function = builder.module.declare_intrinsic("llvm.frameaddress", (pointer,), ir.FunctionType(pointer, [i32]))
        return builder.ptrtoint(builder.call(function, [ir.Constant(i32, 0)]), ir.IntType(64))

    return types.int64(), codegen


def _wrapper(function: Compiled[Any, Any], args: tuple[types.Type, ...], body: Any) -> Callable[..., Any]:
    """The function that Python calls: slots for references, and out of KERNEL on every way out."""
    gives_reference = isinstance(body.return_type, SlotType)
    result = types.int64 if gives_reference or isinstance(body.return_type, NullType) else body.return_type

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        slot, words = values
        given = [received(context, builder, t, builder.extract_value(words, i)) for i, t in enumerate(args)]
        code = function.dispatcher.overloads[args]
        context.add_linking_libs([code.library])
        status, value = context.call_internal_no_propagate(builder, code.fndesc, body, given)
        with builder.if_then(status.is_error, likely=False):
            call_inline(context, builder, leave, types.none, ())
            context.call_conv.return_status_propagate(builder, status)
        if gives_reference:
            value = call_inline(context, builder, fill_handle, types.int64, (slot, value))
        elif isinstance(result, types.Array):
            root_result(context, builder, result, slot, value)
        call_inline(context, builder, leave, types.none, ())
        return value

    @intrinsic  # type: ignore[untyped-decorator]
    def call_and_leave(context: Any, slot: Any, words: Any) -> Any:
        return result(slot, words), codegen

    def run(slot: int, words: tuple[Any, ...]) -> Any:
        begun = _begin(_frame_address(), this_thread())
        if begun == _OTHER_THREAD:
            raise OtherThread
        if begun != OK:
            raise RuntimeLost("the runtime has ended")
        return call_and_leave(slot, words)

    return run
