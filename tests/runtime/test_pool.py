"""``gomp.Pool``: what sync.Pool of Go 1.27 was seen to do, step by step; from Python and from compiled code."""

from __future__ import annotations

import pickle

import pytest
from kernel_heap import collect_now

import gomp
from gomp.core.jit import COMPILED
from gomp.core.shm import layout
from gomp.errors import OutOfMemory
from gomp.runtime import pool as pools
from gomp.runtime.arrays import Array, array
from gomp.runtime.compiled import compiled
from gomp.runtime.hashmap import map  # noqa: A004
from gomp.runtime.kinds import uint8
from gomp.runtime.pool import Pool
from gomp.runtime.structs import new, struct
from gomp.runtime.verify import verify


@struct
class Item:
    number: int


@compiled
def make() -> Item:
    return new(Item, -1)


POOL = Pool(make)
EMPTY = Pool(None, of=Item, name="empty")
STRUCTS = Pool(Item, name="structs")
LAST = Pool(Item, name="one too many")


def got(pool=POOL):
    value = pool.get()
    return None if value is None else value.number


def put(*numbers, pool=POOL):
    for number in numbers:
        pool.put(new(Item, number))


def test_basic(heap):
    """Probe pool_basic: a value survives one collection and is gone after two; used in between, its life begins again."""
    assert got() == -1
    put(1)
    assert got() == 1
    put(2)
    collect_now()
    assert got() == 2
    put(3)
    collect_now()
    collect_now()
    assert got() == -1
    put(4)
    collect_now()
    POOL.put(POOL.get())
    collect_now()
    assert got() == 4
    POOL.put(None)
    assert got() == -1
    assert got(EMPTY) is None
    assert got(STRUCTS) == 0


def test_order(heap):
    """Probe pool_order: the private one first, then the newest; after a collection the oldest; fresh ones before victims."""
    put(1, 2, 3, 4, 5, 6, pool=EMPTY)
    assert [got(EMPTY) for _ in range(7)] == [1, 6, 5, 4, 3, 2, None]
    put(1, 2, 3, 4, 5, 6, pool=EMPTY)
    collect_now()
    assert [got(EMPTY) for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    put(1, 2, 3, 4, 5, 6, pool=EMPTY)
    collect_now()
    put(100, 101, pool=EMPTY)
    assert [got(EMPTY) for _ in range(8)] == [100, 101, 1, 2, 3, 4, 5, 6]
    put(1, 2, 3, 4, 5, 6, pool=EMPTY)
    collect_now()
    assert got(EMPTY) == 1
    collect_now()
    assert got(EMPTY) is None


@pytest.mark.parametrize(("collections", "left"), [(0, 10_000), (1, 10_000), (2, 0)])
def test_many_items(heap, collections, left):
    """Probe pool_many_items_survive."""
    n = 10_000 if COMPILED else 100
    put(*range(n), pool=EMPTY)
    for _ in range(collections):
        collect_now()
    assert verify(3).problems == ()
    numbers = set()
    while (number := got(EMPTY)) is not None:
        numbers.add(number)
    assert numbers == (set(range(n)) if left else set())
    stats = EMPTY.stats()
    assert (stats.hits, stats.misses, stats.drops) == (len(numbers), 1, 0)
    assert stats.victim_hits == (n if collections == 1 else 0)


def test_what_is_dropped_is_garbage(heap):
    put(*range(50), pool=EMPTY)
    collect_now()
    assert verify(3).objects >= 3
    before = EMPTY.stats().evictions
    collect_now()
    assert EMPTY.stats().evictions - before == 50
    report = verify(3)
    assert report.problems == ()
    assert report.objects == report.reached
    assert got(EMPTY) is None


def test_large_ones_are_dropped(heap):
    pool = Pool(None, of=type(array(int, 1)), name="arrays", max_bytes=1024)
    pool.put(array(int, 1000))
    assert pool.get() is None
    pool.put(array(int, 100))
    assert len(pool.get()) == 100
    assert pool.stats().drops == 1


def test_putting_never_fails(heap, monkeypatch):
    """As Go's: what there is no memory to keep is dropped, and counted."""

    def refuse(*args):
        raise OutOfMemory("full")

    pool = Pool(Item, name="full")
    monkeypatch.setattr(pools, "new_links", refuse)
    put(1, 2, 3, pool=pool)
    assert pool.stats().drops == 2
    assert [got(pool), got(pool)] == [1, 0]


def test_what_counts_is_the_memory_that_an_object_takes(heap):
    pool = Pool(None, of=Array[uint8], name="octets", max_bytes=1 << 16)
    for n, drops in ((65_528, 0), (65_529, 1)):
        pool.put(array(uint8, n))
        assert pool.stats().drops == drops


def test_two_pools_of_one_line_are_two(heap):
    small, large = Pool(Item), Pool(Item, max_bytes=1 << 20)
    assert small.name != large.name
    small.put(new(Item, 1))
    assert large.get().number == 0


def test_errors(heap):
    with pytest.raises(TypeError, match="pool 'empty' holds a Item or None, not Map"):
        EMPTY.put(map())
    with pytest.raises(TypeError, match=r"gomp.Pool wants a struct, or a function"):
        Pool(lambda: 1)
    with pytest.raises(ValueError, match="a pool's name is a string of 1 to 32 bytes"):
        Pool(Item, name="x" * 33)
    with pytest.raises(TypeError, match="pool 'empty' holds another type than Map: give one of them another name"):
        Pool(None, of=type(map()), name="empty")
    assert pickle.loads(pickle.dumps(EMPTY)).name == "empty"
    with pytest.raises(TypeError, match=r"pool 'wrong': .* gave a int, not a Item"):
        Pool(lambda: 3, of=Item, name="wrong").get()


def test_a_class_that_is_declared_again_is_another_if_its_fields_are(heap):
    def declare(**fields):
        return gomp.struct(type("Again", (), {"__annotations__": fields, "__module__": __name__}))

    first, same, other = declare(a=int), declare(a=int), declare(a=int, b=int)
    Pool(first, name="again").put(new(first, 1))
    assert Pool(same, name="again").get().a == 1
    pool = Pool(other, name="again")
    with pytest.raises(TypeError, match="pool 'again' holds another type than Again"):
        pool.get()


if COMPILED:

    def test_compiled(heap):
        @compiled
        def cycle(n: int) -> int:
            total = 0
            for i in range(n):
                item = POOL.get()
                total += item.number
                item.number = i
                POOL.put(item)
            return total

        assert cycle(100) == -1 + sum(range(99))
        assert POOL.stats().hits == 99

        @compiled
        def many(n: int) -> int:
            for i in range(n):
                EMPTY.put(new(Item, i))
            EMPTY.put(None)
            taken = 0
            while EMPTY.get() is not None:
                taken += 1
            return taken + STRUCTS.get().number

        assert many(5000) == 5000


@pytest.mark.skipif(not COMPILED, reason="programs exist only in machine code")
def test_one_pool_too_many_is_told_how_many_there_may_be(heap):
    @compiled
    def use() -> int:
        LAST.put(new(Item))
        return 1

    for i in range(layout.MAX_POOLS):
        Pool(Item, name=f"one of many {i}").get()
    problem = "pool 'one too many': a runtime has 64 pools at most; give those of one class one name"
    for attempt in (LAST.get, use):
        with pytest.raises(gomp.OutOfMemory, match=problem):
            attempt()
