"""Perfect binary trees, built, counted and dropped: the allocator's and marker's benchmark.

One long-lived tree of ``depth``; then for d = 4, 8, … up to ``depth``, 2^(depth-d+4) trees of depth d, shared out over the goroutines. The
result is the number of all nodes: 33,799,103 for depth 18.
"""

from __future__ import annotations

import gomp
from workers.shares import shares


@gomp.struct
class Node:
    left: "Node"
    right: "Node"


@gomp.compiled
def build(depth: int) -> Node:
    node = gomp.new(Node)
    if depth > 0:
        node.left = build(depth - 1)
        node.right = build(depth - 1)
    return node


@gomp.compiled
def count(node: Node) -> int:
    if node.left is None:
        return 1
    return 1 + count(node.left) + count(node.right)


@gomp.compiled
def build_and_count(depth: int, trees: int) -> int:
    nodes = 0
    for _ in range(trees):
        nodes += count(build(depth))
    return nodes


def main(depth: int = 18, goroutines: int = 1) -> int:
    """The number of nodes built."""
    if not 1 <= depth <= 40:
        raise gomp.ConfigError(f"depth={depth}: give 1 to 40")
    if goroutines < 1:
        raise gomp.ConfigError(f"goroutines={goroutines}: give at least 1")
    long_lived = build(depth)
    nodes = 0
    for d in range(4, depth + 1, 4):
        trees = 1 << (depth - d + 4)
        started = [gomp.go(build_and_count, d, end - first) for first, end in shares(trees, goroutines)]
        nodes += sum(goroutine.wait() for goroutine in started)
    return nodes + count(long_lived)
