"""Walks over maps in compiled code: what dict's give, and what is promised while the map changes."""

from __future__ import annotations

import pytest
from kernel_heap import collect_now

from gomp.core.shm.records import GCSTATS, gcstats_dtype, view
from gomp.errors import CompileError, NilDereference
from gomp.runtime.arrays import Array
from gomp.runtime.compiled import compiled
from gomp.runtime.hashmap import Map, map  # noqa: A004
from gomp.runtime.structs import new, struct
from gomp.runtime.texts import Bytes, Str
from gomp.runtime.verify import verify


@struct
class Item:
    number: int


@compiled
def sums(m: Map[int, Item]) -> int:
    keys, values, items = 0, 0, 0
    for key in m:
        keys += key
    for key in m.keys():  # noqa: SIM118
        keys += key
    for item in m.values():
        values += item.number
    for key, item in m.items():
        items += key * item.number
    return keys * 1_000_000_000 + values * 1_000_000 + items


def test_a_walk_meets_every_entry(heap):
    m = map(int, Item)
    assert sums(m) == 0
    for n in range(1, 60):
        m[n - 30] = new(Item, n)
        expected = 2 * sum(m) * 1_000_000_000 + sum(i.number for i in m.values()) * 1_000_000
        assert sums(m) == expected + sum(k * i.number for k, i in m.items())


def test_keys_are_texts(heap):
    @compiled
    def swap(m: Map[str, Item], into: Map[bytes, Item], out: Map[str, Item]) -> int:
        characters = 0
        for name, item in m.items():
            characters += len(name)
            out[name] = item
        for data in into:
            characters += 1000 * len(data)
        return characters

    m, data, out = map(str, Item), map(bytes, Item), map(str, Item)
    names = ["", "a", "seven77", "eight888", "nine 9999", "ä" * 4, "日本" * 100, "k" * 65536, "\ud800"]
    for n, name in enumerate(names):
        m[name] = new(Item, n)
        data[name.encode("utf-8", "surrogatepass")] = new(Item, n)
    expected = sum(map_len(name) for name in names)
    assert swap(m, data, out) == expected
    assert {name: item.number for name, item in out.items()} == {name: n for n, name in enumerate(names)}
    assert verify(3).problems == ()


def map_len(name):
    return len(name) + 1000 * len(name.encode("utf-8", "surrogatepass"))


def test_the_keys_of_a_walk_are_what_python_sees(heap):
    @compiled
    def first(m: Map[str, Item]) -> Str:
        for name in m:
            return name
        return None

    @compiled
    def first_bytes(m: Map[bytes, Item]) -> Bytes:
        for name in m:
            return name
        return None

    m, b = map(str, Item), map(bytes, Item)
    assert first(m) is None
    m["grün"], b[b"\0\xff"] = new(Item), new(Item)
    assert first(m) == "grün"
    assert first_bytes(b) == b"\0\xff"


def test_values_of_a_map_with_keys_of_every_kind(heap):
    @compiled
    def total(m: Map[Item]) -> int:
        result = 0
        for item in m.values():
            result += item.number
        return result

    m = map(Item)
    m[1], m["1"], m[b"1"] = new(Item, 1), new(Item, 10), new(Item, 100)
    assert total(m) == 111


def test_values_may_be_arrays_and_maps(heap):
    @compiled
    def total(m: Map[int, Array[int]], deep: Map[int, Map[int, Item]]) -> int:
        result = 0
        for row in m.values():
            for i in range(len(row)):
                result += row[i]
        for inner in deep.values():
            for key, item in inner.items():
                result += key + item.number
        return result

    from gomp.runtime.arrays import array

    m, deep = map(int, Array[int]), map(int, Map[int, Item])
    m[1], m[2] = array(int, [1, 2, 3]), array(int, [4])
    deep[1] = map(int, Item)
    deep[1][1000] = new(Item, 10_000)
    assert total(m, deep) == 11_010


