"""Structs and compiled functions that several tests use."""

from __future__ import annotations

from gomp.core.shm import layout
from gomp.core.shm.records import p_dtype, view
from gomp.runtime.arrays import Array, array
from gomp.runtime.compiled import compiled
from gomp.runtime.root_table import Global
from gomp.runtime.structs import new, struct


@struct
class Node:
    left: Node
    right: Node
    value: int


@struct
class Mixed:
    flag: bool
    ratio: float
    node: Node
    items: Array[Node]


Wide = struct(
    type(
        "Wide",
        (),
        {"__annotations__": {f"f{i}": (Node if i % 3 == 0 else int) for i in range(70)}, "__module__": __name__},
    )
)
ROOT = Global("root of the tests", Node)
SCALE = 3


@compiled
def build(depth):
    node = new(Node, value=depth)
    if depth:
        node.left = build(depth - 1)
        node.right = build(depth - 1)
    return node


@compiled
def count(node: Node | None):
    if node is None:
        return 0
    return 1 + count(node.left) + count(node.right)


@compiled
def mixed(flag, ratio, node: Node):
    m = new(Mixed, flag, ratio, node=node)
    m.items = array(Node, 3)
    m.items[1] = node
    m.flag = not m.flag
    m.ratio = m.ratio * 2
    return m


@compiled
def total(numbers):
    out = 0
    for i in range(len(numbers)):
        out += numbers[i]
    return out


@compiled
def find(root: Node, value):
    """The first node with this value on the way left, or None."""
    found = None
    node = root
    while node is not None:
        if node.value == value:
            found = node
            break
        node = node.left
    return found


def p_record():
    return view(p_dtype, layout.SELF_BASE)[0]
