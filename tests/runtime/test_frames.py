"""Frames of goroutines: calls and results, addresses of other frames on a stack that moves, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gomp
from gomp.core.shm import layout
from gomp.core.shm.records import (
    G_DEAD,
    RUNTIME,
    SCHED,
    STACKPOOL,
    g_dtype,
    runtime_dtype,
    sched_dtype,
    stackpool_dtype,
    view,
)
from gomp.errors import CompileError, NilDereference, StackEscapeError, StackOverflow
from gomp.runtime.verify import verify

KIB = 1 << 10


@gomp.struct
class Node:
    left: Node
    right: Node
    value: int


@gomp.compiled
def build(depth: int):
    node = gomp.new(Node, value=depth)
    if depth > 0:
        node.left = build(depth - 1)
        node.right = build(depth - 1)
    return node


@gomp.frame
class Count(gomp.Frame[int]):
    node: Node
    calls: int
    left: int
    right: int

    def step(f):
        if f.node is None:
            return f.ret(0)
        f.calls += 1
        if f.calls == 1:
            return f.call(Count, node=f.node.left, into="left")
        if f.calls == 2:
            return f.call(Count, node=f.node.right, into="right")
        return f.ret(f.left + f.right + 1)


@gomp.frame
class Rebuild(gomp.Frame[Node]):
    """A copy of a tree: each frame's references are its copy's only roots until the end."""

    old: Node
    calls: int
    left: Node
    right: Node

    def step(f):
        if f.old is None:
            return f.ret(None)
        f.calls += 1
        if f.calls == 1:
            return f.call(Rebuild, old=f.old.left, into="left")
        if f.calls == 2:
            return f.call(Rebuild, old=f.old.right, into="right")
        return f.ret(gomp.new(Node, left=f.left, right=f.right, value=f.old.value))


def stack_settings():
    return view(stackpool_dtype, STACKPOOL)[0]


def running():
    """How many goroutines there are."""
    n = int(view(sched_dtype, SCHED)[0].ngs)
    status = view(g_dtype, layout.g_addr(1), n)["xstatus"]
    return int(np.count_nonzero(status != G_DEAD))


@pytest.fixture(params=[0, 1], ids=["moves when it must", "moves at every call"])
def moving(heap, request):
    stack_settings().always_copy = request.param
    return request.param


def test_calls_and_results(moving):
    assert Count.run(node=build(9)) == 1023
    assert Count.run(node=None) == 0
    assert running() == 0
    verify(2)


def test_results_that_are_references(moving):
    copied = Rebuild.run(old=build(8))
    assert Count.run(node=copied) == 511
    assert copied.value == 8
    assert Rebuild.run(old=None) is None


@gomp.compiled
def collect():
    gomp.gc()


@gomp.compiled
def count_in_compiled_code(node: Node) -> int:
    return Count.run(node=node) + Count.run(node=node.left)


def test_compiled_code_runs_goroutines_too(heap):
    assert count_in_compiled_code(build(5)) == 63 + 31


@gomp.frame
class Outer(gomp.Frame[float]):
    tree: Node
    n: int
    half: float
    is_even: bool

    def step(f):
        if f.n == 0:
            f.n = Count.run(node=f.tree)  # a goroutine of its own, under which this one waits
            return f.call(Halve, n=f.n, into="half")
        f.is_even = f.n % 2 == 0
        return f.ret(-f.half if f.is_even else f.half)


@gomp.frame
class Halve(gomp.Frame[float]):
    n: int

    def step(f):
        return f.ret(f.n / 2)


def test_frames_of_several_kinds(moving):
    assert Outer.run(tree=build(3)) == 7.5


def test_collections_find_what_only_frames_hold(collected_heap):
    tree = build(12)
    stack_settings().always_copy = 1
    copies = tree
    for _ in range(20):
        copies = Rebuild.run(old=copies)
    del tree
    collect()
    assert Count.run(node=copies) == 8191
    verify(3)


# --- addresses of frames ----------------------------------------------------------------------------------------------

PUSH, RETURN, WRITE, HOLD, COLLECT, END = range(6)
Tape = gomp.Array[gomp.int64]


@gomp.frame
class Machine(gomp.Frame[int]):
    """Does what stands on a tape: operations of three numbers each. The frame's number is how deep it is."""

    tape: Tape
    up: Machine
    top: Machine
    far: Machine  # of those above, the one that the call chose
    held: Node
    number: int
    at: int  # on the tape: in the top frame alone
    total: int
    got: int

    def step(f):
        top = f.top
        if top is None:
            top = f
        f.total = (f.total * 31 + f.got) % 1_000_003
        f.got = 0
        while True:
            op, a, b = f.tape[top.at], f.tape[top.at + 1], f.tape[top.at + 2]
            top.at += 3
            if op == 0:
                far = f
                for _ in range(a % (f.number + 1)):
                    far = far.up
                return f.call(
                    Machine, tape=f.tape, up=f, top=top, far=far, held=f.held, number=f.number + 1, total=b, into="got"
                )
            if op == 1 and f.number > 0:
                value = 0 if f.held is None else f.held.value
                return f.ret((f.total + value + f.far.number) % 1_000_003)
            if op == 2:
                far = f
                for _ in range(a % (f.number + 1)):
                    far = far.up
                far.total = (far.total * 17 + b) % 1_000_003
            if op == 3:
                f.held = gomp.new(Node, value=b, left=f.held)
            if op == 4:
                gomp.gc()
            if op == 5:
                if f.number == 0:
                    return f.ret(f.total)
                top.at -= 3
                return f.ret(f.total)


