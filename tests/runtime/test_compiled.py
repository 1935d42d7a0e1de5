"""Compiled functions: the same results as ordinary Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from kernel_heap import collect_now
from some_programs import ROOT, SCALE, Node, Wide, build, count, find, mixed, total

from gomp.errors import OutOfMemory
from gomp.runtime.arrays import array
from gomp.runtime.compiled import compiled
from gomp.runtime.handles import table
from gomp.runtime.root_table import globals as roots
from gomp.runtime.structs import info, new


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
