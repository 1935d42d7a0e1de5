"""A graph that compiled code has built on one P is walked, changed and dropped by Python code on another; nothing of it is left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

import gomp
from gomp.core import COMPILED

pytestmark = pytest.mark.skipif(not COMPILED, reason="programs exist only in machine code")

CUT_AT = 3
DEPTHS = [pytest.param(12, id="8191"), pytest.param(20, id="2097151", marks=pytest.mark.slow)]


@gomp.struct
class Node:
    left: Node
    right: Node
    number: int


ROOT = gomp.Global("graph.root", Node)
MARK = gomp.Global("graph.mark", Node)


@gomp.compiled
def build(depth: int, number: int) -> Node:
    """A tree, numbered as a heap is: the children of n are 2n and 2n + 1."""
    node = gomp.new(Node)
    node.number = number
    if depth > 0:
        node.left = build(depth - 1, 2 * number)
        node.right = build(depth - 1, 2 * number + 1)
    return node


def build_and_stay(depth: int) -> int:
    ROOT.set(build(depth, 1))
    MARK.set(gomp.new(Node))
    while MARK.get() is not None:
        time.sleep(0.01)
    return os.getpid()


def nodes() -> Iterator[Node]:
    pending = [ROOT.get()]
    while pending:
        node = pending.pop()
        if node is not None:
            yield node
            pending += [node.right, node.left]


def walk() -> tuple[int, int]:
    n = total = 0
    for node in nodes():
        n += 1
        total += node.number
    return n, total


def change() -> None:
    """Mirror the tree, and number it from 0."""
    for node in nodes():
        left = node.left
        node.left = node.right
        node.right = left
        node.number -= 1


def cut() -> None:
    """Leave what is above a depth."""
    for node in nodes():
        if node.number + 1 >= 1 << CUT_AT:
            node.left = node.right = None


def timed(action: Callable[..., object], *args: object) -> tuple[int, object, float]:
    began = time.monotonic()
    result = action(*args)
    return os.getpid(), result, time.monotonic() - began


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_graph_is_built_here_and_walked_changed_and_dropped_there(depth: int) -> None:
    n = (2 << depth) - 1
    times: dict[str, float] = {}
    with gomp.Runtime(procs=2, max_heap="1GiB") as rt:
        rt.run(build, 4, 1)
        rt.gc()
        start = rt.stats()
        began = time.monotonic()
        builder = rt.go(build_and_stay, depth)
        while MARK.get() is None:
            assert time.monotonic() < began + 120
            time.sleep(0.01)
        times["build"] = time.monotonic() - began
        walker, result, times["walk"] = rt.run(timed, walk)
        assert result == (n, n * (n + 1) // 2)
        _, _, times["change"] = rt.run(timed, change)
        began = time.monotonic()
        assert rt.verify(3).startswith("verified")
        times["verify"] = time.monotonic() - began
        assert rt.run(walk) == (n, n * (n + 1) // 2 - n)
        leaf = mirrored_leaf(depth)
        began = time.monotonic()
        path = gomp.who_retains(leaf)
        times["who_retains"] = time.monotonic() - began
        assert [str(step) for step in path.steps] == ["Node.right"] * depth
        del leaf
        _, _, times["cut"] = rt.run(timed, cut)
        assert rt.run(walk)[0] == (2 << CUT_AT) - 1
        began = time.monotonic()
        rt.gc()
        times["gc"] = time.monotonic() - began
        assert rt.stats().heap_alloc < start.heap_alloc + (n * 24 >> 3)
        rt.run(ROOT.set, None)
        MARK.set(None)
        assert builder.wait() != walker, "another process"
        rt.gc()
        end = rt.stats()
        assert rt.verify(3).startswith("verified")
    assert end.heap_alloc == start.heap_alloc
    assert end.mallocs - end.frees == start.mallocs - start.frees
    print(f"{n:,} structs:", ", ".join(f"{name} {seconds:.3f} s" for name, seconds in times.items()))


def mirrored_leaf(depth: int) -> Node:
    node = ROOT.get()
    for _ in range(depth):
        assert node is not None
        node = node.right
    assert node is not None
    return node