def model(tape):
    """The same in plain Python."""
    frames, at = [{"number": 0, "total": 0, "held": 0, "far": 0}], 0
    got = 0
    frames[0]["total"] = 0
    while True:
        f = frames[-1]
        f["total"] = (f["total"] * 31 + got) % 1_000_003
        got = 0
        while True:
            op, a, b = tape[at : at + 3]
            at += 3
            if op == PUSH:
                far = f["number"] - a % (f["number"] + 1)
                frames.append({"number": f["number"] + 1, "total": b, "held": f["held"], "far": far})
                break
            if op == RETURN and f["number"] > 0:
                got = (f["total"] + f["held"] + f["far"]) % 1_000_003
                frames.pop()
                break
            if op == WRITE:
                far = frames[f["number"] - a % (f["number"] + 1)]
                far["total"] = (far["total"] * 17 + b) % 1_000_003
            if op == HOLD:
                f["held"] = b
            if op == END:
                if f["number"] == 0:
                    return f["total"]
                at -= 3
                got = f["total"]
                frames.pop()
                break


operations = st.tuples(
    st.sampled_from([PUSH, PUSH, PUSH, RETURN, WRITE, WRITE, HOLD, COLLECT]), st.integers(0, 99), st.integers(0, 999)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=st.lists(operations, max_size=150))
def test_whatever_frames_do_a_stack_that_moves_is_one_that_does_not(collected_heap, program):
    tape = [number for operation in [*program, (END, 0, 0)] for number in operation]
    for always_copy in (0, 1):
        stack_settings().always_copy = always_copy
        assert Machine.run(tape=gomp.array(int, tape)) == model(tape)
    assert running() == 0
    verify(2)


@gomp.frame
class Deep(gomp.Frame[int]):
    depth: int
    up: Deep
    below: int
    is_back: bool

    def step(f):
        if f.is_back:
            if f.up is not None and f.up.depth != f.depth + 1:
                return f.ret(-1_000_000_000)
            return f.ret(f.below + 1)
        if f.depth == 0:
            return f.ret(0)
        f.is_back = True
        return f.call(Deep, depth=f.depth - 1, up=f, into="below")


def test_from_2_kib_to_4_mib_every_address_leads_where_it_led(heap):
    depth = 4 * 1024 * KIB // 56
    assert Deep.run(depth=depth) == depth
    verify(2)


# --- ends -------------------------------------------------------------------------------------------------------------


