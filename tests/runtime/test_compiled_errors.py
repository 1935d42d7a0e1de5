"""What compiled functions raise when they run, and when they cannot be compiled."""

from __future__ import annotations

import numpy as np
import pytest
from some_programs import Mixed, Node, count, find, p_record

from gomp.core.shm.records import STATUS_SAFE
from gomp.errors import CompileError, NilDereference, OutOfMemory, RuntimeLost
from gomp.runtime.arrays import array
from gomp.runtime.compiled import compiled
from gomp.runtime.ndarrays import ndarray
from gomp.runtime.structs import new
from tests.free_slots import free_slots


def test_exceptions_leave_the_kernel(heap):
    @compiled
    def fail(n):
        node = new(Node, value=n)
        if n > 2:
            raise ValueError("too large")
        return node

    assert fail(1).value == 1
    free = free_slots()
    for _ in range(5):
        with pytest.raises(ValueError, match="too large"):
            fail(3)
        assert p_record().xstatus == STATUS_SAFE
    assert free_slots() == free


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


@compiled
def length_of_array(n: int) -> int:
    return len(array(int, n))


@compiled
def length_of_ndarray(n: int) -> int:
    return ndarray(n).size


@pytest.mark.parametrize("make", [length_of_array, length_of_ndarray])
def test_what_is_larger_than_the_heap_is_told_from_a_full_heap(collected_heap, make):
    with pytest.raises(OutOfMemory, match="so large an object takes more bytes than the whole heap has"):
        make(1 << 24)
    kept = array(int, 5 << 20)
    with pytest.raises(OutOfMemory, match="the heap is full"):
        make(5 << 20)
    del kept


def test_without_a_runtime_nothing_runs():
    with pytest.raises(RuntimeLost, match="no runtime is open"):
        count(None)


# --- what cannot be compiled ------------------------------------------------------------------------------------------


def refusal(function, *args):
    with pytest.raises(CompileError) as caught:
        compiled(function)(*args)
    message = str(caught.value)
    assert "\n" not in message
    assert "test_compiled_errors.py:" in message
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
    assert (
        f"test_compiled_errors.py:{line}: in wrong_field: middle is no field; Node has left, right, value"
        in refusal(wrong_field, node)
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
