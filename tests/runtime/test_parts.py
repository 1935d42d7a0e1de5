"""Parts by value: layouts as C has them, and references into an object that keep all of it."""

from __future__ import annotations

import ctypes
from typing import Literal, Optional

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_heap import collect_now

from gomp.core.shm.records import GCSTATS, gcstats_dtype, view
from gomp.errors import RuntimeLost
from gomp.runtime import references
from gomp.runtime.arrays import Array, array
from gomp.runtime.handles import table
from gomp.runtime.kinds import SCALARS, float32, int8, int16, int64, uint8
from gomp.runtime.parts import Embedded, Inline, Link
from gomp.runtime.structs import info, new, struct
from gomp.runtime.type_table import mask_words
from gomp.runtime.verify import verify
from tests.free_slots import free_slots


@struct
class Leaf:
    n: int


@struct
class Point:
    x: int16
    y: float32
    leaf: Leaf


@struct
class Shape:
    kind: int8
    middle: Inline[Point]
    corners: Array[Inline[Point], 3]
    weights: Array[uint8, 5]
    leaves: Array[Leaf, 4]
    next: Shape | None


@struct
class Large:
    """Above 512 bytes: its objects carry their type."""

    head: int
    points: Array[Inline[Point], 40]
    tail: Leaf


@struct
class Huge:
    """In a span of its own, and scanned in pieces."""

    points: Array[Inline[Point], 10_000]
    tail: Leaf


def live_objects():
    collect_now()
    return int(view(gcstats_dtype, GCSTATS)[0].heap2)


def proven():
    assert verify(3).problems == ()


# --- layouts

CTYPES = {
    "q": ctypes.c_int64, "d": ctypes.c_double, "?": ctypes.c_bool, "b": ctypes.c_int8, "h": ctypes.c_int16, "i": ctypes.c_int32,
    "B": ctypes.c_uint8, "H": ctypes.c_uint16, "I": ctypes.c_uint32, "Q": ctypes.c_uint64, "f": ctypes.c_float,
}  # fmt: skip
REFERENCE = ctypes.c_void_p
_serial = iter(range(1 << 30))


def declare(annotations):
    name = f"Random{next(_serial)}"
    return struct(type(name, (), {"__annotations__": annotations, "__module__": __name__}))


def in_c(fields):
    return type("C", (ctypes.Structure,), {"_fields_": [(f"f{i}", c) for i, (_, c) in enumerate(fields)]})


def structs_of(part):
    """(a struct of ours, the same in C)"""
    return st.lists(part, min_size=1, max_size=6).map(
        lambda fields: (declare({f"f{i}": ours for i, (ours, _) in enumerate(fields)}), in_c(fields))
    )


scalars = st.sampled_from(list(SCALARS.values())).map(lambda kind: (kind, CTYPES[kind.code]))
links = st.just((Leaf, REFERENCE))
plain = scalars | links


def by_value(part):
    inline = structs_of(part).map(lambda pair: (Inline[pair[0]], pair[1]))
    return inline | st.tuples(plain | inline, st.integers(1, 5)).map(
        lambda pair: (Array[pair[0][0], pair[1]], pair[0][1] * pair[1])
    )


def reference_offsets(c, base=0):
    """Where a C type has pointers."""
    if c is REFERENCE:
        return [base]
    if issubclass(c, ctypes.Array):
        size = ctypes.sizeof(c._type_)
        return [at for i in range(c._length_) for at in reference_offsets(c._type_, base + i * size)]
    if issubclass(c, ctypes.Structure):
        return [at for name, f in c._fields_ for at in reference_offsets(f, base + getattr(c, name).offset)]
    return []


