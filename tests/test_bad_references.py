"""References that belong to no open runtime, or to a struct that is another one here: clear errors, in Python and in compiled code."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gomp.core import COMPILED

pytestmark = pytest.mark.skipif(not COMPILED, reason="programs exist only in machine code")

STALE = """
import gomp

@gomp.struct
class Node:
    next: "Node"
    value: int

ROOT = gomp.Global("root", Node)
POOL = gomp.Pool(Node)

@gomp.compiled
def value_of(node: Node) -> int:
    return node.value

@gomp.compiled
def size_of(m: gomp.Map[str, Node]) -> int:
    return len(m)

@gomp.compiled
def first_of(numbers) -> float:
    return numbers[0]

@gomp.compiled
def target_of(pointer: gomp.Weak[Node]) -> int:
    return pointer.value().value

@gomp.compiled
def nothing() -> int:
    return 1

def refused(what, *uses):
    for use in uses:
        try:
            use()
        except gomp.RuntimeLost as error:
            assert what in str(error), str(error)
        else:
            raise AssertionError("not refused")

def use_all(what):
    refused(
        what,
        lambda: node.value, lambda: setattr(node, "value", 1), lambda: node.next, lambda: node.address, lambda: node == node,
        lambda: hash(node), lambda: numbers[0], lambda: len(numbers), lambda: list(numbers), lambda: points[0],
        lambda: names["a"], lambda: len(names), lambda: list(names), lambda: "a" in names, lambda: names.__setitem__("a", node),
        lambda: len(text), lambda: str(text), lambda: text.view(), lambda: pointer.value(),
        lambda: gomp.weak(node), lambda: gomp.set_finalizer(node, id), lambda: gomp.add_cleanup(node, print, 1),
        lambda: ROOT.set(node), lambda: POOL.put(node), lambda: gomp.globals.__setitem__("x", node),
        lambda: value_of(node), lambda: size_of(names), lambda: target_of(pointer),
    )
    refused("this weak pointer belongs to", lambda: pointer.value(), lambda: hash(pointer), lambda: pointer == pointer)
    assert repr(pointer) == "<weak pointer of an ended runtime>"
    cleanup.stop()
    gomp.keep_alive(node)
    assert "ended runtime" in repr(node) + repr(numbers)

if __name__ == "__main__":
    with gomp.Runtime(procs=1, max_heap="64MiB") as rt:
        node, numbers, names = gomp.new(Node, value=5), gomp.array(int, 3), gomp.map(str, Node)
        points, text, image = gomp.array(gomp.Inline[Node], 2), gomp.str("text"), gomp.ndarray(3)
        names["a"] = names["b"] = node
        walk, pointer, cleanup = iter(names), gomp.weak(node), gomp.add_cleanup(node, print, 1)
        next(walk)
        assert (value_of(node), size_of(names), first_of(image), target_of(pointer)) == (5, 2, 0.0, 5)
        print(rt.verify())
    use_all("no runtime is open")
    refused("no runtime is open", lambda: next(walk), lambda: gomp.new(Node), lambda: gomp.array(int, 3), lambda: gomp.map(str, Node))
    refused("no runtime is open", lambda: gomp.ndarray(3), lambda: gomp.str("x"), lambda: nothing(), lambda: first_of(image))
    refused("no runtime is open", lambda: ROOT.get(), lambda: gomp.globals["x"], lambda: POOL.get())
    del image
    with gomp.Runtime(procs=1, max_heap="64MiB") as rt:
        mine = gomp.new(Node, value=6)
        use_all("belongs to a runtime that has ended")
        refused("belongs to a runtime that has ended", lambda: setattr(mine, "next", node), lambda: gomp.new(Node, next=node),
                lambda: gomp.array(Node, [node]), lambda: gomp.map(str, Node).__setitem__("a", node))
        assert mine.next is None and value_of(mine) == 6
        gomp.gc()
        print(rt.verify())
"""


def run(tmp_path, text):
    script = tmp_path / "script.py"
    script.write_text(text)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_references_of_an_ended_runtime(tmp_path):
    lines = run(tmp_path, STALE)
    assert [line[:19] for line in lines] == ["verified at level 3"] * 2


# A P runs a module in which the struct is declared otherwise; the script's own is sent to it, or found by it.
OTHERWISE = """
import gomp

@gomp.struct
class Point:
    x: gomp.int16

ROOT = gomp.Global("point", Point)

@gomp.compiled
def from_root() -> int:
    return ROOT.get().x

@gomp.compiled
def into_root(x: int) -> int:
    ROOT.set(gomp.new(Point, x))
    return x

@gomp.compiled
def x_of(point: Point) -> int:
    return point.x

def attempts() -> list[str]:
    source = '''
import gomp

@gomp.struct
class Point:
    x: int
    y: int

ROOT = gomp.Global("point", Point)

def from_root():
    return ROOT.get().y

def into_root():
    ROOT.set(gomp.new(Point, 1))

def compiled_from_root() -> int:
    return ROOT.get().y

def compiled_into_root() -> int:
    ROOT.set(gomp.new(Point, 1))
    return 1

def from_globals():
    return gomp.globals["point"].y

def from_map():
    return gomp.globals["points"]["a"].y
'''
    names = {"gomp": gomp, "__name__": "__main__"}
    exec(source, names)
    answers = []
    for name in ("from_root", "into_root", "compiled_from_root", "compiled_into_root", "from_globals", "from_map"):
        function = names[name]
        try:
            answers.append(repr((gomp.compiled(function) if name.startswith("compiled") else function)()))
        except TypeError as error:
            answers.append(str(error))
    return answers

if __name__ == "__main__":
    with gomp.Runtime(procs=1, max_heap="64MiB") as rt:
        into_root(7)
        gomp.globals["points"] = points = gomp.map(str, Point)
        points["a"] = ROOT.get()
        for answer in rt.run(attempts):
            print(answer)
        assert (from_root(), x_of(points["a"])) == (7, 7)
        gomp.gc()
        print(rt.verify())
"""


def test_a_struct_declared_otherwise_in_another_process(tmp_path):
    *answers, verified = run(tmp_path, OTHERWISE)
    assert verified.startswith("verified at level 3")
    assert len(answers) == 6
    for answer in answers:
        assert "Point" in answer
        assert "declare" in answer, answer
