"""The compiler steps of ``@gomp.compiled``: polls, None, and arrays that stay on the stack.

1. A poll at each function entry, which also bounds the native stack, and one at each loop header: whatever a program does, it
   comes to a poll soon. A poll that says so raises.
2. An innermost ``for i in range(...)`` that calls nothing is cut into strips of STRIP iterations with a poll before each strip, because
   a poll in its header would keep LLVM from vectorising it. Arithmetic on the loop variable: 0.28 ns an iteration in strips, 0.82 with a poll
   in each, 0.27 with none. A strip of iterations without calls takes microseconds. (Loops over a gomp array gain nothing, 1.5 ns either way:
   there it is the check of the index that is not vectorised.)
   Functions of gomp that are Python's alone are refused by name; others become values that can be given to what Python does (``pythoncalls``).
3. None becomes the value of a type that unifies with references (``reftypes.NullType``).
4. A reference to an array or a text, and the address of the first element of an array of numpy's, which may be in the heap, is stored, volatile,
   to a stack slot of its own whenever a variable takes it, also in a tuple: LLVM may otherwise keep only an
   address computed from it, outside the object, across a poll. Once per assignment and not per access, so loops over arrays stay free of it.
5. The slot in which a call leaves a reference is cleared, volatile, once a variable has it: it would keep what has long been dropped.
6. A value stored to a field must be of the field's type and in its range: Numba would cut a float to an int, and an int to its
   width, without a word.
7. Lists, sets and dicts of references are refused: what they hold lies in memory of Numba's, where the collector does not look.
8. Calls that start goroutines, wait, or say what a frame does next leave word of where they stand (``callsites``).
"""

from __future__ import annotations

import math
import types as python_types
from collections.abc import Iterator
from typing import Any

from llvmlite import ir as llvm_ir
from numba import njit
from numba.core import cgutils, errors, ir, lowering, typed_passes, types, untyped_passes
from numba.core.analysis import compute_cfg_from_blocks
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, PassManager, register_pass
from numba.core.ir_utils import build_definitions, get_definition, guard
from numba.core.untyped_passes import IRProcessing
from numba.extending import intrinsic

from gomp.core.jit import inline
from gomp.core.mutator.poll import POLL_INTERRUPTED, POLL_NO_MEMORY, POLL_OVERFLOW, poll, poll_entry
from gomp.core.sched.interrupt import clear_interrupt
from gomp.errors import Interrupted, OutOfMemory, RuntimeLost, StackOverflow
from gomp.runtime import arrays, root_table, structs
from gomp.runtime.callsites import note_call
from gomp.runtime.classnames import fold_classes
from gomp.runtime.frames import FrameLink
from gomp.runtime.frametypes import FrameRef, check_slot
from gomp.runtime.keywords import TranslateByteCode
from gomp.runtime.kinds import Scalar
from gomp.runtime.places import stand_at
from gomp.runtime.pythoncalls import PythonFunction
from gomp.runtime.references import ReferenceMeta
from gomp.runtime.refops import check_part, check_range
from gomp.runtime.reftypes import MARK, NULL, ArrayRef, RefType, SlotType, TextRef, holds, in_compiled_code
from gomp.runtime.root_table import Global

STRIP = 1024
_IN_MEMORY_OF_NUMBA = {
    types.List: "list", types.ListType: "list", types.Set: "set", types.DictType: "dict", types.Array: "array",
}  # fmt: skip
_GLOBALS = (
    'gomp.globals holds anything, and compiled code has to know what: declare NAME = gomp.Global("name", T) in the module, and write NAME.get() '
    "and NAME.set(x)"
)
refused: dict[python_types.FunctionType, str] = {}  # functions of gomp that compiled code does not have, and why


# --- what is put in ---------------------------------------------------------------------------------------------------


@njit
def _end_program(why: int) -> None:
    if why == POLL_INTERRUPTED:
        clear_interrupt()
        raise Interrupted("a compiled program was interrupted")
    if why == POLL_OVERFLOW:
        raise StackOverflow(
            "a compiled function recursed deeper than its thread's stack, or 16 MiB of it: if the recursion has an end, write it as a loop, or "
            "run it in a thread with a larger threading.stack_size"
        )
    if why == POLL_NO_MEMORY:
        raise OutOfMemory("there is no memory for the roots of so deep a native stack")
    raise RuntimeLost("the runtime has ended")