@gomp.frame
class Divide(gomp.Frame[int]):
    depth: int
    by: int
    node: Node
    got: int
    is_back: bool

    def step(f):
        if f.is_back:
            return f.ret(f.got)
        if f.depth == 0:
            if f.by == 7:
                raise ValueError("seven is not allowed")
            if f.by == 8:
                return f.ret(f.node.value)
            return f.ret(100 // f.by)
        f.is_back = True
        return f.call(Divide, depth=f.depth - 1, by=f.by, into="got")


@pytest.mark.parametrize(
    ("by", "error", "message"),
    [
        (0, ZeroDivisionError, "division by zero"),
        (7, ValueError, "seven is not allowed"),
        (8, NilDereference, "value of a Node that is None"),
    ],
)
def test_what_a_step_raises_ends_its_goroutine_alone(heap, by, error, message):
    with pytest.raises(error, match=message):
        Divide.run(depth=100, by=by)
    assert running() == 0
    assert Divide.run(depth=100, by=4) == 25
    verify(2)


def test_a_stack_has_a_maximum(heap):
    assert gomp.debug.set_max_stack(64 * KIB) == 1_000_000_000
    with pytest.raises(StackOverflow, match=r"^stack overflow: goroutine stack exceeds its limit"):
        Deep.run(depth=10_000)
    assert running() == 0
    assert gomp.debug.set_max_stack(1_000_000_000) == 64 * KIB
    assert Deep.run(depth=10_000) == 10_000
    assert gomp.debug.set_max_stack("1MiB") == 1_000_000_000
    assert gomp.debug.set_max_stack(1_000_000_000) == 1 << 20
    for wrong in (-1, 1.5, "1M", True):
        with pytest.raises(ValueError, match="give bytes"):
            gomp.debug.set_max_stack(wrong)


def test_a_heap_too_small_for_a_stack(heap):
    with pytest.raises(gomp.OutOfMemory, match="no memory for another goroutine, or for a larger stack"):
        Deep.run(depth=2_000_000)
    assert running() == 0
    assert Deep.run(depth=10) == 10
    verify(2)


@gomp.frame
class TwoActions:
    def step(f):
        kept = f.call(Halve, n=3)
        f.ret()
        return kept


@gomp.frame
class TwoCalls:
    def step(f):
        kept = f.call(Halve, n=3)
        f.call(Halve, n=4)
        return kept


@gomp.frame
class AnotherBetween(gomp.Frame[float]):
    def step(f):
        kept = f.ret(1.0)
        Halve.run(n=4)
        return kept


@pytest.mark.parametrize("frame", [TwoActions, TwoCalls, AnotherBetween], ids=lambda frame: frame.__name__)
def test_an_action_that_is_not_the_last(heap, frame):
    with pytest.raises(RuntimeError, match="a step made one action and returned another"):
        frame.run()
    assert running() == 0


@gomp.frame
class Late(gomp.Frame[int]):
    """Between an action and its return lie collections, and allocations in what they free."""

    node: Node
    is_back: bool
    value: int

    def step(f):
        if f.node is not None:
            return f.ret(f.node.value)
        if f.is_back:
            return f.ret(f.value)
        f.is_back = True
        action = f.call(Late, node=gomp.new(Node, value=77), into="value")
        for _ in range(3):
            gomp.gc()
            build(8)
        return action


def test_what_an_action_hands_over_is_a_root(collected_heap):
    view(runtime_dtype, RUNTIME)[0].clobberfree = 1
    assert Late.run() == 77


@gomp.frame
class FrameOfAnother(gomp.Frame[int]):
    up: FrameOfAnother

    def step(f):
        return f.ret(FrameOfAnother.run(up=f))


# --- what is refused --------------------------------------------------------------------------------------------------

ROOT = gomp.Global("test_frames.root", Node)
ESCAPES = "cannot hold a frame .*, an address in a goroutine's stack, which moves: what others are to hold is made with gomp.new"


@gomp.frame
class IntoField:
    node: Node
    tail: gomp.Array[Node]

    def step(f):
        f.node.left = f
        return f.ret()


@gomp.frame
class IntoArray:
    tail: gomp.Array[Node]

    def step(f):
        f.tail[0] = f
        return f.ret()


@gomp.frame
class AsResult(gomp.Frame[Node]):
    def step(f):
        return f.ret(f)


@gomp.frame
class IntoSlot:
    node: Node

    def step(f):
        f.node = f
        return f.ret()


@gomp.frame
class IntoGlobal:
    def step(f):
        ROOT.set(f)
        return f.ret()


@gomp.frame
class IntoMap:
    m: gomp.Map[Node]

    def step(f):
        f.m["up"] = f
        return f.ret()


@pytest.mark.parametrize(
    "frame", [IntoField, IntoArray, AsResult, IntoSlot, IntoGlobal, IntoMap], ids=lambda frame: frame.__name__
)
def test_no_address_of_a_frame_leaves_the_stack(heap, frame):
    with pytest.raises(StackEscapeError, match=ESCAPES):
        frame.run()


def test_a_slot_has_no_value_where_it_is_declared():
    with pytest.raises(
        TypeError, match="slot n of Given is given a value where it is declared, but slots begin as zero or None"
    ):

        @gomp.frame
        class Given:
            n: int = 5

            def step(f):
                return f.ret()


@gomp.frame
class IntoAnother:
    up: IntoAnother
    down: IntoAnother

    def step(f):
        f.up.down = f
        return f.ret()


@gomp.frame
class NoAction:
    n: int

    def step(f):
        if f.n == 3:
            return f.ret()


@gomp.frame
class OnlyRaises:
    def step(f):
        raise ValueError("always")


@gomp.frame
class OtherResult(gomp.Frame[int]):
    def step(f):
        return f.ret(1.5)


@gomp.frame
class NothingToReturn:
    def step(f):
        return f.ret(1)


@gomp.frame
class WrongInto(gomp.Frame[int]):
    node: Node

    def step(f):
        return f.call(Halve, n=1, into="node")


@gomp.frame
class NoSuchSlot(gomp.Frame[int]):
    def step(f):
        return f.call(Halve, m=1)


@gomp.frame
class ForAnother(gomp.Frame[int]):
    up: ForAnother

    def step(f):
        return f.up.ret(1)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (IntoAnother, "slot down of IntoAnother: only a step's own frame holds frames, any other would outlive them"),
        (NoAction, "in step: each way through a step ends in an action, as in"),
        (OnlyRaises, "OnlyRaises.step does nothing but raise: some way through it ends in an action, as in"),
        (OtherResult, "the result of OtherResult holds an int, not float64: convert it with int"),
        (NothingToReturn, "frame NothingToReturn is declared to return nothing: derive it from gomp.Frame"),
        (WrongInto, "frame Halve returns a float64, and slot node of WrongInto holds a Node"),
        (NoSuchSlot, "Halve has no slot m; it has n"),
        (FrameOfAnother, "slot up of FrameOfAnother holds a frame, and the first of a goroutine has none to hold"),
        (ForAnother, "ret is for the step's own frame: what another does, its own step says"),
    ],
    ids=lambda case: getattr(case, "__name__", ""),
)
def test_what_the_compiler_refuses(heap, frame, message):
    with pytest.raises(CompileError, match=message):
        frame.run()