def test_a_walk_while_the_map_changes(heap):
    """Every key that stays is met once; what is removed before the walk comes to it is not met; what comes may be."""

    @compiled
    def walk(m: Map[int, Item], n: int) -> int:
        met = 0
        for key, item in m.items():
            if item.number < n:
                met += 1
            if key % 2 == 1 and key < n:
                for other in range(1, n, 2):
                    if other in m:
                        del m[other]
                        met -= other == key
            m[key + 10 * n] = new(Item, n)
        return met

    n = 400
    m = map(int, Item)
    for i in range(n):
        m[i] = new(Item, i)
    assert walk(m, n) == n // 2
    assert {k for k in m if k < n} == set(range(0, n, 2))


def test_a_walk_outlives_clear(heap):
    @compiled
    def walk(m: Map[int, Item]) -> int:
        met = 0
        for _key in m:
            m.clear()
            met += 1
        return met

    m = map(int, Item)
    for i in range(100):
        m[i] = new(Item)
    assert walk(m) == 100
    assert len(m) == 0


def test_views_have_a_length_and_breaks_and_nests_work(heap):
    @compiled
    def pairs(m: Map[int, Item]) -> int:
        n = 0
        for a in m:
            for b in m.keys():  # noqa: SIM118
                if b == a:
                    break
                n += 1
        return n * 1000 + len(m.keys()) + len(m.values()) + len(m.items())

    m = map(int, Item)
    for i in range(20):
        m[i] = new(Item)
    assert pairs(m) == 20 * 19 // 2 * 1000 + 60


def test_setdefault_get_and_pop_take_defaults(heap):
    @compiled
    def use(m: Map[int, Item], other: Item) -> int:
        if m.get(1, other) is not other or m.pop(1, other) is not other or m.pop(1, None) is not None:
            return 1
        mine = new(Item, 5)
        if m.setdefault(1, mine) is not mine or m.setdefault(1, other) is not mine or len(m) != 1:
            return 2
        if m.get(1, None) is not mine or m.get(1, other) is not mine or m.pop(1, other) is not mine:
            return 3
        return len(m)

    assert use(map(int, Item), new(Item)) == 0


def test_what_only_a_walk_holds_survives_collections(collected_heap):
    """The entries that a walk stands on are long out of the map, and its keys are new texts."""

    @compiled
    def walk(m: Map[str, Item], garbage: int) -> int:
        total = 0
        for name, item in m.items():
            m.clear()
            for _ in range(garbage):
                new(Item, 7)
            total += item.number + len(name)
        return total

    m = map(str, Item)
    for i in range(2000):
        m["x" * (i % 100)] = new(Item, 1)
    before = int(view(gcstats_dtype, GCSTATS)[0].num_gc)
    assert walk(m, 50_000) == 100 + sum(range(100))
    assert int(view(gcstats_dtype, GCSTATS)[0].num_gc) > before
    assert verify(3).problems == ()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda m: [k for k in m if k], r"declare it gomp.Map\[int, Item\], gomp.Map\[str, Item\] or gomp.Map\[bytes, Item\]"),
        (lambda m: len(m.items()), r"keys of a Map\[Item\] may be ints, texts and bytes"),
        (lambda m: map(float, Item), r"the keys of a map are int, str or bytes, not float"),
        (lambda m: m.get(1, 5), r"a default of a Map\[Item\] is a Item, not int64"),
    ],
)  # fmt: skip
def test_what_does_not_compile(heap, body, message):
    with pytest.raises(CompileError, match=message):
        compiled(body)(map(Item))


def test_keys_of_another_kind_do_not_compile(heap):
    @compiled
    def look(m: Map[str, Item]) -> bool:
        return 1 in m

    @compiled
    def walk(m: Map[str, Item]) -> None:
        for _ in m:
            pass

    @compiled
    def make() -> Map[bytes, Item]:
        m = map(bytes, Item)
        return m

    with pytest.raises(CompileError, match=r"a key of a Map\[str, Item\] is str, not int64"):
        look(map(str, Item))
    with pytest.raises(NilDereference, match="a walk over a map that is None"):
        walk(None)
    assert type(make()) is Map[bytes, Item]
    collect_now()
