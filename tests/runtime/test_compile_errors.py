"""What compiled code does not know is refused in one line that names the fix; and what of Python's it does know."""

from __future__ import annotations

import pytest

import gomp
from gomp.errors import CompileError
from gomp.runtime.compiled import compiled
from gomp.runtime.structs import new, struct


@struct
class Node:
    next: Node
    value: int


def endless(n: int) -> int:
    return endless_compiled(n + 1) + 1


endless_compiled = compiled(endless)


def test_a_recursion_without_an_end_is_told_before_it_runs(collected_heap):
    with pytest.raises(CompileError, match="in endless: it calls itself whatever happens: one way through it"):
        endless_compiled(1)


@pytest.fixture
def made(collected_heap):
    return {
        "node": new(Node, new(Node, None, 4), 3),
        "numbers": gomp.array(int, [1, 2, 3, 4]),
        "nodes": gomp.array(Node, [new(Node, None, i) for i in range(3)]),
        "text": gomp.str("abcd"),
    }


def enumerated(numbers):
    total = 0
    for i, x in enumerate(numbers):
        total += i * x
    return total


def zipped(numbers):
    total = 0
    for x, y in zip(numbers, numbers):  # noqa: B905
        total += x * y
    return total


def enumerated_nodes(nodes):
    total = 0
    for i, node in enumerate(nodes):
        gomp.gc()
        total += i * node.value
    return total


def is_node(node: Node):
    return isinstance(node, Node) + 2 * isinstance(node.next.next, Node) + 4 * isinstance(node, gomp.Str)


def classes(node):
    table = gomp.array(gomp.Array[Node], 2)
    table[1] = gomp.array(Node, 3)
    maps = gomp.array(gomp.Map[int, Node], 1)
    maps[0] = gomp.map(int, Node)
    maps[0][7] = node
    deep = gomp.map(int, gomp.Array[gomp.Array[Node]])
    deep[1] = table
    gomp.gc()
    return len(deep[1][1]) + maps[0][7].value + 10 * gomp.num_procs()


@pytest.mark.parametrize(
    ("body", "arg", "result"),
    [
        (enumerated, "numbers", 20),
        (zipped, "numbers", 30),
        (enumerated_nodes, "nodes", 5),
        (is_node, "node", 1),
        (classes, "node", 16),
        (lambda numbers: list(numbers), "numbers", [1, 2, 3, 4]),
        (lambda numbers: (3 in numbers) + 2 * (5 in numbers), "numbers", 1),
        (lambda nodes: nodes[1] in nodes, "nodes", True),
    ],
)
def test_what_is_known(made, body, arg, result):
    assert compiled(body)(made[arg]) == result


def walrus(node):
    n = 0
    while (node := node.next) is not None:
        n += 1
    return n


def generator(node):
    yield node.value


def context(node):
    with open("x") as file:
        return file


def caught(node):
    try:
        return node.value
    except AttributeError:
        return -1


@pytest.mark.parametrize(
    ("body", "arg", "message"),
    [
        (walrus, "node", "an assignment by := is not known here: write it as a statement"),
        (generator, "node", "generator is a generator, .*: return what it yields in a gomp.array"),
        (context, "node", r"no with ... as: do it in Python"),
        (caught, "node", "tells no exceptions apart: write except Exception"),
        (lambda node: gomp.globals["x"], "node", r'declare NAME = gomp.Global\("name", T\) in the module'),
        (lambda node: {node}, "node", r"a set keeps no references alive .*: use gomp.array"),
        (lambda node: [node], "node", r"a list keeps no references alive .*: use gomp.array"),
        (lambda node: print(node), "node", r"print\(Node\): .*give it fields"),
        (lambda node: isinstance(node, int), "node", "isinstance of a Node asks for one class of gomp's"),
        (lambda numbers: numbers[1:3], "numbers", r"getitem\(Array\[int\], slice.*: take the elements one by one"),
        (lambda numbers: sum(x for x in numbers), "numbers", "no generator expressions: write the loop out"),
        (lambda numbers: reversed(numbers), "numbers", "reversed is not known to compiled code: write the loop out"),
        (lambda nodes: 3 in nodes, "nodes", r"an element of Array\[Node\] is never"),
        (lambda text: text + "x", "text", r"add\(Str, .*\) is not known to compiled code: write it out"),
        (lambda node: gomp.new(gomp.Map[int, Node]), "node", "gomp.new makes structs"),
        (lambda node: gomp.array(gomp.Map[int, int], 2), "node", "a map holds structs, arrays, texts or maps, not int"),
    ],
)  # fmt: skip
def test_what_is_refused(made, body, arg, message):
    with pytest.raises(CompileError, match=message) as refused:
        compiled(body)(made[arg])
    assert "\n" not in str(refused.value)