@gomp.frame
class WithRoom:
    size: int
    was_here: bool

    def step(f):
        if f.was_here:
            return f.ret()
        f.was_here = True
        return f.call(OneSlot, n=1, room=f.size)


@gomp.frame
class OneSlot:
    n: int

    def step(f):
        return f.ret()


def test_room_for_a_call_is_not_negative(heap):
    WithRoom.run(size=100)
    with pytest.raises(ValueError, match="room= is a number of bytes, and cannot be negative"):
        WithRoom.run(size=-1)


def test_what_a_declaration_refuses():
    def declared(body, bases=()):
        scope = {"gomp": gomp, "Node": Node, "__name__": __name__}
        exec(f"@gomp.frame\nclass F{bases or ''}:\n" + "\n".join(f"    {line}" for line in body), scope)

    step = "def step(f): return f.ret()"
    for body, message in (
        (["n: int"], "frame F has no step: define 'def step"),
        (["def step(): pass"], "frame F has no step"),
        (["n: str", step], "slot n of F cannot be str: use gomp.Str"),
        (["n: gomp.Inline[Node]", step], "slot n of F cannot be a part by value"),
        (["into: int", step], "slot into of F: this name is gomp's, take another"),
        (["_n: int", step], "slot _n of F: this name is gomp's, take another"),
    ):
        with pytest.raises(TypeError, match=message):
            declared(body)
    for bases, message in (
        ("(int)", "frame F cannot have base classes but gomp.Frame"),
        (
            "(gomp.Frame[str])",
            "frame F returns int, float, bool or an object of a class that is declared before, not str",
        ),
    ):
        with pytest.raises(TypeError, match=message):
            declared([step], bases)


def test_what_python_refuses(heap):
    with pytest.raises(TypeError, match=r"frame Count is made by the runtime: Count.run\(...\) runs a goroutine"):
        Count(node=None)
    with pytest.raises(TypeError, match="Count has no slot nodes; it has node, calls, left, right"):
        Count.run(nodes=None)
    with pytest.raises(TypeError, match="slot up of Deep holds a frame, and the first of a goroutine has none to hold"):
        Deep.run(up=None)
    with pytest.raises(TypeError, match=r"argument node of Count\.run is a Node or None by its annotation, not int64"):
        Count.run(node=3)


@gomp.frame
class Asks(gomp.Frame[int]):
    up: Asks

    def step(f):
        return f.ret(1 if f.up.up is None else 2)


def test_a_slot_of_a_frame_that_is_none(heap):
    with pytest.raises(NilDereference, match="up of a Asks that is None"):
        Asks.run()
