"""``gomp.Map[K, T]``: maps whose type says of which kind their keys are."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from gomp.runtime.hashmap import Map, map  # noqa: A004
from gomp.runtime.kinds import int8, int64
from gomp.runtime.references import key_of
from gomp.runtime.structs import new, struct
from gomp.runtime.texts import Bytes, Str, bytes_, str_
from gomp.runtime.typekeys import class_of_key


@struct
class Item:
    number: int


@struct
class Shelf:
    by_name: Map[str, Item]
    later: Map[int, Later] | None
    deep: Map[bytes, Map[str, Item]]


@struct
class Later:
    shelf: Shelf


@pytest.mark.parametrize(
    ("good", "bad"), [("a", 1), (1, "a"), (b"a", "a"), (str_, b"a"), (bytes_, "a")], ids=["str", "int", "bytes", "Str", "Bytes"]
)  # fmt: skip
def test_keys_are_of_the_kind_that_is_declared(heap, good, bad):
    kind, key = (
        (type(good), good) if not callable(good) else ((str, str_("x")) if good is str_ else (bytes, bytes_(b"x")))
    )
    m = map(kind, Item)
    m[key] = new(Item, 1)
    assert (m[key].number, key in m, len(m)) == (1, True, 1)
    message = rf"a key of a Map\[{kind.__name__}, Item\] is .*{kind.__name__}, not {type(bad).__name__}"
    for use in (
        lambda: m[bad], lambda: m.get(bad), lambda: bad in m, lambda: m.pop(bad), lambda: m.setdefault(bad, m[key]),
        lambda: m.__setitem__(bad, m[key]), lambda: m.__delitem__(bad), lambda: m.update({bad: m[key]}),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=message):
            use()
    assert len(m) == 1


def test_the_same_names_are_the_same_class(heap):
    assert Map[str, Item] is Map[Str, Item] is type(map(str, Item)) is type(map(Str, Item))
    assert Map[bytes, Item] is Map[Bytes, Item]
    assert Map[int, Item] is Map[int64, Item]
    assert Map[Any, Item] is Map[Item] is Map[int | str, Item] is Map[object, Item]
    assert Map[Optional[str], Item] is Map[str, Item]  # noqa: UP045
    classes = [Map[Item], Map[int, Item], Map[str, Item], Map[bytes, Item]]
    assert len({key_of(cls) for cls in classes}) == 4
    assert [class_of_key(key_of(cls)) for cls in classes] == classes
    assert [cls.__name__ for cls in classes] == ["Map[Item]", "Map[int, Item]", "Map[str, Item]", "Map[bytes, Item]"]


def test_fields_hold_one_kind(heap):
    shelf = new(Shelf, by_name=map(str, Item))
    shelf.later = map(int, Later)
    shelf.later[5] = new(Later, shelf)
    shelf.deep = map(bytes, Map[str, Item])
    shelf.deep[b"x"] = shelf.by_name
    assert shelf.later[5].shelf.deep[b"x"] == shelf.by_name
    with pytest.raises(TypeError, match=r"field by_name of Shelf holds a Map\[str, Item\] or None, not Map\[Item\]"):
        shelf.by_name = map(Item)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: map(float, Item), "the keys of a map are int, str or bytes, not float"),
        (lambda: map(int8, Item), "the keys of a map are int, str or bytes, not gomp.int8"),
        (lambda: Map[Item, Item], "the keys of a map are int, str or bytes, not Item"),
        (lambda: map(str, int), "a map holds structs, arrays, texts or maps, not int"),
        (lambda: Map[str], r"write gomp.Map\[T\], or gomp.Map\[str, T\]"),
        (lambda: map(str, Item, Item), r"gomp.map\(K, T\): 3 types were given"),
    ],
)
def test_what_is_no_map(heap, make, message):
    with pytest.raises(TypeError, match=message):
        make()
