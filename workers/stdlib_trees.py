"""The standard library as syntax trees in the shared heap: real input, from ordinary Python code on every P at once.

Each P takes its share of the running Python's standard library source files, parses them with ``ast``, and builds every tree as
structs in the shared heap. The trees hang on ``gomp.globals``, one a file. A compiled walk, on another P than the one that built them,
counts the nodes by kind. Each round replaces a tenth of the trees, whose old ones become garbage.

The result, nodes by kind, equals what ``ast.walk`` counts.
"""

from __future__ import annotations

import ast
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import gomp
from workers.shares import shares

KINDS = sorted(name for name, kind in vars(ast).items() if isinstance(kind, type) and issubclass(kind, ast.AST))
_KIND_NUMBER = {name: number for number, name in enumerate(KINDS)}
_NOT_LIBRARY = {"test", "tests", "idlelib", "site-packages", "dist-packages", "lib2to3"}
REPLACED = 10  # one tree in so many is replaced each round


@gomp.struct
class SyntaxNode:
    kind: int
    line: int
    first_child: "SyntaxNode"
    next_sibling: "SyntaxNode"


def library_files() -> list[Path]:
    """The standard library's source files that this Python can parse, in order."""
    root = Path(sysconfig.get_path("stdlib"))
    return [path for path in sorted(root.rglob("*.py")) if not _NOT_LIBRARY & set(path.relative_to(root).parts)]


def parse(path: Path) -> ast.AST:
    return ast.parse(path.read_bytes(), filename=str(path))


def build(tree: ast.AST) -> SyntaxNode:
    """The tree in the shared heap. A node's children are a list through ``next_sibling``."""
    node = gomp.new(SyntaxNode, _KIND_NUMBER[type(tree).__name__], getattr(tree, "lineno", 0))
    previous = None
    for child in ast.iter_child_nodes(tree):
        made = build(child)
        if previous is None:
            node.first_child = made
        else:
            previous.next_sibling = made
        previous = made
    return node


def hang(index: int, path: Path) -> None:
    """Build the tree of a file and make it the one that others see."""
    gomp.globals[f"stdlib.{index}"] = build(parse(path))


def build_share(first: int, end: int, step: int = 1) -> None:
    """Build the trees of every ``step``-th of the files [first, end)."""
    files = library_files()
    for index in range(first, end, step):
        hang(index, files[index])


@gomp.compiled
def count_kinds(node: SyntaxNode, counts: gomp.Array[int]) -> None:
    """Add the nodes of a tree, and of its siblings, to ``counts``."""
    while node is not None:
        counts[node.kind] += 1
        if node.first_child is not None:
            count_kinds(node.first_child, counts)
        node = node.next_sibling


def count_share(first: int, end: int) -> dict[str, int]:
    """Nodes by kind in the trees [first, end)."""
    counts = gomp.array(int, len(KINDS))
    for index in range(first, end):
        count_kinds(gomp.globals[f"stdlib.{index}"], counts)
    return {kind: counts[number] for number, kind in enumerate(KINDS) if counts[number]}


def expected() -> dict[str, int]:
    """What ``ast.walk`` counts, in ordinary objects."""
    counts = Counter(type(node).__name__ for path in library_files() for node in ast.walk(parse(path)))
    return dict(sorted(counts.items()))


def _on_each_p(parts: list[tuple[int, int]], step: int = 1) -> None:
    for goroutine in [gomp.go(build_share, first, end, step) for first, end in parts]:
        goroutine.wait()


def _count(parts: list[tuple[int, int]]) -> dict[str, int]:
    """Count each P's trees on another P: the parts are given out in another order than they were built in."""
    total: Counter[str] = Counter()
    for goroutine in [gomp.go(count_share, first, end) for first, end in reversed(parts)]:
        total.update(goroutine.wait())
    return dict(sorted(total.items()))


def rounds_of(parts: list[tuple[int, int]], rounds: int) -> Iterator[dict[str, int]]:
    """Build all trees, then replace a tenth in each round; yields the nodes by kind after each."""
    _on_each_p(parts)
    for number in range(rounds):
        _on_each_p([(first + number % REPLACED, end) for first, end in parts], REPLACED)
        yield _count(parts)


def main(rounds: int = 5) -> dict[str, int]:
    """Nodes by kind. Raises ProgramError if a round disagrees with ``ast.walk``."""
    if rounds < 1:
        raise gomp.ConfigError(f"rounds={rounds}: give at least 1")
    parts = list(shares(len(library_files()), gomp.num_procs()))
    wanted = expected()
    for number, counted in enumerate(rounds_of(parts, rounds), 1):
        if counted != wanted:
            different = sorted(kind for kind in {*counted, *wanted} if counted.get(kind) != wanted.get(kind))
            raise gomp.ProgramError(f"round {number}: the trees in the heap and ast disagree on {', '.join(different)}")
    return wanted
