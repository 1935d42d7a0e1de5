"""The root table from ordinary Python."""

from __future__ import annotations

import pytest
from kernel_heap import collect_now

from gomp.runtime import root_table
from gomp.runtime.arrays import Array, array
from gomp.runtime.ndarrays import ndarray
from gomp.runtime.root_table import Global
from gomp.runtime.root_table import globals as roots
from gomp.runtime.structs import new, struct


@struct
class Tree:
    left: Tree
    size: int


@struct
class Other:
    n: int


def test_a_global_keeps_its_object(heap):
    roots["tree"] = new(Tree, new(Tree, size=2), size=1)
    for _ in range(3):
        collect_now()
        for _ in range(200):
            new(Tree, size=-1)
    assert roots["tree"].size == 1
    assert roots["tree"].left.size == 2


def test_it_is_a_mapping(heap):
    assert list(roots) == []
    with pytest.raises(KeyError, match="tree"):
        roots["tree"]
    tree = new(Tree)
    roots["tree"], roots["ä" * 20] = tree, tree
    assert list(roots) == ["tree", "ä" * 20]
    assert len(roots) == 2
    assert "tree" in roots
    assert 3 not in roots
    assert roots["tree"] == tree
    del roots["tree"]
    assert "tree" not in roots
    assert roots.get("tree") is None
    with pytest.raises(KeyError):
        del roots["tree"]
    assert list(roots) == ["ä" * 20]
    assert repr(roots) == f"<gomp.globals: {'ä' * 20}>"


def test_names_are_found_by_a_process_that_did_not_make_them(heap):
    roots["a"], roots["b"] = new(Tree, size=1), array(int, 5)
    root_table._places.clear()
    assert roots["a"].size == 1
    assert type(roots["b"]) is Array[int]


def test_a_name_keeps_the_type_of_its_first_value(heap):
    roots["x"] = new(Tree)
    del roots["x"]
    with pytest.raises(
        TypeError,
        match="global 'x' holds a Tree, not a Other: a name keeps the type of its first value, take another name",
    ):
        roots["x"] = new(Other)
    roots["x"] = new(Tree, size=5)
    assert roots["x"].size == 5
    roots["array"] = ndarray(3)
    with pytest.raises(TypeError, match="global 'array' holds a ndarray, not a Tree"):
        roots["array"] = new(Tree)
    with pytest.raises(TypeError, match="global 'array' does not hold a Tree, but a ndarray"):
        Global("array", Tree).get()


@pytest.mark.parametrize("name", ["", "x" * 48, "ä" * 24, "a\0b"])
def test_bad_names(heap, name):
    with pytest.raises(ValueError, match="a global's name is a string of 1 to 47 bytes"):
        roots[name] = new(Tree)


@pytest.mark.parametrize("value", [None, 3, "x"])
def test_only_references_are_held(heap, value):
    with pytest.raises(TypeError, match=r"gomp.globals\['x'\] holds what gomp.new, .* has made, not"):
        roots["x"] = value


def test_many_names(heap):
    for i in range(1500):
        roots[f"name {i}"] = new(Other, n=i)
    collect_now()
    root_table._places.clear()
    assert [roots[name].n for name in roots] == list(range(1500))


def test_a_class_that_was_declared_again_is_told_from_the_one_before(heap):
    def declare(**fields):
        return struct(type("Again", (), {"__annotations__": fields, "__module__": __name__}))

    before, now = declare(n=int), declare(n=float)
    root = Global("again", before)
    root.set(new(before))
    with pytest.raises(
        TypeError, match=r"global 'again' holds a .*Again as it was declared before: Again was declared again"
    ):
        root.set(new(now))
    with pytest.raises(TypeError, match="global 'again' holds a Again as it was declared before, not a Again"):
        roots["again"] = new(now)


def test_a_declared_global(heap):
    root = Global("trees", Tree)
    assert root.get() is None
    root.set(new(Tree, size=3))
    assert root.get().size == 3
    assert roots["trees"].size == 3
    root.set(None)
    assert root.get() is None
    assert "trees" not in roots
    with pytest.raises(TypeError, match="global 'trees' holds a Tree or None, not Other"):
        root.set(new(Other))
    with pytest.raises(TypeError, match="global 'trees' does not hold a Other, but a Tree: a name keeps the type"):
        Global("trees", Other).get()
    with pytest.raises(TypeError, match="global 'y' holds a struct or an array, not int"):
        Global("y", int)
