"""Weak pointers and ``keep_alive`` in compiled code."""

from __future__ import annotations

import ctypes

import pytest
from kernel_heap import collect_now

from gomp.core.shm.records import GCSTATS, gcstats_dtype, view
from gomp.errors import CompileError, NilDereference
from gomp.runtime.arrays import Array, array
from gomp.runtime.compiled import compiled
from gomp.runtime.pointers import keep_alive, pointer
from gomp.runtime.root_table import Global
from gomp.runtime.structs import new, struct
from gomp.runtime.texts import Str, str_
from gomp.runtime.verify import verify
from gomp.runtime.weak import Weak, weak


@struct
class Node:
    next: Node
    value: int


@struct
class Place:
    address: int


ROOT = Global("lifetimes_compiled", Node)
ARRAY_HEADER = 8


@compiled
def make_weak(node: Node) -> Weak[Node]:
    return weak(node)


@compiled
def value_of(pointer: Weak[Node]) -> int:
    node = pointer.value()
    return -1 if node is None else node.value


def test_a_weak_pointer_is_python_s(heap):
    node = new(Node, value=7)
    made = make_weak(node)
    assert type(made) is Weak
    assert made == weak(node)
    assert made.value() == node
    assert value_of(made) == value_of(weak(node)) == 7
    del node
    collect_now()
    assert made.value() is None
    assert value_of(made) == -1
    assert verify(3).problems == ()


def test_weak_pointers_are_equal_as_their_places_are(heap):
    @compiled
    def compare(a: Node, b: Node, one: Weak[Node]) -> int:
        return (weak(a) == weak(a)) + 10 * (weak(a) == weak(b)) + 100 * (weak(a) != weak(b)) + 1000 * (weak(a) == one)

    a, b = new(Node), new(Node)
    assert compare(a, b, weak(a)) == 1101
    assert compare(a, a, weak(b)) == 11


def test_none_has_a_weak_pointer_that_is_none(heap):
    @compiled
    def both(node: Node, pointer: Weak[Node]) -> bool:
        return weak(node) == pointer and pointer.value() is None

    assert make_weak(None) == weak(None)
    assert value_of(weak(None)) == -1
    assert both(None, weak(None))
    assert not both(new(Node), weak(None))


def test_of_arrays_and_texts(heap):
    @compiled
    def use(numbers: Array[int], text: Str) -> int:
        return weak(numbers).value()[1] + 10 * len(weak(text).value())

    assert use(array(int, [1, 2]), str_("four")) == 42


def test_it_keeps_nothing(collected_heap):
    @compiled
    def lose(rounds: int, garbage: int) -> int:
        """How many of the objects to which a weak pointer was made are gone after some garbage."""
        gone = 0
        for i in range(rounds):
            pointer = weak(new(Node, None, i))
            for _ in range(garbage):
                new(Node)
            found = pointer.value()
            if found is None:
                gone += 1
            elif found.value != i:
                return -1
        return gone

    assert lose(20, 200_000) >= 15
    assert verify(3).problems == ()


def test_what_it_gives_is_kept(collected_heap):
    @compiled
    def use(node: Node, rounds: int) -> int:
        pointer = weak(node)
        wrong = 0
        for i in range(rounds):
            new(Node)
            found = pointer.value()
            if found is None or found.value != 5 or found is not node:
                wrong += 1
            if i % 1000 == 0:
                pointer = weak(node)
        return wrong

    before = int(view(gcstats_dtype, GCSTATS)[0].num_gc)
    assert use(new(Node, None, 5), 400_000) == 0
    assert int(view(gcstats_dtype, GCSTATS)[0].num_gc) > before


# --- keep_alive and addresses -----------------------------------------------------------------------------------------

_read = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


def test_an_address_is_used_while_its_object_is_kept(collected_heap):
    memory = ctypes.CDLL(None).memcpy
    memory.argtypes, memory.restype = (ctypes.c_int64, ctypes.c_int64, ctypes.c_int64), ctypes.c_int64

    @compiled
    def copy(rounds: int, garbage: int) -> int:
        """Copies arrays by their addresses, as C does, after their last use in the program itself."""
        wrong = 0
        for i in range(rounds):
            a, b = array(int, 64), array(int, 64)
            a[63] = i + 1
            source = a.address + ARRAY_HEADER
            for _ in range(garbage):
                new(Node, None, -1)
            memory(b.address + ARRAY_HEADER, source, 512)
            keep_alive(a, b, 5)
            wrong += b[63] != i + 1
        return wrong

    before = int(view(gcstats_dtype, GCSTATS)[0].num_gc)
    assert copy(20, 100_000) == 0
    assert int(view(gcstats_dtype, GCSTATS)[0].num_gc) > before


def test_addresses(heap):
    @compiled
    def of_node(node: Node) -> int:
        keep_alive()
        keep_alive(None, node)
        return node.address

    @compiled
    def of_field(place: Place) -> int:
        return place.address

    @compiled
    def of_text(text: Str) -> int:
        return text.address

    node, text = new(Node), str_("x")
    assert of_node(node) == node.address
    assert of_text(text) == text.address
    assert of_field(new(Place, 5)) == 5
    with pytest.raises(NilDereference, match="the address of a reference that is None"):
        of_node(None)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda node: pointer(node, "value"), r"gomp.pointer is Python's"),
        (lambda node: weak(ROOT), "a global never dies"),
        (lambda node: weak(None), r"gomp.weak\(None\) is made in Python"),
        (lambda node: weak(5), "gomp.weak: int64 is no reference"),
        (lambda node: (weak(node), 1), "a reference is returned alone"),
    ],
)  # fmt: skip
def test_what_does_not_compile(heap, body, message):
    with pytest.raises(CompileError, match=message):
        compiled(body)(new(Node))


def test_weak_pointers_into_objects_stay_in_python(heap):
    node = new(Node)
    with pytest.raises(TypeError, match="argument pointer of value_of is a weak pointer to a global or to a part"):
        value_of(weak(pointer(node, "value")))
    with pytest.raises(TypeError, match="argument pointer of value_of is a weak pointer to a global or to a part"):
        value_of(weak(ROOT))
