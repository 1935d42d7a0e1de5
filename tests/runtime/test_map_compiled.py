"""``gomp.map`` in compiled code: the same maps, and errors that say what is wrong."""

from __future__ import annotations

import random

import pytest
from kernel_heap import collect_now

from gomp.core.shm.records import GCSTATS, gcstats_dtype, view
from gomp.errors import CompileError, NilDereference
from gomp.runtime.compiled import compiled
from gomp.runtime.hashmap import Map, map  # noqa: A004
from gomp.runtime.structs import new, struct
from gomp.runtime.texts import Bytes, Str, bytes_, str_
from gomp.runtime.verify import verify


@struct
class Item:
    number: int


@struct
class Owner:
    items: Map[Item]


@compiled
def change(m: Map[Item], key: int, number: int) -> int:
    if number < 0:
        if key in m:
            del m[key]
            return 1
        return 0
    m[key] = new(Item, number)
    return len(m)


def test_it_agrees_with_a_dict_and_with_python(heap):
    m = map(Item)
    model = {}
    rng = random.Random(8)
    for i in range(5000):
        key = rng.choice([rng.randrange(700), rng.randrange(-(1 << 63), 1 << 63)])
        if rng.random() < 0.3:
            assert change(m, key, -1) == (model.pop(key, None) is not None)
        else:
            model[key] = i
            assert change(m, key, i) == len(model)
        if i % 1000 == 0:
            collect_now()
    assert {key: item.number for key, item in m.items()} == model
    assert verify(3).problems == ()


def test_every_operation(heap):
    @compiled
    def use(n: int) -> int:
        m = map(Item)
        if m:
            return 1
        for i in range(n):
            m[i] = new(Item, i)
        for i in range(n):
            if m[i].number != i or m.get(i).number != i:
                return 2
        for i in range(0, n, 2):
            if m.pop(i).number != i or m.pop(i, None) is not None or m.get(i) is not None:
                return 3
        if len(m) != n // 2 or not m:
            return 4
        m.clear()
        if len(m) != 0 or 1 in m:
            return 5
        return 0

    assert use(3000) == 0


def test_a_map_in_a_field_and_as_a_result(heap):
    @compiled
    def fill(owner: Owner, n: int) -> Map[Item]:
        if owner.items is None:
            owner.items = map(Item)
        for i in range(n):
            owner.items[i] = new(Item, 2 * i)
        return owner.items

    owner = new(Owner)
    made = fill(owner, 20)
    assert type(made) is Map[Item]
    assert made == owner.items
    assert made[7].number == 14


def test_texts_are_keys(heap):
    @compiled
    def count(m: Map[Item], key: Str, other: Bytes) -> int:
        if key not in m:
            m[key] = new(Item, 0)
        m[key].number += 1
        m[other] = m[key]
        return m.get(key).number

    m = map(Item)
    for n in (0, 1, 7, 8, 9, 1000):
        text = "ä" * n
        assert count(m, str_(text), bytes_(text.encode())) == 1
        assert count(m, str_(text), bytes_(text.encode())) == 2
        assert m[text] == m[text.encode()]
    assert len(m) == 12
    with pytest.raises(ValueError, match="a key has at most 65536 bytes"):
        count(m, str_("k" * 65537), bytes_(b""))
    with pytest.raises(NilDereference, match="a key that is None"):
        count(m, None, bytes_(b""))


def test_identity_and_none(heap):
    @compiled
    def same(a: Map[Item], b: Map[Item]) -> int:
        return (a is b) + 10 * (a == b) + 100 * (b is None)

    m = map(Item)
    assert (same(m, m), same(m, map(Item)), same(m, None)) == (11, 0, 100)


def test_errors(heap):
    @compiled
    def look(m: Map[Item], key: int) -> int:
        return m[key].number

    @compiled
    def remove(m: Map[Item], key: int) -> None:
        del m[key]

    @compiled
    def take(m: Map[Item], key: int) -> int:
        return m.pop(key).number

    @compiled
    def put(m: Map[Item], item: Item) -> None:
        m[1] = item

    m = map(Item)
    for use in (look, remove, take):
        with pytest.raises(KeyError, match="the key is not in the map"):
            use(m, 5)
    with pytest.raises(NilDereference, match="a map that is None"):
        look(None, 5)
    with pytest.raises(NilDereference, match="None is no value of a map"):
        put(m, None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda m, item: m.get(1.5), r"a key of a Map\[Item\] cannot be float64 in compiled code"),
        (lambda m, item: m.update(m), "update is a method"),
        (lambda m, item: map(), r"write gomp.map\(T\)"),
    ],
)
def test_what_does_not_compile(heap, body, message):
    with pytest.raises(CompileError, match=message):
        compiled(body)(map(Item), new(Item))


def test_what_is_in_a_map_without_a_class_is_unknown(heap):
    @compiled
    def look(m: Map) -> None:
        m.get(1)

    @compiled
    def count(m: Map) -> int:
        if 1 in m:
            del m[1]
        return len(m)

    m = map()
    m[1], m[2] = new(Item), m
    with pytest.raises(CompileError, match="what a map holds is unknown here"):
        look(m)
    assert count(m) == 1


def test_what_only_a_map_holds_survives_collections(collected_heap):
    @compiled
    def churn(rounds: int, n: int) -> int:
        m = map(Item)
        for r in range(rounds):
            for i in range(n):
                key = (i * 7919 + r) % (2 * n)
                m[key] = new(Item, key)
                gone = (i * 104729 + r) % (2 * n)
                if gone in m:
                    if m[gone].number != gone:
                        return -1
                    del m[gone]
        return len(m)

    before = int(view(gcstats_dtype, GCSTATS)[0].num_gc)
    assert churn(30, 10_000) > 0
    assert int(view(gcstats_dtype, GCSTATS)[0].num_gc) > before
