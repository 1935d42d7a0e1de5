"""``gomp.map`` from ordinary Python: a dict whose values live in the shared heap."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
from kernel_heap import collect_now

from gomp.core.mutator.hashmap import MAX_KEY_BYTES
from gomp.errors import RuntimeLost
from gomp.runtime.arrays import Array, array
from gomp.runtime.handles import table
from gomp.runtime.hashmap import Map, map  # noqa: A004
from gomp.runtime.pointers import pointer
from gomp.runtime.root_table import globals as roots
from gomp.runtime.structs import new, struct
from gomp.runtime.texts import Str, bytes_, str_
from gomp.runtime.verify import verify
from gomp.runtime.weak import weak
from tests.free_slots import free_slots


@struct
class Item:
    number: int


@struct
class Owner:
    items: Map[Item]
    by_name: Map
    later: Map[Later] | None


@struct
class Later:
    owner: Owner


def item(n):
    return new(Item, number=n)


def numbers(m):
    return {key: value.number for key, value in m.items()}


def test_it_is_a_mapping(heap):
    m = map(Item)
    assert (len(m), list(m), bool(m)) == (0, [], False)
    m["a"], m[7], m[b"a"] = item(1), item(2), item(3)
    assert numbers(m) == {"a": 1, 7: 2, b"a": 3}
    assert m["a"].number == 1
    assert m["a"] == m["a"]
    assert m.get("b") is None
    assert m.get("b", 5) == 5
    assert ("a" in m, "b" in m, 7 in m, -7 in m) == (True, False, True, False)
    m["a"] = item(4)
    assert (m["a"].number, len(m)) == (4, 3)
    del m["a"]
    with pytest.raises(KeyError, match="'a'"):
        m["a"]
    with pytest.raises(KeyError, match="'a'"):
        del m["a"]
    assert m.pop(7).number == 2
    assert m.pop(7, None) is None
    with pytest.raises(KeyError, match="7"):
        m.pop(7)
    first = m.setdefault("x", item(8))
    assert (first.number, m.setdefault("x", item(9)) == first) == (8, True)
    m.update({"y": item(10)}, z=item(11))
    m.update([("w", item(12))])
    other = map(Item)
    other.update(m)
    assert numbers(other) == {b"a": 3, "x": 8, "y": 10, "z": 11, "w": 12}
    assert set(m.keys()) == set(other)
    assert "x" in m.keys()  # noqa: SIM118
    assert sorted(value.number for value in m.values()) == [3, 8, 10, 11, 12]
    assert m["x"] in m.values()
    assert ("x", m["x"]) in m.items()
    m.clear()
    assert (len(m), numbers(m), len(other)) == (0, {}, 5)
    m["x"] = item(1)
    assert numbers(m) == {"x": 1}
    assert repr(m).startswith("<Map[Item] of 1 @0xc0")


def test_keys_of_every_length_and_kind(heap):
    m = map()
    expected = {}
    for n in (*range(66), 471, 472, 473, 511, 4000, 32_000, 33_000, MAX_KEY_BYTES):
        for key in ("k" * n, b"k" * n, "ä" * (n // 2), bytes(n), n, -n):
            m[key] = item(len(expected))
            expected[key] = len(expected) if key not in expected else m[key].number
    expected = numbers(m)
    assert {key: type(key) for key in m} == {key: type(key) for key in expected}
    for _ in range(2):
        assert {key: m[key].number for key in expected} == expected
        assert numbers(m) == expected
        collect_now()
    assert verify(3).problems == ()


def test_keys_that_are_like_others(heap):
    m = map(Item)
    m[True], m[np.int32(5)], m[""], m[b""], m["\0"], m[b"\0"], m["\ud800"] = (item(i) for i in range(7))
    assert numbers(m) == {1: 0, 5: 1, "": 2, b"": 3, "\0": 4, b"\0": 5, "\ud800": 6}
    m[(1 << 63) - 1] = item(1)
    m[-(1 << 63)] = item(2)
    assert m[(1 << 63) - 1].number == 1


@pytest.mark.parametrize("key", [None, 1.5, (1,), bytearray(b"a")])
def test_keys_of_another_kind_are_refused(heap, key):
    m = map(Item)
    for use in (m.get, m.__contains__, m.pop, m.__getitem__):
        with pytest.raises(TypeError, match="a key is an int, a str or bytes, not "):
            use(key)
    with pytest.raises(TypeError, match="a key is an int"):
        m[key] = item(1)


def test_keys_too_large(heap):
    m = map(Item)
    with pytest.raises(OverflowError, match="an int key is an int64; 9223372036854775808 does not fit"):
        m[1 << 63]
    with pytest.raises(ValueError, match="a key has at most 65536 bytes, not 65537"):
        m["k" * 65537] = item(1)
    free = free_slots()
    for _ in range(5):
        with pytest.raises(OverflowError):
            m.get(1 << 63)
    assert free_slots() == free


def test_values_are_of_the_declared_class(heap):
    m = map(Item)
    with pytest.raises(TypeError, match=r"Map\[Item\] holds a Item, not a Owner"):
        m[1] = new(Owner)
    with pytest.raises(
        TypeError,
        match=r"Map\[Item\] holds references to structs, arrays, texts and maps, not None \(to remove a key, del it\): make one with gomp.new\(Item",
    ):
        m[1] = None
    with pytest.raises(TypeError, match=r"holds references to structs, arrays, texts and maps, not int"):
        m.setdefault(1, 5)
    with pytest.raises(TypeError, match="a map holds structs, arrays, texts or maps, not int"):
        map(int)
    assert Map[Item] is Map[Item]


def test_a_map_without_a_class_holds_anything(heap):
    m = map()
    m["x"] = item(5)
    m["y"] = array(int, 3)
    m["m"] = m
    assert [type(m[key]) for key in "xym"] == [Item, Array[int], Map]
    m["x"] = array(Item, 2)  # a value of another type, in an entry of its own
    m["x"][1] = item(6)
    collect_now()
    assert m["m"]["x"][1].number == 6
    assert len(m) == 3


def test_maps_in_fields_arrays_and_maps(heap):
    owner = new(Owner, map(Item), map())
    assert owner.later is None
    owner.later = map(Later)
    owner.later["me"] = new(Later, owner)
    owner.items[3] = item(33)
    many = array(Map[Item], 2)
    many[1] = owner.items
    nested = map(Map[Item])
    nested["n"] = many[1]
    roots["owner"], roots["nested"] = owner, nested
    del owner, many, nested
    collect_now()
    assert roots["owner"].later["me"].owner.items[3].number == 33
    assert roots["nested"]["n"] == roots["owner"].items
    with pytest.raises(TypeError, match=r"field items of Owner holds a Map\[Item\] or None, not Map"):
        roots["owner"].items = map()


def test_growth_and_garbage(heap):
    m = map(Item)
    model = {}
    rng = random.Random(6)
    for i in range(6000):
        key = rng.randrange(3000)
        if rng.random() < 0.6:
            m[key], model[key] = item(i), i
        else:
            assert (m.pop(key, None) is None) == (model.pop(key, None) is None)
        if i % 1500 == 0:
            collect_now()
    assert len(m) == len(model)
    assert numbers(m) == model
    collect_now()
    report = verify(3)
    assert report.problems == ()
    assert report.objects == report.reached
    m.clear()
    collect_now()
    assert verify(3).objects < 10


def test_a_walk_while_the_map_changes(heap):
    m = map(Item)
    for i in range(500):
        m[i] = item(i)
    seen = []
    for n, (key, value) in enumerate(m.items()):
        seen.append((key, value.number))
        if n % 3 == 0:
            m.pop(key, None)
            m.pop((key * 7 + 1) % 500 if key % 2 else key, None)
        m[1000 + n % 300] = item(-1)
        if n % 100 == 0:
            collect_now()
    keys = [key for key, _ in seen]
    assert len(set(keys)) == len(keys)
    assert {key for key in m if key < 500} <= set(keys)


def test_a_walk_outlives_clear(heap):
    m = map(Item)
    for i in range(50):
        m[i] = item(i)
    walk = iter(m.items())
    first = next(walk)
    m.clear()
    m[1000] = item(1)
    collect_now()
    rest = [key for key, _ in walk]
    assert len({first[0], *rest}) == 1 + len(rest)


def test_handles_come_back(heap):
    m = map(Item)
    for i in range(40):
        m[i] = item(i)
    list(m.items())
    free = free_slots()
    for i in range(200):
        m[i % 50] = item(i)
        assert (m.get(i % 100) is None) == (i % 100 not in m)
        m.pop(i % 7, None)
        list(m), list(m.values())
    assert free_slots() == free


def test_the_bytes_of_a_key_are_where_we_say(heap):
    from gomp.core.jit import COMPILED
    from gomp.runtime.mapkeys import words

    if COMPILED:
        import ctypes

        for n in (0, 1, 7, 8, 100, 5000):
            key = os.urandom(n)
            _, word, held = words(key)
            assert held is key
            assert word % 8 == 0
            assert ctypes.string_at(word, n) == key


def test_a_map_of_an_ended_runtime(heap):
    m = map(Item)
    table.close()
    for use in (len, list, repr):
        if use is repr:
            assert use(m) == "<Map[Item] of an ended runtime>"
        else:
            with pytest.raises(RuntimeLost, match="no runtime is open"):
                use(m)
    with pytest.raises(RuntimeLost, match="no runtime is open"):
        m["x"]


def test_texts_of_the_heap_are_keys(heap):
    m = map(Item)
    for n in (0, 1, 7, 8, 9, 100):
        m[str_("ä" * n)], m[bytes_(b"b" * n)] = item(n), item(-n)
        assert (m["ä" * n].number, m[b"b" * n].number) == (n, -n)
        assert m[str_("ä" * n)] == m["ä" * n]
    assert {type(key) for key in m} == {str, bytes}
    del m[str_("")]
    assert ("" in m, b"" in m, len(m)) == (False, True, 11)


def test_values_may_be_texts(heap):
    m = map(Str)
    m[1] = str_("one")
    assert m[1] == "one"
    anything = map()
    anything["a"], anything["b"] = m[1], bytes_(b"two")
    assert (anything["a"], anything["b"]) == ("one", b"two")


@struct
class Early:
    by_name: Map["Late"]  # noqa: UP037
    lists: Map[Array[Late]]
    maps: Array[Map[Late]]


@struct
class Late:
    number: int


def test_a_map_of_a_struct_that_is_declared_later(heap):
    early = new(Early, map(Late), map(Array[Late]), array(Map[Late], 1))
    early.by_name["x"] = new(Late, 4)
    early.lists[1] = array(Late, [early.by_name["x"]])
    early.maps[0] = early.by_name
    assert early.lists[1][0] == early.maps[0]["x"]
    assert (type(early.by_name), type(early.lists), type(early.maps)) == (Map[Late], Map[Array[Late]], Array[Map[Late]])


def test_what_has_no_type_of_its_own_is_no_value(heap):
    m = map()
    for value in (pointer(item(1), "number"), weak(item(1))):
        with pytest.raises(TypeError, match="Map holds references to structs, arrays, texts and maps, not "):
            m[1] = value
