"""``gomp.array(gomp.Inline[T], n)``: arrays of the heap whose elements are structs, in Python and in compiled code."""

from __future__ import annotations

import time

import pytest
from kernel_heap import collect_now, in_machine_code

import gomp
from gomp.runtime.arrays import Array, array
from gomp.runtime.compiled import compiled
from gomp.runtime.hashmap import Map, map  # noqa: A004
from gomp.runtime.parts import Inline
from gomp.runtime.references import key_of
from gomp.runtime.structs import new, struct
from gomp.runtime.typekeys import class_of_key
from gomp.runtime.verify import verify
from gomp.runtime.weak import weak


@struct
class Point:
    x: gomp.int16
    y: gomp.float32


@struct
class Leaf:
    """16 bytes: what is smaller shares its block, and its fate, with others."""

    number: int
    more: int


@struct
class Entry:
    """Two references among numbers: bits 1 and 3 of 5 words."""

    count: int
    leaf: Leaf
    place: Inline[Point]
    next: Leaf
    flag: bool


@struct
class Wide:
    """More than 64 words: the mask has two, and the element more than 512 bytes."""

    numbers: Array[int, 70]
    leaf: Leaf


@struct
class Long:
    """Its mask ends long before it does, and what stands behind that in the table of masks is another type's."""

    leaf: Leaf
    numbers: Array[int, 200]


@struct
class Full:
    leaves: Array[Leaf, 200]


@struct
class Polygon:
    corners: Array[Inline[Point]]
    entries: Array[Inline[Entry]] | None


def test_structs_without_references(heap):
    points = array(Inline[Point], 3)
    points[1].x, points[1].y = 7, 2.5
    assert [(p.x, p.y) for p in points] == [(0, 0.0), (7, 2.5), (0, 0.0)]
    assert points[1].address == points.address + 8 + 8
    assert repr(points).startswith("Array[Inline[Point]]([Point(x=0, y=0.0), Point(x=7, y=2.5), Point(x=0, y=0.0)]) @")
    with pytest.raises(
        TypeError, match=r"an element of Array\[Inline\[Point\]\] is a Point by value: it cannot be replaced"
    ):
        points[0] = new(Point)
    with pytest.raises(IndexError, match="index 3 of an array of 3"):
        points[3].x = 1
    with pytest.raises(OverflowError, match="field x of Point is an int16, -32768 to 32767; 40000 does not fit"):
        points[0].x = 40_000


def test_an_element_keeps_the_array(heap):
    entries = array(Inline[Entry], 10)
    last = entries[9]
    last.leaf = new(Leaf, 5)
    alive = weak(entries)
    del entries
    collect_now()
    assert last.leaf.number == 5
    assert alive.value()[9] == last
    del last
    collect_now()
    assert alive.value() is None
    assert verify(3).problems == ()