@inline
def poll_at_entry() -> None:
    why = poll_entry()
    if why != 0:
        _end_program(why)


@inline
def poll_in_loop() -> None:
    why = poll()
    if why != 0:
        _end_program(why)


@intrinsic  # type: ignore[untyped-decorator]
def _hold(context: Any, addr: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        keep_on_stack(builder, args[0], "held")
        return context.get_dummy_value()

    return types.none(types.int64), codegen


@inline
def poll_holding(addr: int) -> None:
    """As :func:`poll_in_loop`, where the address of an object is in a variable that is a number to the compiler."""
    _hold(addr)
    poll_in_loop()


def strips(whole: range) -> range:
    """Where the strips of a range begin."""
    return range(0, len(whole), STRIP)


def strip(whole: range, begin: int) -> range:
    """One of them."""
    return whole[begin : begin + STRIP]


@in_compiled_code(strips)
def _strips(whole: Any) -> Any:
    if whole == types.range_state64_type:
        return lambda whole: range(0, len(whole), STRIP)
    return lambda whole: range(1)  # ranges of other integers, and whatever else has taken range's name, stay whole


@in_compiled_code(strip)
def _strip(whole: Any, begin: Any) -> Any:
    if whole == types.range_state64_type:

        def cut(whole: Any, begin: int) -> range:
            end = min(begin + STRIP, len(whole))
            return range(whole.start + begin * whole.step, whole.start + end * whole.step, whole.step)

        return cut
    return lambda whole, begin: whole


# --- polls ------------------------------------------------------------------------------------------------------------


@register_pass(mutates_CFG=True, analysis_only=False)
class InsertPolls(FunctionPass):  # type: ignore[misc]
    """Steps 1 to 3."""

    _name = "gomp_insert_polls"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        func_ir = state.func_ir
        fold_classes(func_ir)
        _check_names(func_ir)
        _replace_functions(func_ir, state.typingctx)
        _replace_none(func_ir.blocks)
        loops = list(compute_cfg_from_blocks(func_ir.blocks).loops().values())
        may_cut = _is_scalar_code(func_ir) and not any(isinstance(t, types.Array) for t in state.args)
        polled = set()
        for loop in loops:
            plan = _strip_plan(func_ir, loop, loops) if may_cut else None
            if plan is None:
                polled.add(loop.header)
            else:
                _cut_into_strips(func_ir.blocks, *plan)
        for header in polled:
            _insert_call(func_ir.blocks[header], 0, "poll_in_loop", poll_in_loop)
        entry = func_ir.blocks[min(func_ir.blocks)]
        after_args = sum(isinstance(s, ir.Assign) and isinstance(s.value, ir.Arg) for s in entry.body)
        _insert_call(entry, after_args, "poll_at_entry", poll_at_entry)
        func_ir._definitions = build_definitions(func_ir.blocks)
        return True


def _check_names(func_ir: Any) -> None:
    """CompileError for what is refused by name: before its arguments are looked at, which may be unknown here too."""
    for value in _values(func_ir):
        known = _named(func_ir, value)
        if isinstance(known, python_types.FunctionType) and known in refused:
            raise errors.TypingError(MARK + refused[known], loc=value.loc)
        if known is root_table.globals:
            raise errors.TypingError(f"{MARK}{_GLOBALS}", loc=value.loc)


def _named_function(func_ir: Any, value: Any) -> python_types.FunctionType | None:
    """The function of Python that a value is."""
    known = _named(func_ir, value)
    return known if isinstance(known, python_types.FunctionType) else None


def _named(func_ir: Any, value: Any) -> object:
    """What a value is by its name: a global, one that is free, or a module's; else None."""
    known = value.value if isinstance(value, (ir.Global, ir.FreeVar)) else None
    if isinstance(value, ir.Expr) and value.op == "getattr":
        module = guard(get_definition, func_ir, value.value)
        if isinstance(module, (ir.Global, ir.FreeVar)) and isinstance(module.value, python_types.ModuleType):
            known = getattr(module.value, value.attr, None)
    return known


def _replace_functions(func_ir: Any, context: Any) -> None:
    """Functions of Python become values that say which they are, but for those that Numba knows."""
    context.refresh()
    for block in func_ir.blocks.values():
        for statement in block.find_insts(ir.Assign):
            known = _named_function(func_ir, statement.value)
            if known is not None and context._lookup_global(known) is None:
                statement.value = ir.Global(known.__name__, PythonFunction(known), statement.value.loc)


def _call(block: ir.Block, name: str, function: Any, *args: ir.Var) -> tuple[list[ir.Stmt], ir.Var]:
    """The statements of a call, and the variable of its result."""
    scope, loc = block.scope, block.loc
    callee, result = (scope.redefine(f"${kind}_{name}", loc) for kind in ("callee", "result"))
    call = ir.Expr.call(callee, args, (), loc)
    return [ir.Assign(ir.Global(name, function, loc), callee, loc), ir.Assign(call, result, loc)], result


def _insert_call(block: ir.Block, at: int, name: str, function: Any) -> None:
    block.body[at:at] = _call(block, name, function)[0]


def _replace_none(blocks: dict[int, ir.Block]) -> None:
    for block in blocks.values():
        for statement in block.find_insts(ir.Assign):
            value = statement.value
            if isinstance(value, ir.Const) and value.value is None:
                statement.value = ir.Global("None", NULL, value.loc)


# --- strips -----------------------------------------------------------------------------------------------------------

_CHEAP_FUNCTIONS = (range, len, abs, min, max, int, float, bool)
_CHEAP_OPERATIONS = frozenset(
    (
        "binop",
        "inplace_binop",
        "unary",
        "getattr",
        "getitem",
        "static_getitem",
        "cast",
        "iternext",
        "pair_first",
        "pair_second",
    )
)
_CHEAP_STATEMENTS = (
    ir.SetAttr,
    ir.SetItem,
    ir.StaticSetItem,
    ir.Del,
    ir.Jump,
    ir.Branch,
    ir.Return,
    ir.Raise,
    ir.StaticRaise,
)


def _values(func_ir: Any) -> Iterator[Any]:
    for block in func_ir.blocks.values():
        for statement in block.find_insts(ir.Assign):
            yield statement.value


def _is_scalar_code(func_ir: Any) -> bool:
    """Whether all that the function handles are numbers and references: then an operation takes nanoseconds. (An array of numpy's
    in an expression, or a list, could make one iteration as long as it likes.)"""
    if any(isinstance(s, (ir.PopBlock, ir.EnterWith)) for b in func_ir.blocks.values() for s in b.body):
        return False
    return all(_is_scalar(value) for value in _values(func_ir))


def _is_scalar(value: Any) -> bool:
    if isinstance(value, (ir.Global, ir.FreeVar)):
        known = value.value
        if isinstance(known, python_types.ModuleType):
            return known is math or known.__name__ == "gomp"
        if isinstance(known, (int, float, Global, ReferenceMeta, Scalar)) or hasattr(known, "py_func"):
            return True
        return any(known is f for f in (NULL, structs.new, arrays.array, *_CHEAP_FUNCTIONS))
    return not (isinstance(value, ir.Expr) and value.op in ("build_list", "build_set", "build_map", "make_function"))


def _strip_plan(func_ir: Any, loop: Any, loops: list[Any]) -> tuple[int, int, ir.Var, ir.Var] | None:
    """For a loop that can be cut: its header, the block before it, the iterator's variable and the range's."""
    if any(other is not loop and other.header in loop.body for other in loops) or len(loop.entries) != 1:
        return None
    blocks = func_ir.blocks
    (before,) = loop.entries
    nexts = [
        v
        for v in (s.value for s in blocks[loop.header].find_insts(ir.Assign))
        if isinstance(v, ir.Expr) and v.op == "iternext"
    ]
    if (
        len(nexts) != 1
        or not isinstance(blocks[before].terminator, ir.Jump)
        or not isinstance(blocks[loop.header].terminator, ir.Branch)
    ):
        return None
    getiter = guard(get_definition, func_ir, nexts[0].value)
    if not (isinstance(getiter, ir.Expr) and getiter.op == "getiter"):
        return None
    call = guard(get_definition, func_ir, getiter.value)
    if not (isinstance(call, ir.Expr) and call.op == "call" and _callee(func_ir, call) is range):
        return None
    if not all(_is_cheap(func_ir, s) for label in loop.body for s in blocks[label].body):
        return None
    return loop.header, before, nexts[0].value, getiter.value


def _callee(func_ir: Any, call: ir.Expr) -> object:
    definition = guard(get_definition, func_ir, call.func)
    if isinstance(definition, (ir.Global, ir.FreeVar)):
        return definition.value
    if isinstance(definition, ir.Expr) and definition.op == "getattr":
        module = guard(get_definition, func_ir, definition.value)
        if isinstance(module, ir.Global) and module.value is math:
            return math
    return None


def _is_cheap(func_ir: Any, statement: ir.Stmt) -> bool:
    if not isinstance(statement, ir.Assign):
        return isinstance(statement, _CHEAP_STATEMENTS)
    value = statement.value
    if not isinstance(value, ir.Expr):
        return True
    if value.op == "call":
        callee = _callee(func_ir, value)
        return any(callee is f for f in (math, *_CHEAP_FUNCTIONS))
    return value.op in _CHEAP_OPERATIONS


def _cut_into_strips(blocks: dict[int, ir.Block], header: int, before: int, iterator: ir.Var, whole: ir.Var) -> None:
    """Put a loop over the strips around the loop: when the inner one ends, the next strip begins, and when there is none, what came after."""
    first, inner = blocks[before], blocks[header]
    scope, loc = inner.scope, inner.loc
    outer, enter = max(blocks) + 1, max(blocks) + 2
    after = inner.terminator.falsebr
    names = ("strips", "next", "begin", "more", "strip_iter")
    strip_iterator, pair, begin, more, new_iterator = (scope.redefine(f"${name}", loc) for name in names)

    begin_all, all_strips = _call(first, "strips", strips, whole)
    first.body[:] = [s for s in first.body[:-1] if not (isinstance(s, ir.Assign) and s.target.name == iterator.name)]
    first.body += [*begin_all, ir.Assign(ir.Expr.getiter(all_strips, loc), strip_iterator, loc), ir.Jump(outer, loc)]

    blocks[outer] = head = ir.Block(scope, loc)
    head.body = [
        *_call(head, "poll_in_loop", poll_in_loop)[0],
        ir.Assign(ir.Expr.iternext(strip_iterator, loc), pair, loc),
        ir.Assign(ir.Expr.pair_first(pair, loc), begin, loc),
        ir.Assign(ir.Expr.pair_second(pair, loc), more, loc),
        ir.Branch(more, enter, after, loc),
    ]
    blocks[enter] = body = ir.Block(scope, loc)
    cut, part = _call(body, "strip", strip, whole, begin)
    body.body = [
        *cut,
        ir.Assign(ir.Expr.getiter(part, loc), new_iterator, loc),
        ir.Assign(new_iterator, iterator, loc),
        ir.Jump(header, loc),
    ]
    inner.body[-1] = ir.Branch(inner.terminator.cond, inner.terminator.truebr, outer, loc)


# --- lowering ---------------------------------------------------------------------------------------------------------


class _VolatileStore(llvm_ir.instructions.StoreInstr):  # type: ignore[misc]
    """llvmlite has no volatile store, and no other is sure to happen."""

    align = None

    def descr(self, buf: list[str]) -> None:
        plain: list[str] = []
        super().descr(plain)
        buf.append("".join(plain).replace("store ", "store volatile ", 1))


def keep_on_stack(builder: Any, value: Any, name: str) -> None:
    """Have the value itself in a stack slot from here on, and nothing derived from it in its place until here."""
    slot = cgutils.alloca_once(builder, value.type, name=f"{name}.live")
    builder._insert(_VolatileStore(builder.block, value, slot))


def _forget_result(builder: Any, value: Any) -> None:
    """Clear the stack slot in which a call left ``value``, which is in a variable now: the slot would keep what it leads to until the next call."""
    if not isinstance(value, llvm_ir.instructions.LoadInstr):
        return
    slot = value.operands[0]
    calls = (i for i in value.parent.instructions if isinstance(i, llvm_ir.instructions.CallInstr))
    if any(call.args and call.args[0] is slot for call in calls):
        builder._insert(_VolatileStore(builder.block, slot.type.pointee(None), slot))


class Lower(lowering.Lower):  # type: ignore[misc]
    """Steps 4 to 8."""

    def storevar(self, value: Any, name: str, argidx: int | None = None) -> None:
        super().storevar(value, name, argidx)
        if isinstance(self.typeof(name), RefType):
            _forget_result(self.builder, value)
        self._keep(self.typeof(name), value, name)

    def _keep(self, type_: types.Type, value: Any, name: str) -> None:
        if isinstance(type_, (ArrayRef, TextRef)):
            keep_on_stack(self.builder, value, name)
        elif isinstance(type_, types.Array):
            data = self.context.make_array(type_)(self.context, self.builder, value).data
            keep_on_stack(self.builder, data, name)
        elif isinstance(type_, types.BaseTuple):
            for i, part in enumerate(type_.types):
                if isinstance(part, (ArrayRef, TextRef, types.Array, types.BaseTuple)):
                    self._keep(part, self.builder.extract_value(value, i), f"{name}.{i}")

    def lower_inst(self, inst: ir.Stmt) -> None:
        if isinstance(inst, ir.SetAttr) and isinstance(self.typeof(inst.target.name), RefType):
            self._check_store(inst)
        if isinstance(inst, ir.SetAttr) and isinstance(self.typeof(inst.target.name), FrameRef):
            self._check_slot(inst)
        if isinstance(inst, ir.Assign):
            self._check_container(inst)
        note_call(self, inst)
        stand_at(self, inst)
        super().lower_inst(inst)

    def _check_container(self, inst: ir.Assign) -> None:
        type_ = self.typeof(inst.target.name)
        kind = _IN_MEMORY_OF_NUMBA.get(type(type_))
        if kind and holds(type_, SlotType):
            raise errors.TypingError(
                f"{MARK}a {kind} keeps no references alive in compiled code: use gomp.array(T, n), gomp.map(K, T) or fields",
                loc=inst.loc,
            )
        if kind and holds(type_, types.Array):
            raise errors.TypingError(
                f"{MARK}a {kind} keeps no arrays alive in compiled code: use a tuple", loc=inst.loc
            )

    def _check_store(self, inst: ir.SetAttr) -> None:
        field = structs.info(self.typeof(inst.target.name).cls).fields[inst.attr]
        given = self.typeof(inst.value.name)
        try:
            check_part(field.part, given, field.where())
        except errors.TypingError as error:
            error.loc = inst.loc
            raise
        check_range(self.context, self.builder, field.part, given, self.loadvar(inst.value.name), field.where())

    def _check_slot(self, inst: ir.SetAttr) -> None:
        frame, given = self.typeof(inst.target.name), self.typeof(inst.value.name)
        _, slot = frame.cls.layout.slot(inst.attr)
        where = f"slot {inst.attr} of {frame.cls.__name__}"
        try:
            check_slot(slot, given, where, frame.is_own)
        except errors.TypingError as error:
            error.loc = inst.loc
            raise
        if not isinstance(slot, FrameLink):
            check_range(self.context, self.builder, slot, given, self.loadvar(inst.value.name), where)


@register_pass(mutates_CFG=True, analysis_only=False)
class Lowering(typed_passes.NativeLowering):  # type: ignore[misc]
    _name = "gomp_lowering"

    @property
    def lowering_class(self) -> type[Lower]:
        return Lower


class PollingCompiler(CompilerBase):  # type: ignore[misc]
    """Numba's nopython pipeline with these steps."""

    def define_pipelines(self) -> list[PassManager]:
        manager = DefaultPassBuilder.define_nopython_pipeline(self.state)
        manager.add_pass_after(InsertPolls, IRProcessing)
        ours = {untyped_passes.TranslateByteCode: TranslateByteCode, typed_passes.NativeLowering: Lowering}
        manager.passes = [(ours.get(step, step), text) for step, text in manager.passes]
        manager.finalize()
        return [manager]
