"""``gomp.who_retains`` of a script and of programs: each kind of root, each kind of step, and what is printed."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import gomp
from gomp.runtime.retention import Retention


@gomp.struct
class Pair:
    a: int
    of: Leaf


@gomp.struct
class Leaf:
    n: int
    other: Leaf


@gomp.struct
class Tree:
    left: Tree
    right: Tree
    leaf: Leaf
    inner: gomp.Inline[Pair]
    leaves: gomp.Array[Leaf]
    few: gomp.Array[Leaf, 3]
    by_name: gomp.Map[Leaf]


@gomp.struct
class Wide:
    numbers: gomp.Array[int, 100]
    leaf: Leaf


POOL = gomp.Pool(Leaf, name="leaves")
GIVEN = gomp.Global("who_retains.given", Leaf)


@pytest.fixture
def leaf(rt: gomp.Runtime) -> Iterator[Leaf]:
    rt.gc()
    rt.gc()
    yield gomp.new(Leaf, n=7)
    for name in list(gomp.globals):
        del gomp.globals[name]


def path(found: Retention) -> str:
    return " → ".join([found.root.kind, *map(str, found.steps), found.target])


def test_only_this_reference(leaf: Leaf, capsys: pytest.CaptureFixture[str]) -> None:
    found = gomp.who_retains(leaf)
    assert found.is_only_mine
    assert found.address == leaf.address
    assert (
        capsys.readouterr().out
        == f"Leaf @{leaf.address:#x} is kept by nothing but this reference of the process that asks\n"
    )


def test_what_is_printed(leaf: Leaf, capsys: pytest.CaptureFixture[str]) -> None:
    tree = gomp.new(Tree, right=gomp.new(Tree, leaf=leaf))
    inner, outer = tree.right.address, tree.address
    gomp.globals["cache"] = tree
    del tree
    found = gomp.who_retains(leaf)
    assert capsys.readouterr().out.splitlines() == [
        f"Leaf @{leaf.address:#x} is kept by",
        "  global 'cache'",
        f"  → Tree @{outer:#x}, through .right",
        f"  → Tree @{inner:#x}, through .leaf",
    ]
    assert repr(found) == f"<Leaf @{leaf.address:#x} is kept by global 'cache' → Tree.right → Tree.leaf>"
    assert found.root.name == "cache"


def test_steps(leaf: Leaf) -> None:
    tree = gomp.new(Tree)
    gomp.globals["root"] = tree
    tree.inner.of = leaf
    assert path(gomp.who_retains(leaf)) == "global → Tree.inner.of → Leaf"
    tree.inner.of = None
    tree.few[2] = leaf
    assert path(gomp.who_retains(leaf)) == "global → Tree.few[2] → Leaf"
    tree.few[2] = None
    for n in (3, 5000):
        tree.leaves = gomp.array(Leaf, n)
        tree.leaves[n - 1] = leaf
        assert path(gomp.who_retains(leaf)) == f"global → Tree.leaves → Array[Leaf][{n - 1}] → Leaf"
    tree.leaves = None
    gomp.globals["root of another kind"] = gomp.new(Wide, leaf=leaf)
    assert path(gomp.who_retains(leaf)) == "global → Wide.leaf → Leaf"


@pytest.mark.parametrize("n", [0, 12, 100, 5000], ids=["few", "with_few_buckets", "with_buckets", "with_many"])
@pytest.mark.parametrize("key", [-5, "k", b"bytes", "long" * 20, "very long" * 80], ids=str)
def test_maps(leaf: Leaf, n: int, key: int | str | bytes) -> None:
    tree = gomp.new(Tree, by_name=gomp.map(Leaf))
    for i in range(n):
        tree.by_name[i] = gomp.new(Leaf)
    tree.by_name[key] = leaf
    gomp.globals["root"] = tree
    del tree
    found = gomp.who_retains(leaf)
    assert [str(found.steps[0]), found.steps[1].holder, len(found.steps)] == ["Tree.by_name", "Map[Leaf]", 2]
    shown = f"[{key!r}]"
    assert found.steps[1].field == shown or (found.steps[1].field[:80] == shown[:80] and len(repr(key)) > 80)


def test_a_map_of_anything_and_of_maps(leaf: Leaf) -> None:
    outer = gomp.map()
    outer["x"] = gomp.map(Leaf)
    outer["x"][3] = leaf
    gomp.globals["maps"] = outer
    del outer
    assert path(gomp.who_retains(leaf)) == "global → Map['x'] → Map[Leaf][3] → Leaf"


def test_a_part_of_an_object(leaf: Leaf) -> None:
    tree = gomp.new(Tree, left=gomp.new(Tree))
    part = tree.left.inner
    tree.left = None
    mine = gomp.who_retains(part)
    assert (mine.is_only_mine, mine.target, mine.address) == (True, "Pair", part.address)
    tree.left = gomp.new(Tree)
    part = tree.left.inner
    gomp.globals["root"] = tree
    del tree
    found = gomp.who_retains(part)
    assert path(found) == "global → Tree.left → Pair in Tree"
    assert found.address == part.address


def test_other_references_of_this_process(leaf: Leaf) -> None:
    tree = gomp.new(Tree, leaf=leaf)
    assert path(gomp.who_retains(leaf)) == "reference → Tree.leaf → Leaf"
    same = tree.leaf
    found = gomp.who_retains(leaf)
    assert same == leaf
    assert path(found) == "reference → Leaf"
    assert "this process" in found.root.text


@pytest.mark.parametrize("n", [1, 3, 40, 5000])
def test_an_array_of_structs(leaf: Leaf, n: int) -> None:
    pairs = gomp.array(gomp.Inline[Pair], n)
    pairs[n - 1].of = leaf
    gomp.globals["pairs"] = pairs
    del pairs
    assert path(gomp.who_retains(leaf)) == f"global → Array[Inline[Pair]][{n - 1}].of → Leaf"
    del gomp.globals["pairs"]


@pytest.mark.parametrize("n", [2, 30])
def test_two_words_say_nothing_and_references_to_them_do(leaf: Leaf, n: int) -> None:
    """16 bytes, of which the second word is a reference: a Leaf, a Pair, and arrays of one element of any class are all that."""
    gomp.array(Tree, 1)
    first = last = gomp.new(Leaf)
    for _ in range(n):
        last.other = gomp.new(Leaf)
        last = last.other
    last.other = leaf
    del last
    found = gomp.who_retains(leaf)
    assert {str(step) for step in found.steps} == {"Leaf.other"}
    assert (found.root.kind, found.target, len(found.steps)) == ("reference", "Leaf", n + 1)
    assert first.other is not None


def test_an_array_of_numbers(rt: gomp.Runtime, leaf: Leaf, capsys: pytest.CaptureFixture[str]) -> None:
    array = gomp.ndarray(1000, float)
    assert gomp.who_retains(array).is_only_mine
    gomp.globals["numbers"] = array
    assert gomp.who_retains(array).root.name == "numbers"
    assert capsys.readouterr().out.count("ndarray @") == 2


def test_a_pool(rt: gomp.Runtime, leaf: Leaf) -> None:
    POOL.put(leaf)
    found = gomp.who_retains(leaf)
    assert (found.root.kind, found.root.name, found.steps) == ("pool", "leaves", ())
    POOL.put(gomp.new(Leaf))
    second = gomp.new(Leaf)
    POOL.put(second)
    found = gomp.who_retains(second)
    assert (found.root.kind, [step.holder for step in found.steps]) == ("pool", ["ring of a pool"])
    rt.gc()
    assert "until the next collection" in gomp.who_retains(leaf).root.text
    rt.gc()
    assert gomp.who_retains(leaf).is_only_mine


def test_a_finalizer(rt: gomp.Runtime, leaf: Leaf) -> None:
    tree = gomp.new(Tree, leaf=leaf)
    weak = gomp.weak(leaf)
    gomp.set_finalizer(tree, lambda tree: time.sleep(0.5))
    gomp.add_cleanup(leaf, print, "gone")
    del tree
    found = gomp.who_retains(leaf)
    assert path(found) == "finalizer → Tree.leaf → Leaf"
    assert "whose object leads to it" in found.root.text
    rt.gc()
    assert gomp.who_retains(leaf).root.kind in ("finalizer", "reference"), "it is due, or its function has begun"
    deadline = time.monotonic() + 10
    while not gomp.who_retains(leaf).is_only_mine:
        assert time.monotonic() < deadline
        rt.gc()
    assert weak.value() == leaf


def test_a_reference_on_its_way(leaf: Leaf) -> None:
    data = pickle.dumps(leaf)
    found = gomp.who_retains(leaf)
    assert found.root.kind == "transit"
    assert pickle.loads(data) == leaf
    assert gomp.who_retains(leaf).is_only_mine


# --- other processes --------------------------------------------------------------------------------------------------


def hold(leaf: Leaf, name: str, seconds: float) -> None:
    """Keep it in a tree that only this process refers to."""
    tree = gomp.new(Tree, leaf=leaf)
    del leaf
    gomp.globals[name] = gomp.new(Leaf)
    time.sleep(seconds)
    assert tree.leaf is not None


def test_a_reference_of_another_process(rt: gomp.Runtime, leaf: Leaf) -> None:
    goroutine = rt.go(hold, leaf, "held", 1.0)
    while "held" not in gomp.globals:
        time.sleep(0.01)
    found = gomp.who_retains(leaf)
    assert (found.root.kind, path(found)) in [
        ("reference", "reference → Leaf"),
        ("reference", "reference → Tree.leaf → Leaf"),
    ], "the arguments of its call keep it too"
    assert f"P{found.root.p} (pid {found.root.pid}, which runs hold)" in found.root.text
    goroutine.wait()


@gomp.compiled
def keep_on_the_stack(flag: Leaf) -> int:
    leaf = gomp.new(Leaf)
    leaf.n = 11
    GIVEN.set(leaf)
    n = 0
    while flag.other is None:
        n += leaf.n
    return n


def test_the_stack_of_a_compiled_program(rt: gomp.Runtime, leaf: Leaf) -> None:
    goroutine = rt.go(keep_on_the_stack, leaf)
    while (found := GIVEN.get()) is None:
        time.sleep(0.01)
    GIVEN.set(None)
    root = gomp.who_retains(found).root
    leaf.other = leaf
    assert goroutine.wait() > 0
    assert root.kind == "stack"
    assert "which runs keep_on_the_stack" in root.text
    assert gomp.who_retains(found).is_only_mine


def ask(leaf: Leaf) -> tuple[bool, str]:
    found = gomp.who_retains(leaf)
    return found.is_only_mine, found.root.text


def test_a_program_asks(rt: gomp.Runtime, leaf: Leaf) -> None:
    is_only_mine, root = rt.run(ask, leaf)
    assert not is_only_mine
    assert root.startswith("a reference of P")


def test_threads_ask_while_others_change_everything(rt: gomp.Runtime, leaf: Leaf) -> None:
    tree = gomp.new(Tree, leaf=leaf)
    gomp.globals["root"] = tree
    del tree
    with ThreadPoolExecutor(3) as threads:
        asking = [threads.submit(lambda: [path(gomp.who_retains(leaf)) for _ in range(8)]) for _ in range(3)]
        for _ in range(6):
            gomp.globals["other"] = gomp.new(Tree, left=gomp.new(Tree))
            rt.gc()
        assert {line for future in asking for line in future.result()} == {"global → Tree.leaf → Leaf"}


@pytest.mark.parametrize("what", [None, 5, "text", [1]])
def test_what_is_no_reference(rt: gomp.Runtime, what: object) -> None:
    with pytest.raises(TypeError, match=f"{type(what).__name__} is no reference into the shared heap"):
        gomp.who_retains(what)