@pytest.mark.parametrize("cls", [Entry, Wide, Long])
@pytest.mark.parametrize("n", [0, 1, 2, 12, 13, 100, 3000, 20_000])
def test_what_the_elements_refer_to_lives_and_nothing_else(heap, cls, n):
    """Below 512 bytes, above, and in spans of their own with several pieces of work; the numbers look like addresses and keep nothing."""
    n = n if cls is Entry else n // 20
    elements, lost = array(Inline[cls], n), new(Leaf, 1)
    array(Inline[Full], 1)
    gone = weak(lost)
    for i in range(0, n, max(n // 50, 1)):
        elements[i].leaf = new(Leaf, i)
        if cls is Entry:
            elements[i].next = elements[i].leaf
            elements[i].count = lost.address
        else:
            elements[i].numbers[69] = elements[i].numbers[0] = lost.address
    del lost
    for _ in range(2):
        collect_now()
        [new(Leaf, -1) for _ in range(1000)]
    assert gone.value() is None
    for i in range(0, n, max(n // 50, 1)):
        assert elements[i].leaf.number == i
    assert verify(3).problems == ()


def test_they_stand_in_fields_arrays_and_maps(heap):
    shape = new(Polygon, corners=array(Inline[Point], 4), entries=array(Inline[Entry], 2))
    shape.corners[3].x = 5
    shapes, by_name = array(Array[Inline[Point]], 1), map(str, Array[Inline[Point]])
    shapes[0] = by_name["a"] = shape.corners
    collect_now()
    assert shapes[0][3].x == by_name["a"][3].x == 5
    assert type(by_name) is Map[str, Array[Inline[Point]]]
    for cls in (Array[Inline[Point]], Map[Array[Inline[Point]]], Array[Array[Inline[Point]]]):
        assert class_of_key(key_of(cls)) is cls
    with pytest.raises(
        TypeError, match=r"field corners of Polygon holds a Array\[Inline\[Point\]\] or None, not Array\[Point\]"
    ):
        shape.corners = array(Point, 2)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: array(Inline[int], 2), TypeError, r"Array\[Inline\[int\]\] cannot hold int by value: gomp.Inline\[...\] wants a struct"),
        (lambda: array(Inline[Array[int, 3]], 2), TypeError, "by value"),
        (lambda: array(Inline["Missing"], 2), TypeError, "cannot hold Missing by value.*declared before"),
        (lambda: array(Inline[Point], -1), ValueError, "an array cannot have -1 elements"),
        (lambda: array(Inline[Point], 1 << 50), MemoryError, "choose a larger max_heap"),
        (lambda: array(Inline[Point], [1]), TypeError, "is a Point by value"),
        (lambda: array(list, 2), TypeError, r"an array holds numbers or references.*not list: use int.*T or gomp.Inline\[T\]"),
    ],
)  # fmt: skip
def test_what_is_refused(heap, make, error, message):
    with pytest.raises(error, match=message):
        make()


@in_machine_code
def test_in_compiled_code(heap):
    @compiled
    def fill(n: int) -> Array[Inline[Entry]]:
        entries = gomp.array(Inline[Entry], n)
        for i in range(n):
            entries[i].count = i
            entries[i].place.x = i % 100
            entries[i].leaf = new(Leaf, 2 * i)
        return entries

    @compiled
    def total(entries: Array[Inline[Entry]]) -> int:
        result = 0
        for i in range(len(entries)):
            entry = entries[i]
            result += entry.count + entry.place.x + entry.leaf.number
        return result

    for n in (0, 1, 5, 12, 13, 500, 5000):
        entries = fill(n)
        assert type(entries) is Array[Inline[Entry]]
        collect_now()
        assert total(entries) == sum(3 * i + i % 100 for i in range(n))
    assert verify(3).problems == ()


@in_machine_code
def test_what_compiled_code_makes_lives_through_collections(collected_heap):
    @compiled
    def churn(rounds: int, n: int) -> int:
        entries = array(Inline[Entry], n)
        for r in range(rounds):
            for i in range(n):
                entries[i].leaf = new(Leaf, r + i)
                entries[n - 1 - i].next = entries[i].leaf
        wrong = 0
        for i in range(n):
            wrong += entries[i].leaf.number != rounds - 1 + i
            wrong += entries[n - 1 - i].next is not entries[i].leaf
        return wrong

    assert churn(40, 20_000) == 0
    assert verify(3).problems == ()


@in_machine_code
def test_what_does_not_compile(heap):
    with pytest.raises(gomp.CompileError, match="is a Entry by value: it cannot be replaced"):
        compiled(replace)(array(Inline[Entry], 1), new(Entry))


def replace(entries: Array[Inline[Entry]], entry: Entry) -> None:
    entries[0] = entry


@pytest.mark.parametrize("n", [3, 100, 10_000])
def test_a_finalizer_finds_what_the_elements_refer_to(heap, n):
    entries = array(Inline[Entry], n)
    entries[n - 1].leaf = new(Leaf, 7)
    entries[n - 1].count = entries[n - 1].leaf.address
    found = []
    gomp.set_finalizer(entries, lambda entries: found.append(entries[n - 1].leaf.number))
    del entries
    collect_now()
    deadline = time.monotonic() + 10
    while not found and time.monotonic() < deadline:
        time.sleep(0.01)
    assert found == [7]
    assert verify(3).problems == ()
