"""What a type checker sees of structs, arrays, texts and maps: this file passes ``mypy --strict``, and runs."""

from __future__ import annotations

from typing import Literal

import gomp


@gomp.struct
class Point:
    x: gomp.int16
    y: gomp.float32
    z: gomp.float64


@gomp.struct
class Node:
    left: Node | None
    value: int
    weight: float
    is_leaf: bool
    place: gomp.Inline[Point]
    history: gomp.Array[int, Literal[4]]
    corners: gomp.Array[gomp.Inline[Point], Literal[2]]
    children: gomp.Array[Node] | None
    name: gomp.Str | None
    key: gomp.Bytes | None
    by_name: gomp.Map[str, Node] | None
    by_number: gomp.Map[int, gomp.Array[float]] | None


ROOT = gomp.Global("typed_root", Node)
NAMES = gomp.Global("typed_names", gomp.Map[str, Node])


@gomp.compiled
def total(node: Node | None) -> int:
    result = 0
    while node is not None:
        result += node.value + node.place.x + node.history[0]
        node = node.left
    return result


def build(n: int) -> Node:
    node = gomp.new(Node, value=n, name=gomp.str("root"), key=gomp.bytes(b"k"))
    node.left = gomp.new(Node, None, 1, 0.5, True)
    node.place.x = 3
    node.place.y = 2
    node.history[3] = node.value
    node.corners[1].x = 7
    node.children = gomp.array(Node, [node.left, None])
    ROOT.set(node)
    gomp.globals["typed_named"] = node
    named: Node = gomp.globals["typed_named"]
    inside: gomp.Pointer = gomp.pointer(named, "value")
    gomp.keep_alive(inside)
    where: int = gomp.address(named)
    gomp.keep_alive(named, where)
    return node


def read(node: Node) -> tuple[int, float, str, bytes, list[int]]:
    assert node.name is not None
    assert node.key is not None
    first: int = len(node.name) + len(node.key)
    values: gomp.Array[int] = gomp.array(int, [1, 2, 3])
    ratios: gomp.Array[float] = gomp.array(float, 3)
    small = gomp.array(gomp.uint8, 3)
    small[0] = 255
    ratios[1] = values[2]
    if node.children is not None:
        first += node.children[0].value
    view: memoryview[int] = node.key.view()
    return first + view[0], sum(ratios), str(node.name), bytes(node.key), values[1:] + node.history[:]


@gomp.compiled
def measure(nodes: gomp.Map[str, Node]) -> int:
    result = 0
    for name, node in nodes.items():
        result += len(name) + node.value
    for name in nodes:
        result += nodes[name].value
    for node in nodes.values():
        result += node.value
    return result


def fill(node: Node) -> gomp.Map[str, Node]:
    nodes = gomp.map(str, Node)
    nodes["first"] = node
    nodes["second"] = nodes.setdefault("first", node)
    node.by_name = nodes
    node.by_number = gomp.map(int, gomp.Array[float])
    node.by_number[7] = gomp.array(float, [0.5])
    NAMES.set(nodes)
    found: Node | None = nodes.get("third")
    anything: gomp.Map[str, Node] = gomp.map(Node) if found else nodes
    lost: gomp.Weak[Node] = gomp.weak(nodes.pop("second"))
    still: Node | None = lost.value()
    assert still is not None
    for name, value in anything.items():
        nodes[name.upper()] = value
    return nodes


if __name__ == "__main__":
    with gomp.Runtime(procs=1):
        made = build(5)
        print(total(made), *read(made))
        names = fill(made)
        print(sorted(names), measure(names), [ratios[0] for ratios in names["first"].by_number.values()])  # type: ignore[union-attr]
