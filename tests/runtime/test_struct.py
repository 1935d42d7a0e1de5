"""Structs and arrays: the layout that a declaration gives, and references from ordinary Python."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kernel_heap import collect_now

from gomp.core.mutator.types import find_type
from gomp.core.shm.records import GCSTATS, gcstats_dtype, view
from gomp.errors import OutOfMemory, RuntimeLost
from gomp.runtime import references, type_table, typekeys
from gomp.runtime.arrays import Array, array
from gomp.runtime.parts import Inline, Link
from gomp.runtime.structs import info, new, struct


@struct
class Node:
    left: Node
    right: Node | None
    value: int


@struct
class Mixed:
    flag: bool
    ratio: float
    other: Node
    also: bool
    again: bool
    numbers: Array[int]


@struct
class Number:
    n: int


Wide = struct(
    type(
        "Wide",
        (),
        {"__annotations__": {f"f{i}": ("Node" if i % 3 == 0 else int) for i in range(70)}, "__module__": __name__},
    )
)
Full = struct(type("Full", (), {"__annotations__": {f"f{i}": Node for i in range(64)}, "__module__": __name__}))


def live_objects():
    collect_now()
    return int(view(gcstats_dtype, GCSTATS)[0].heap2)


# --- layout


def test_fields_lie_as_c_lays_them():
    assert {f.name: f.offset for f in info(Mixed).fields.values()} == {
        "flag": 0, "ratio": 8, "other": 16, "also": 24, "again": 25, "numbers": 32,
    }  # fmt: skip
    assert info(Mixed).size == 40
    assert info(Mixed).reference_words == (2, 4)
    assert info(Mixed).allocation.mask == 0b10100
    assert info(Mixed).ptr_bytes == 40


def test_a_struct_of_bools_has_no_padding():
    @struct
    class Flags:
        a: bool
        b: bool
        c: bool

    assert info(Flags).size == 3
    assert info(Flags).allocation.span_class == 5


def test_the_view_dtype_leaves_references_out():
    dtype = info(Mixed).dtype
    assert dtype.names == ("flag", "ratio", "also", "again")
    assert dtype.itemsize == 40
    assert dtype.fields["again"][1] == 25


def test_allocation_by_size_and_references():
    assert info(Node).allocation.mask == 0b11
    assert not info(Full).allocation.by_type
    assert info(Full).allocation.mask == -1
    assert info(Wide).allocation.by_type
    assert type_table.mask_words(info(Wide).reference_words) == [
        sum(1 << i for i in range(0, 63, 3)) - (1 << 63),
        0b100100,
    ]


def test_the_key_is_the_same_in_every_process():
    code = "import test_struct; print(test_struct.info(test_struct.Mixed).key)"
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}"}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent, check=True, env=env
    )
    assert int(out.stdout) == info(Mixed).key


def test_the_key_depends_on_the_layout():
    def declare(annotations):
        return info(struct(type("X", (), {"__annotations__": annotations, "__module__": __name__}))).key

    keys = {
        declare({"a": int}),
        declare({"a": float}),
        declare({"b": int}),
        declare({"a": int, "b": int}),
        declare({"a": Node}),
    }
    assert len(keys) == 5


def test_structs_of_a_function_may_name_each_other():
    @struct
    class Leaf:
        root: Root

    @struct
    class Root:
        leaf: Leaf

    assert info(Leaf).fields["root"].target is Root
    assert info(Root).fields["leaf"].target is Leaf


def test_a_struct_may_hold_arrays_of_itself_and_of_later_ones():
    @struct
    class Branch:
        branches: Array[Branch] | None
        leaves: Array[LaterLeaf]

    assert info(Branch).fields["branches"].target is Array[Branch]
    assert info(Branch).fields["leaves"].target is Array[LaterLeaf]


@struct
class LaterLeaf:
    n: int


# --- refused declarations


@pytest.mark.parametrize(
    ("annotations", "extra", "message"),
    [
        ({}, {}, "struct X has no fields"),
        ({"a": str}, {}, r"field a of X cannot be str: use gomp.Str, and make the text with gomp.str\(...\)"),
        ({"a": "list[int]"}, {}, r"field a of X cannot be list: use gomp.Array\[T\]"),
        ({"a": np.int16}, {}, "field a of X cannot be int16: use gomp.int16"),
        ({"a": np.float64}, {}, "field a of X cannot be float64: use float"),
        ({"a": complex}, {}, "field a of X cannot be complex: use int, float, bool"),
        (
            {"a": "int | None"},
            {},
            r"field a of X cannot be int \| None: use it without None, which only references may be",
        ),
        ({"a": int}, {"__init__": print}, "struct X cannot have __init__ .*: objects are made by gomp.new"),
        (
            {"a": int},
            {"__eq__": print},
            "struct X cannot have __eq__ .*: two references are equal if they are the same object",
        ),
        ({"a": int}, {"__del__": print}, "struct X cannot have __del__ .*: use gomp.add_cleanup"),
        ({"a": int}, {"a": 3}, "field a of X has a default"),
        ({"_a": int}, {}, "field _a of X: names that begin with an underscore"),
    ],
)
def test_bad_declarations(annotations, extra, message):
    with pytest.raises(TypeError, match=message):
        struct(type("X", (), {"__annotations__": annotations, "__module__": __name__, **extra}))


def test_a_struct_has_no_bases():
    with pytest.raises(TypeError, match="struct X cannot have base classes"):
        struct(type("X", (Node,), {"__annotations__": {"a": int}, "__module__": __name__}))


def test_an_unknown_name_is_reported_when_it_is_needed():
    @struct
    class X:
        a: Nowhere  # noqa: F821

    with pytest.raises(TypeError, match="field a of X: no struct is called 'Nowhere'"):
        _ = info(X).fields["a"].target


# --- references


def test_fields_are_zero_and_keep_what_is_stored(heap):
    m = new(Mixed)
    assert (m.flag, m.ratio, m.other, m.also, m.again, m.numbers) == (False, 0.0, None, False, False, None)
    m.flag, m.ratio, m.again = True, -2.5, True
    m.other = new(Node, value=-(1 << 63))
    m.numbers = array(int, 3)
    assert (m.flag, m.ratio, m.also, m.again) == (True, -2.5, False, True)
    assert m.other.value == -(1 << 63)
    assert list(m.numbers) == [0, 0, 0]
    m.other = None
    assert m.other is None


def test_new_takes_values_by_position_and_by_name(heap):
    leaf = new(Node, value=1)
    node = new(Node, leaf, value=2)
    assert (node.left, node.right, node.value) == (leaf, None, 2)


def test_equality_is_identity(heap):
    a, b = new(Node), new(Node)
    a.left = b
    assert a.left == b
    assert hash(a.left) == hash(b)
    assert a != b
    assert a != 3
    assert len({a, b, a.left}) == 2


def test_repr_shows_scalars_and_the_address(heap):
    node = new(Node, value=3)
    node.left = node
    assert repr(node) == f"Node(left=…, right=None, value=3) @{references.address_of(node):#x}"
    assert repr(array(int, 2)).startswith("Array[int]([0, 0]) @0xc")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda n: setattr(n, "value", 1.5), TypeError, "field value of Node holds an int, not float 1.5"),
        (lambda n: setattr(n, "value", None), TypeError, "field value of Node holds an int, not None"),
        (
            lambda n: setattr(n, "value", 1 << 63),
            OverflowError,
            "field value of Node is an int, -9223372036854775808 to 9223372036854775807; 9223372036854775808 does not fit",
        ),
        (lambda n: setattr(n, "left", 3), TypeError, "field left of Node holds a Node or None, not int 3"),
        (lambda n: setattr(n, "wrong", 3), AttributeError, "wrong"),
        (lambda n: new(Node, wrong=3), TypeError, "Node has no field wrong; it has left, right, value"),
        (lambda n: new(Node, None, left=None), TypeError, "field left of Node is given twice"),
        (lambda n: new(Node, 1, 2, 3, 4), TypeError, "Node has 3 fields, 4 values were given"),
        (lambda n: new(int), TypeError, "gomp.new makes structs, not int"),
        (lambda n: Node(), TypeError, r"made with gomp.new\(Node, ...\)"),
        (lambda n: new(Mixed, flag=1), TypeError, "field flag of Mixed holds a bool, not int 1"),
        (lambda n: new(Mixed, ratio="x"), TypeError, "field ratio of Mixed holds a float, not str 'x'"),
    ],
)
def test_wrong_values_are_refused_by_name(heap, change, error, message):
    with pytest.raises(error, match=message):
        change(new(Node))


def test_reachable_objects_survive_and_others_do_not(heap):
    base = live_objects()
    root = new(Node, value=0)
    for i in range(1, 100):
        root = new(Node, root, value=i)
        new(Node, value=-i)
    assert live_objects() - base == 100 * 24
    node, values = root, []
    while node is not None:
        values.append(node.value)
        node = node.left
    assert values == list(range(99, -1, -1))
    del root
    assert live_objects() == base


def test_a_cycle_is_garbage(heap):
    base = live_objects()
    a = new(Node)
    a.left = new(Node, a)
    del a
    gc.collect()
    assert live_objects() == base


@pytest.mark.parametrize("cls", [Full, Wide])
def test_structs_of_every_allocation_path_are_scanned(heap, cls):
    names = [f.name for f in info(cls).fields.values() if isinstance(f.part, Link)]
    wide = new(cls)
    for i, name in enumerate(names):
        setattr(wide, name, new(Node, value=i))
    for _ in range(3):
        collect_now()
        for _ in range(200):
            new(Node, value=-1)
    assert [getattr(wide, name).value for name in names] == list(range(len(names)))


def test_small_structs_share_blocks_and_stay_apart(heap):
    numbers = [new(Number, n=i) for i in range(100)]
    assert [x.n for x in numbers] == list(range(100))
    assert numbers[0] != numbers[1]


# --- arrays


@pytest.mark.parametrize("n", [0, 1, 5, 63, 64, 200, 4094, 5000, 100_000])
def test_arrays_of_references_keep_their_elements(heap, n):
    a = array(Node, n)
    assert len(a) == n
    kept = range(0, n, max(1, n // 7))
    for i in kept:
        a[i] = new(Node, value=i)
    for _ in range(2):
        collect_now()
        for _ in range(100):
            new(Node, value=-1)
    assert [a[i].value for i in kept] == list(kept)


@pytest.mark.parametrize(("elem", "value"), [(int, -5), (float, 2.5)])
@pytest.mark.parametrize("n", [1, 100, 50_000])
def test_arrays_of_numbers(heap, elem, value, n):
    a = array(elem, n)
    a[n - 1] = value
    assert a[n - 1] == value
    assert sum(a) == value


@pytest.mark.parametrize("i", [-1, 3, 1 << 70])
def test_an_index_outside_is_an_error(heap, i):
    a = array(int, 3)
    with pytest.raises(IndexError, match="of an array of 3: indices are 0 to 2"):
        a[i]
    with pytest.raises(IndexError):
        a[i] = 1


def test_an_array_refuses_other_elements(heap):
    with pytest.raises(TypeError, match=r"Array\[Node\] holds a Node or None, not Number"):
        array(Node, 1)[0] = new(Number)
    with pytest.raises(
        TypeError, match="an array holds numbers or references to a struct, array or text, or structs by value, not str"
    ):
        array(str, 1)
    with pytest.raises(ValueError, match="an array cannot have -1 elements"):
        array(int, -1)


def test_types_that_objects_carry_are_in_the_type_table(heap):
    assert find_type(info(Wide).key) == 0
    new(Wide)
    record = find_type(info(Wide).key)
    assert record != 0
    type_table._registered.clear()
    new(Wide)
    assert find_type(info(Wide).key) == record
    assert typekeys.class_of_key(info(Wide).key) is Wide
    assert typekeys.class_of_key(references.key_of(Array[Wide])) is Array[Wide]


def test_a_full_heap_is_out_of_memory(heap):
    kept = []
    with pytest.raises(OutOfMemory, match="the heap is full, even after a collection"):
        kept.extend(array(int, 1 << 20) for _ in range(100))
    assert len(kept) in (6, 7)
    del kept
    collect_now()
    assert len(array(int, 1 << 20)) == 1 << 20


def test_a_reference_outlives_its_runtime_harmlessly(heap):
    from gomp.runtime.handles import table

    node = new(Node)
    table.close()
    with pytest.raises(RuntimeLost, match=r"field value of Node: this Node belongs to .* no runtime is open"):
        _ = node.value
    with pytest.raises(RuntimeLost, match="this Node belongs to a runtime that has ended"):
        _ = node.address
    with pytest.raises(RuntimeLost, match="no runtime is open"):
        new(Node)
    assert repr(node) == "<Node of an ended runtime>"
    table.open(0)
    with pytest.raises(RuntimeLost, match="a runtime that has ended"):
        node.value = 3


def test_fields_may_be_called_as_what_classes_say_of_themselves(heap):
    @struct
    class Odd:
        length: int
        layout: int
        is_text: int
        elem: int
        holds_links: int
        address: int
        key: int

    @struct
    class Holder:
        odd: Odd
        part: Inline[Odd]

    odd = new(Odd, 3, 4, 5, 6, 7, 8, 9)
    row = array(Odd, [odd])
    holder = new(Holder, odd=odd)
    holder.part.length = 12
    assert (row[0].length, holder.odd.layout, holder.part.length, odd.address, odd.key) == (3, 4, 12, 8, 9)
    assert "length=3" in repr(odd)
    assert len(row) == 1