@given(structs_of(plain | st.deferred(lambda: st.recursive(plain, by_value, max_leaves=8))))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_layouts_are_those_of_c(pair):
    ours, c = pair
    assert [f.offset for f in info(ours).fields.values()] == [getattr(c, name).offset for name, _ in c._fields_]
    assert (info(ours).size, info(ours).align) == (ctypes.sizeof(c), ctypes.alignment(c))
    words = [at // 8 for at in reference_offsets(c)]
    assert list(info(ours).reference_words) == words
    mask = sum((word & ((1 << 64) - 1)) << (64 * i) for i, word in enumerate(mask_words(info(ours).reference_words)))
    assert mask == sum(1 << word for word in words)
    references.key_of(ours)
    assert info(ours).dtype.itemsize == ctypes.sizeof(c)


def test_the_same_part_is_written_in_several_ways():
    @struct
    class Ways:
        a: Array[int, 3]
        b: Array[int64, Literal[3]]
        c: Array[int, 3]
        d: Array[Ways, 2]
        e: Array[Ways | None, 2]
        f: Optional[Ways]  # noqa: UP045
        g: Array[LaterStill, 2]
        h: Array[LaterStill]

    @struct
    class LaterStill:
        n: int

    parts = [f.part for f in info(Ways).fields.values()]
    assert parts[0].cls is parts[1].cls is parts[2].cls is Array[int, 3]
    assert parts[3].cls.layout.part.target is parts[4].cls.layout.part.target is parts[5].target is Ways
    assert parts[6].cls.layout.part.target is LaterStill
    assert parts[7].target is Array[LaterStill]
    assert [type(p) for p in parts] == [Embedded] * 5 + [Link, Embedded, Link]


@pytest.mark.parametrize(
    ("annotation", "error", "message"),
    [
        ("Array[int, 0]", ValueError, "a fixed array has at least one element, not 0"),
        ("Array[int, -3]", ValueError, "at least one element, not -3"),
        ("Array[int, 1.5]", TypeError, "a fixed array has a number of elements, not 1.5"),
        (
            "Array[int, 1 << 40]",
            ValueError,
            r"has 8,796,093,022,208 bytes: more than 1,048,576; put large arrays on the heap",
        ),
        ("Inline[int]", TypeError, r"field a of X cannot hold int by value: gomp.Inline\[...\] wants a struct"),
        ("Inline[NeverDeclared]", TypeError, "cannot hold NeverDeclared by value: .* declared before"),
        ("Inline[X]", TypeError, "cannot hold X by value: .* declared before"),
        ("Array[str, 3]", TypeError, "cannot be str: use gomp.Str"),
        (dict, TypeError, "field a of X cannot be dict"),
    ],
)
def test_refused_declarations(annotation, error, message):
    with pytest.raises(error, match=message):
        struct(type("X", (), {"__annotations__": {"a": annotation}, "__module__": __name__}))


# --- references into objects


def test_parts_are_read_and_written_in_place(heap):
    shape = new(Shape, kind=-1)
    shape.middle.x = 300
    shape.middle.leaf = new(Leaf, n=7)
    shape.corners[2].y = 0.5
    shape.corners[2].leaf = shape.middle.leaf
    shape.weights[4] = 255
    shape.leaves[0] = shape.middle.leaf
    assert (shape.kind, shape.middle.x, shape.corners[2].y, shape.weights[:]) == (-1, 300, 0.5, [0, 0, 0, 0, 255])
    assert shape.leaves[0] == shape.corners[2].leaf == shape.middle.leaf
    assert shape.leaves[:] == [shape.leaves[0], None, None, None]
    assert (len(shape.corners), len(shape.weights)) == (3, 5)
    assert [p.x for p in shape.corners] == [0, 0, 0]
    assert shape.middle == shape.middle
    assert shape.middle != shape.corners[0]
    assert references.address_of(shape.middle) == references.address_of(shape) + 8
    assert repr(shape) == (
        "Shape(kind=-1, middle=Point(x=300, y=0.0, leaf=…), corners=[Point(x=0, y=0.0, leaf=None), Point(x=0, y=0.0, leaf=None), "
        "Point(x=0, y=0.5, leaf=…)], weights=[0, 0, 0, 0, 255], leaves=[…, None, None, None], next=None) "
        f"@{references.address_of(shape):#x}"
    )
    proven()


@pytest.mark.parametrize("cls", [Shape, Large, Huge])
def test_a_reference_to_a_part_keeps_the_whole_object(heap, cls):
    def part_of(whole):
        return whole.corners[1] if cls is Shape else whole.points[len(whole.points) - 1]

    base = live_objects()
    whole = new(cls)
    part_of(whole).leaf = new(Leaf, n=5)
    if cls is Shape:
        whole.leaves[3] = new(Leaf, n=6)
    else:
        whole.tail = new(Leaf, n=6)
    part, size = part_of(whole), live_objects() - base
    address = references.address_of(whole)
    del whole
    for _ in range(3):
        assert live_objects() - base == size
        for _ in range(300):
            new(Leaf, n=-1)
    assert part.leaf.n == 5
    proven()
    again = new(cls)
    assert references.address_of(again) != address
    del part, again
    assert live_objects() == base


def test_a_part_may_be_held_by_a_field(heap):
    shape = new(Shape)
    inner = new(Shape, kind=3)
    holder = struct(type("Holder", (), {"__annotations__": {"point": Point}, "__module__": __name__}))
    held = new(holder, point=inner.middle)
    inner.leaves[1] = new(Leaf, n=9)
    address = references.address_of(inner)
    del inner
    for _ in range(2):
        collect_now()
        kept = [new(Shape) for _ in range(50)]
    assert address not in [references.address_of(s) for s in kept]
    held.point.x = 5
    assert held.point.x == 5
    assert shape.middle.x == 0
    proven()


def test_a_part_by_value_is_not_replaced(heap):
    shape = new(Shape)
    for change in (lambda: setattr(shape, "middle", shape.corners[0]), lambda: new(Shape, middle=shape.middle)):
        with pytest.raises(TypeError, match="field middle of Shape is a Point by value, a part of the object"):
            change()
    with pytest.raises(TypeError, match=r"field weights of Shape is a Array\[uint8, 5\] by value"):
        shape.weights = [1]
    with pytest.raises(TypeError, match=r"an element of Array\[Inline\[Point\], 3\] is a Point by value"):
        shape.corners[0] = shape.middle
    with pytest.raises(IndexError, match="index 5 of an array of 5"):
        shape.weights[5]
    with pytest.raises(TypeError, match="new makes structs, not Array"):
        new(Array[int, 3])
    proven()


def test_references_of_every_field_are_scanned_in_large_structs(heap):
    large = new(Large)
    for i in range(40):
        large.points[i].leaf = new(Leaf, n=i)
    large.tail = new(Leaf, n=40)
    for _ in range(3):
        collect_now()
        for _ in range(200):
            new(Leaf, n=-1)
    assert [p.leaf.n for p in large.points] == list(range(40))
    assert large.tail.n == 40
    proven()


def test_arrays_may_hold_arrays_and_parts(heap):
    rows = array(Array[int], [array(int, [1, 2]), None, array(int, 3)])
    points = array(Point, [new(Shape).middle for _ in range(3)])
    collect_now()
    assert [None if row is None else row[:] for row in rows] == [[1, 2], None, [0, 0, 0]]
    assert [p.x for p in points] == [0, 0, 0]
    proven()


def test_references_made_and_dropped_leave_everything_where_it_was(heap):
    shape = new(Shape, next=new(Shape))
    shape.corners[1].leaf = new(Leaf)
    base, free = live_objects(), free_slots()
    for i in range(20_000):
        a, b, c = shape.next, shape.corners[1], shape.leaves
        d, e = b.leaf, new(Leaf, n=i)
        del a, b, c, d, e
        if i % 5_000 == 0:
            collect_now()
    assert free_slots() == free
    assert live_objects() == base
    proven()


def test_parts_end_with_their_runtime(heap):
    shape = new(Shape)
    weights, corner = shape.weights, shape.corners[0]
    table.close()
    for use in (lambda: len(weights), lambda: weights[0], lambda: corner.x, lambda: shape.corners, lambda: weights[:]):
        with pytest.raises(RuntimeLost):
            use()
    with pytest.raises(RuntimeLost, match="field weights of Shape: this Shape belongs to a runtime that has ended"):
        _ = shape.weights
    assert repr(weights) == "<Array[uint8, 5] of an ended runtime>"


def test_a_struct_declared_again_is_another_type(heap):
    def declare_pair(kind):
        return struct(type("Twice", (), {"__annotations__": {"n": kind, "next": "Twice"}, "__module__": __name__}))

    first, second = declare_pair(int), declare_pair(float)
    assert references.key_of(first) != references.key_of(second)
    node = new(first, n=1)
    with pytest.raises(TypeError, match="Twice as it was declared before: Twice was declared again"):
        node.next = new(second)
