"""Compiled walks over a map that other processes change: every key that stays is met once in each."""

from __future__ import annotations

import time

import pytest

import gomp
from gomp.core import COMPILED

pytestmark = pytest.mark.skipif(not COMPILED, reason="programs exist only in machine code")

STAYING, COMING = 500, 5000


@gomp.struct
class Item:
    number: int


SHARED = gomp.Global("map_walks.shared", gomp.Map[int, Item])


@gomp.compiled
def wrong_walks(m: gomp.Map[int, Item], rounds: int) -> int:
    """In how many of the walks the keys that stay are not met once each, or a value is another key's."""
    wrong = 0
    for _ in range(rounds):
        met, total = 0, 0
        for key, item in m.items():
            if key < STAYING:
                met += 1
                total += key
            if item.number != key:
                wrong += 1
        if met != STAYING or total != STAYING * (STAYING - 1) // 2:
            wrong += 1
    return wrong


@gomp.compiled
def change(m: gomp.Map[int, Item], rounds: int) -> int:
    for _ in range(rounds):
        for key in range(STAYING, STAYING + COMING):
            m[key] = gomp.new(Item, key)
        for key in range(STAYING):
            m[key] = gomp.new(Item, key)
        for key in range(STAYING, STAYING + COMING):
            del m[key]
    return len(m)


def walk_for(seconds: float) -> tuple[int, int]:
    walks, wrong, until = 0, 0, time.monotonic() + seconds
    while time.monotonic() < until:
        wrong += wrong_walks(SHARED.get(), 20)
        walks += 20
    return walks, wrong


def change_for(seconds: float) -> int:
    rounds, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        assert change(SHARED.get(), 2) == STAYING
        rounds += 2
    return rounds


def test_what_stays_is_met_once_in_every_walk() -> None:
    with gomp.Runtime(procs=2, gogc=30, max_heap="256MiB") as rt:
        shared = gomp.map(int, Item)
        for key in range(STAYING):
            shared[key] = gomp.new(Item, key)
        SHARED.set(shared)
        rt.run(walk_for, 0.0), rt.run(change_for, 0.0)
        changing, walking = rt.go(change_for, 1.5), rt.go(walk_for, 1.5)
        for _ in range(10):
            gomp.gc()
            time.sleep(0.1)
        walks, wrong = walking.wait(60)
        assert changing.wait(60) > 0
        assert (walks > 0, wrong) == (True, 0)
        assert wrong_walks(shared, 1) == 0
        rt.verify(3)


def test_maps_of_one_kind_of_keys_are_sent() -> None:
    with gomp.Runtime(procs=1) as rt:

        def names(m: gomp.Map[str, Item]) -> list[str]:
            gomp.globals["map_walks.names"] = m
            return sorted(m)

        m = gomp.map(str, Item)
        m["a"], m["b"] = gomp.new(Item, 1), gomp.new(Item, 2)
        assert rt.run(names, m) == ["a", "b"]
        assert rt.run(lambda cls, m: type(m) is cls, gomp.Map[str, Item], m)
        assert type(gomp.globals["map_walks.names"]) is gomp.Map[str, Item]
