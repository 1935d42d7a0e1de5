"""``for x in array`` in compiled code."""

from __future__ import annotations

import pytest
from kernel_heap import collect_now

import gomp
from gomp.core.shm.records import GCSTATS, gcstats_dtype, view
from gomp.errors import NilDereference
from gomp.runtime.arrays import Array, array
from gomp.runtime.compiled import compiled
from gomp.runtime.parts import Inline
from gomp.runtime.structs import new, struct
from gomp.runtime.verify import verify


@struct
class Point:
    x: gomp.int16
    y: float


@struct
class Node:
    value: int
    next: Node
    small: Array[gomp.uint8, 3]
    points: Array[Inline[Point], 2]


@compiled
def total(values: Array[float]) -> float:
    result = 0.0
    for value in values:
        result += value
    return result


def test_every_kind_of_element(heap):
    @compiled
    def use(node: Node, nodes: Array[Node], points: Array[Inline[Point]], deep: Array[Array[int]]) -> int:
        result = 0
        for small in node.small:
            result += small
        for point in node.points:
            result += 10 * point.x
        for other in nodes:
            if other is not None:
                result += 100 * other.value
        for point in points:
            point.x += 1
            result += 1000 * point.x
        for row in deep:
            for value in row:
                result += 10_000 * value
        return result

    node = new(Node, 3)
    node.small[2], node.points[1].x = 7, 5
    points = array(Inline[Point], 4)
    deep = array(Array[int], [array(int, [1, 2]), array(int, 0), array(int, [3])])
    assert use(node, array(Node, [node, None, node]), points, deep) == 7 + 50 + 600 + 4000 + 60_000
    assert [point.x for point in points] == [1] * 4


def test_none_nothing_and_breaks(heap):
    @compiled
    def first_above(values: Array[float], limit: float) -> float:
        for value in values:
            if value > limit:
                break
        else:
            return -1.0
        return value

    values = array(float, [1, 5, 9])
    assert (total(values), total(array(float, 0))) == (15.0, 0.0)
    assert (first_above(values, 3.0), first_above(values, 9.0)) == (5.0, -1.0)
    with pytest.raises(NilDereference, match="the length of an array that is None"):
        total(None)


def test_what_only_a_walk_holds_survives_collections(collected_heap):
    @compiled
    def make(n: int) -> Array[Node]:
        nodes = array(Node, n)
        for i in range(n):
            nodes[i] = new(Node, i)
        return nodes

    @compiled
    def walk(n: int, garbage: int) -> int:
        result = 0
        for node in make(n):
            for _ in range(garbage):
                new(Node, -1)
            result += node.value
        return result

    before = int(view(gcstats_dtype, GCSTATS)[0].num_gc)
    assert walk(200, 3000) == sum(range(200))
    assert int(view(gcstats_dtype, GCSTATS)[0].num_gc) > before
    assert verify(3).problems == ()


def test_an_array_may_be_changed_on_the_way(heap):
    @compiled
    def spread(values: Array[int]) -> int:
        last = 0
        for value in values:
            for i in range(len(values)):
                values[i] = value
            last = value
        return last

    values = array(int, [4, 5, 6])
    assert spread(values) == 4
    collect_now()
    assert values[:] == [4, 4, 4]
