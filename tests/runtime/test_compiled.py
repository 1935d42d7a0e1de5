"""Compiled functions: the same results as ordinary Python, and errors that say where."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from kernel_heap import collect_now

from gomp.core.shm import layout
from gomp.core.shm.records import MHEAP, POLL_INTERRUPT, STATUS_SAFE, mheap_dtype, p_dtype, view
from gomp.errors import CompileError, Interrupted, NilDereference, OutOfMemory, RuntimeLost, StackOverflow
from gomp.runtime import compiled as compiled_module
from gomp.runtime.arrays import Array, array
from gomp.runtime.compiled import compiled
from gomp.runtime.handles import table
from gomp.runtime.root_table import Global
from gomp.runtime.root_table import globals as roots
from gomp.runtime.structs import info, new, struct


@struct
class Node:
    left: Node
    right: Node
    value: int


@struct
class Mixed:
    flag: bool
    ratio: float
    node: Node
    items: Array[Node]


Wide = struct(
    type(
        "Wide",
        (),
        {"__annotations__": {f"f{i}": (Node if i % 3 == 0 else int) for i in range(70)}, "__module__": __name__},
    )
)
ROOT = Global("root of the tests", Node)
SCALE = 3


@compiled
def build(depth):
    node = new(Node, value=depth)
    if depth:
        node.left = build(depth - 1)
        node.right = build(depth - 1)
    return node


@compiled
def count(node: Node | None):
    if node is None:
        return 0
    return 1 + count(node.left) + count(node.right)


@compiled
def mixed(flag, ratio, node: Node):
    m = new(Mixed, flag, ratio, node=node)
    m.items = array(Node, 3)
    m.items[1] = node
    m.flag = not m.flag
    m.ratio = m.ratio * 2
    return m


@compiled
def total(numbers):
    out = 0
    for i in range(len(numbers)):
        out += numbers[i]
    return out


@compiled
def find(root: Node, value):
    """The first node with this value on the way left, or None."""
    found = None
    node = root
    while node is not None:
        if node.value == value:
            found = node
            break
        node = node.left
    return found


def p_record():
    return view(p_dtype, layout.SELF_BASE)[0]


# --- results


def test_trees(heap):
    tree = build(6)
    assert count(tree) == 127
    assert count.py_func(tree) == 127
    assert count(build.py_func(3)) == 15
    assert count(None) == 0
    collect_now()
    assert count(tree) == 127
    assert tree.left.left.value == 4


def test_fields_of_every_kind(heap):
    node = new(Node, value=7)
    m = mixed(True, 1.25, node)
    assert (m.flag, m.ratio, m.node, len(m.items), m.items[1]) == (False, 2.5, node, 3, node)
    assert mixed(False, 3.0, None).node is None


def test_none_is_returned_and_compared(heap):
    tree = build(3)
    assert find(tree, 1).value == 1
    assert find(tree, 99) is None
    assert find(None, 1) is None


def test_references_compare_by_identity(heap):
    @compiled
    def relations(a: Node, b: Node):
        out = 0
        if a is b:
            out += 1
        if a == b:
            out += 2
        if a is not b:
            out += 4
        if a != None:  # noqa: E711
            out += 8
        if b:
            out += 16
        return out

    a, b = new(Node), new(Node)
    for pair in ((a, b), (a, a), (a, None), (None, None)):
        assert relations(*pair) == relations.py_func(*pair)


def test_scalars_cross_both_ways(heap):
    @compiled
    def same(x):
        return x

    for x in (0, -(1 << 63), (1 << 63) - 1, 1.5, math.inf, True, False, None):
        assert same(x) == x
        assert type(same(x)) is type(x)
    assert same(np.int32(5)) == 5
    with pytest.raises(OverflowError):
        same(1 << 63)


def test_defaults_and_keywords(heap):
    @compiled
    def scaled(x, by=2, node: Node | None = None):
        return x * by * SCALE + (0 if node is None else node.value)

    @compiled
    def twice(x):
        return scaled(x) + scaled(x, node=new(Node, value=1))

    assert scaled(5) == 30
    assert scaled(5, by=3) == 45
    assert scaled(by=3, x=1, node=new(Node, value=100)) == 109
    assert twice(5) == 61
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        scaled()


def test_types_above_512_bytes_carry_their_type(heap):
    @compiled
    def fill(n):
        wide = new(Wide)
        for i in range(n):
            wide.f0 = new(Node, value=i)
        wide.f69 = wide.f0
        return wide

    assert info(Wide).allocation.by_type
    wide = fill(5)
    collect_now()
    assert wide.f69 == wide.f0
    assert wide.f0.value == 4


@pytest.mark.parametrize("n", [0, 1, 1023, 1024, 1025, 5000])
@pytest.mark.parametrize("step", [1, 3, -2])
def test_loops_cut_into_strips_do_what_python_does(heap, n, step):
    @compiled
    def walk(n, step, stop):
        s = 0
        i = -1
        for i in range(0, n * step, step):
            if i == stop:
                s += 1000
                break
            if i % 7 == 0:
                continue
            s += i
        else:
            s += 5
        return s * 3 + i

    for stop in (-1, 0, 1026 * step, 3 * step):
        assert walk(n, step, stop) == walk.py_func(n, step, stop)


def test_arrays_of_numbers(heap):
    numbers = array(int, 3000)
    for i in range(3000):
        numbers[i] = i
    assert total(numbers) == sum(range(3000))
    ratios = array(float, 4)
    ratios[2] = 0.5
    assert total(ratios) == 0.5


def test_arrays_from_compiled_code(heap):
    @compiled
    def table_of(n):
        nodes = array(Node, n)
        for i in range(n):
            nodes[i] = new(Node, value=i)
        return nodes

    @compiled
    def numbers(n):
        out = array(float, n)
        for i in range(n):
            out[i] = i
        return out

    nodes = table_of(1000)
    collect_now()
    assert [nodes[i].value for i in range(1000)] == list(range(1000))
    assert sum(numbers(10)) == 45.0
    with pytest.raises(ValueError, match="negative number of elements"):
        numbers(-1)
    with pytest.raises(OutOfMemory, match="larger than any heap"):
        numbers(1 << 60)


def test_a_declared_global_in_compiled_code(heap):
    @compiled
    def push(value):
        ROOT.set(new(Node, ROOT.get(), value=value))

    @compiled
    def clear():
        ROOT.set(None)

    for i in range(100):
        push(i)
    collect_now()
    assert ROOT.get().value == 99
    assert roots["root of the tests"].left.value == 98
    clear()
    assert ROOT.get() is None


def test_a_global_is_looked_up_again_in_another_runtime(heap):
    @compiled
    def value():
        node = ROOT.get()
        return -1 if node is None else node.value

    ROOT.set(new(Node, value=5))
    assert value() == 5
    roots["another"] = new(Node)
    table.close()
    table.open(0)
    assert value() == 5


# --- errors


def test_exceptions_leave_the_kernel(heap):
    @compiled
    def fail(n):
        node = new(Node, value=n)
        if n > 2:
            raise ValueError("too large")
        return node

    assert fail(1).value == 1
    free = len(table.free)
    for _ in range(5):
        with pytest.raises(ValueError, match="too large"):
            fail(3)
        assert p_record().xstatus == STATUS_SAFE
    assert len(table.free) == free


def test_division_by_zero_as_in_python(heap):
    @compiled
    def half(x, y):
        return x // y

    with pytest.raises(ZeroDivisionError):
        half(1, 0)


def test_none_has_no_fields(heap):
    @compiled
    def left(node: Node):
        return node.left.value

    @compiled
    def store(node: Node):
        node.left.value = 3

    for function in (left, store):
        with pytest.raises(NilDereference, match="value of a Node that is None"):
            function(new(Node))
        with pytest.raises(AttributeError):
            function.py_func(new(Node))


@pytest.mark.parametrize("i", [-1, 3, 1 << 62, -(1 << 63)])
def test_indices_are_checked(heap, i):
    @compiled
    def at(a, i):
        return a[i]

    @compiled
    def put(a, i):
        a[i] = None

    with pytest.raises(IndexError):
        at(array(Node, 3), i)
    with pytest.raises(IndexError):
        put(array(Node, 3), i)


def test_a_full_heap_is_out_of_memory(heap):
    @compiled
    def large(n):
        return len(array(int, n))

    with pytest.raises(OutOfMemory, match="larger than any heap"):
        large(1 << 50)
    assert p_record().xstatus == STATUS_SAFE
    assert large(1000) == 1000


def test_endless_recursion_is_stack_overflow(heap):
    @compiled
    def deeper(n):
        return 1 + deeper(n + 1) if n >= 0 else 0

    for _ in range(2):
        with pytest.raises(StackOverflow, match="recursed deeper"):
            deeper(0)
        assert p_record().xstatus == STATUS_SAFE
    assert deeper(-1) == 0


def test_recursion_for_whose_roots_there_is_no_memory_is_out_of_memory(heap):
    @compiled
    def deeper(n):
        return 1 + deeper(n - 1) if n > 0 else 0

    assert deeper(0) == 0
    mheap = view(mheap_dtype, MHEAP)[0]
    mheap.xcommit_budget = 0
    with pytest.raises(OutOfMemory, match="roots of so deep a native stack"):
        deeper(50_000)
    mheap.xcommit_budget = 1 << 40
    assert deeper(50_000) == 50_000


def test_endless_recursion_in_a_thread(heap):
    @compiled
    def deeper(n):
        return 1 + deeper(n + 1) if n >= 0 else 0

    caught = []

    def run():
        try:
            deeper(0)
        except StackOverflow as error:
            caught.append(error)

    deeper(-1)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(caught) == 1


def test_a_poll_ends_a_loop_that_never_ends(heap):
    @compiled
    def spin():
        n = 0
        while n >= 0:
            n = (n + 1) & 7
        return n

    @compiled
    def sweep(n):
        s = 0
        for i in range(n):
            s ^= i
        return s

    for function, args in ((spin, ()), (sweep, (1 << 62,))):
        function.program(tuple(map(type, args)))
        p_record().xpoll |= POLL_INTERRUPT
        with pytest.raises(Interrupted):
            function(*args)
        assert p_record().xpoll == 0


def test_without_a_runtime_nothing_runs():
    with pytest.raises(RuntimeLost, match="no runtime is open"):
        count(None)


# --- what cannot be compiled


def refusal(function, *args):
    with pytest.raises(CompileError) as caught:
        compiled(function)(*args)
    message = str(caught.value)
    assert "\n" not in message
    assert "test_compiled.py:" in message
    return message


def test_typing_errors_are_one_line_with_the_place(heap):
    node = new(Node)

    def wrong_field(node):
        return node.middle

    def float_into_int(node):
        node.value = 1.5

    def foreign(node):
        node.left = new(Mixed)

    def unknown_name(node):
        return new(Node, wrong=1)

    def text_in_number(node):
        return node.value + "x"

    line = wrong_field.__code__.co_firstlineno + 1
    assert f"test_compiled.py:{line}: in wrong_field: middle is no field; Node has left, right, value" in refusal(
        wrong_field, node
    )
    assert "field value of Node holds an int, not float64" in refusal(float_into_int, node)
    assert "field left of Node holds Node, not Mixed" in refusal(foreign, node)
    assert "Node has no field wrong; it has left, right, value" in refusal(unknown_name, node)
    assert "in text_in_number" in refusal(text_in_number, node)


def test_none_without_an_annotation(heap):
    def left(node):
        return node.left

    assert "annotate it with its struct" in refusal(left, None)


def test_references_inside_tuples_do_not_leave(heap):
    def pair(node):
        return node, node

    with pytest.raises(CompileError, match="a reference is returned alone"):
        compiled(pair)(new(Node))


@pytest.mark.parametrize("value", ["x", [1], np.zeros(3)])
def test_other_arguments_are_refused(heap, value):
    with pytest.raises(TypeError, match=r"argument root of find (cannot be|is an array of this process)"):
        find(value, 1)


def test_only_functions_of_a_fixed_arity():
    with pytest.raises(TypeError, match=r"a compiled function has a fixed number of arguments, not \*args"):
        compiled(lambda *args: 0)
    with pytest.raises(TypeError, match="functions written in Python"):
        compiled(3)


# --- the cache


def test_programs_come_from_the_cache(heap, monkeypatch):
    def make():
        @compiled
        def tally(node: Node, root: int):
            ROOT.set(node)
            if root < 0:
                raise ValueError("negative")
            return new(Wide, f0=node, f1=count(node) + root)

        return tally

    tree = build(3)
    first = make()(tree, 1)
    monkeypatch.setattr(compiled_module.Compiled, "compile_for", None)
    second = make()(tree, 2)
    assert (first.f1, second.f1) == (16, 17)
    assert type(second) is Wide
    assert second.f0 == tree
    with pytest.raises(ValueError, match="negative"):
        make()(tree, -1)


def test_a_change_of_what_a_function_uses_is_noticed(heap):
    def make(n, inner):
        @compiled
        def f(x):
            return inner(x) * n

        return f

    plus = compiled(lambda x: x + 1)
    minus = compiled(lambda x: x - 1)
    assert [make(n, inner)(10) for n in (2, 3) for inner in (plus, minus, plus)] == [22, 18, 22, 33, 27, 33]


def test_a_child_compiles_for_a_p(heap, monkeypatch):
    monkeypatch.setattr(compiled_module, "compile_in_child", True)

    @compiled
    def product(a, b):
        return a * b

    def wrong(a):
        return a.nothing

    assert product(6, 7) == 42
    assert not product.dispatcher.overloads
    assert "in wrong" in refusal(wrong, new(Node))


_SCRIPT = """
import sys, cloudpickle
from gomp.runtime.arrays import array, Array
from gomp.runtime.structs import struct, new
from gomp.runtime.compiled import compiled

@struct
class Cell:
    next: "Cell"
    peers: "Array[Cell]"
    n: int

@compiled
def chain(n, first=1):
    if n == 0:
        return None
    cell = new(Cell, chain(n - 1), n=n + first)
    cell.peers = array(Cell, 2)
    cell.peers[0] = cell
    return cell

sys.stdout.buffer.write(cloudpickle.dumps((chain, Cell)))
"""


def test_what_a_script_declares_can_be_sent(heap):
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    sent = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, check=True, env=env).stdout
    chain, cell = pickle.loads(sent)
    first = chain(3)
    assert type(first) is cell
    assert [first.n, first.next.n, first.next.next.n, first.next.next.next] == [4, 3, 2, None]
    assert first.peers[0] == first
    roots["sent"] = first.peers
    assert roots["sent"][0] == first
    assert chain.py_func(1).peers[0].n == 2
