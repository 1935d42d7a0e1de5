"""What one P does to a map between any two lines of what another does: as plain Python, where every line can be counted.

Runs with ``NUMBA_DISABLE_JIT=1``. Without ``--run-slow`` a part of the lines, the same ones each time.
"""

from __future__ import annotations

import random

import pytest
from heap_world import heap_world
from killed import kill_at, lines_of
from map_world import Maps, Refused

from gomp.core import COMPILED

if COMPILED:
    pytest.skip("needs NUMBA_DISABLE_JIT=1", allow_module_level=True)


def put_new(maps, p, m):
    maps.put(p, m, 500, 1)


def put_old(maps, p, m):
    maps.put(p, m, 3, 33)


def put_and_grow(maps, p, m):
    for key in range(600, 604):
        maps.put(p, m, key, 2)


def remove(maps, p, m):
    maps.remove(p, m, 3)


def remove_several(maps, p, m):
    for key in (2, 3, 4, 5):
        maps.remove(p, m, key)


def clear(maps, p, m):
    maps.clear(p, m)


WRITERS = {
    put_new: lambda d: d | {500: 1},
    put_old: lambda d: d | {3: 33},
    put_and_grow: lambda d: d | dict.fromkeys(range(600, 604), 2),
    remove: lambda d: {k: v for k, v in d.items() if k != 3},
    remove_several: lambda d: {k: v for k, v in d.items() if k not in (2, 3, 4, 5)},
    clear: lambda d: {},
}
FIRST = {key: key for key in range(14)}


def between_lines(one, other, points=40):
    """Run ``one`` as P 0 and, before each of its lines in turn, all of ``other`` as P 1. Yields (maps, map, what ``other`` gave)."""

    def scene(world):
        maps = Maps(world)
        made = maps.new(0)
        for key, number in FIRST.items():
            maps.put(0, made, key, number)
        return maps, made, world.hold(1, world.address(made))

    with heap_world(nprocs=2) as world:
        maps, made, _ = scene(world)
        total = len(lines_of(lambda: one(maps, 0, made)))
    for n in sorted(random.Random(3).sample(range(total), min(points, total))):
        with heap_world(nprocs=2) as world:
            maps, made, mine = scene(world)
            gave = []

            def interrupt(maps=maps, mine=mine, gave=gave, world=world):
                world.be(1)
                try:
                    gave.append(other(maps, 1, mine))
                except Refused:  # one of the two waits for the other's lock
                    gave.append(Refused)
                world.be(0)

            kill_at(lambda maps=maps, made=made: one(maps, 0, made), n, interrupt)
            if gave == [Refused]:
                gave[0] = other(maps, 1, mine)
            yield maps, made, gave[0]
            world.verify()


@pytest.mark.parametrize("other", WRITERS)
@pytest.mark.parametrize("one", WRITERS)
def test_two_writers(one, other, pytestconfig):
    """The result is that of the one after the other."""
    points = 400 if pytestconfig.getoption("--run-slow") else 5
    either = [WRITERS[one](WRITERS[other](FIRST)), WRITERS[other](WRITERS[one](FIRST))]
    several = [] if one not in (put_and_grow, remove_several) else [WRITERS[one](FIRST)]
    for maps, made, _ in between_lines(one, other, points):
        contents = maps.contents(0, made)
        if several:  # not one operation: each of its parts may come before the other or after it
            assert contents.items() <= either[0].items() | either[1].items()
        else:
            assert contents in either


@pytest.mark.parametrize("writer", [w for w in WRITERS if w is not clear])
def test_a_walk_while_another_writes(writer, pytestconfig):
    """Before each line of a walk, the writer; before each line of the writer, a walk. What is there all the time is met once."""
    points = 400 if pytestconfig.getoption("--run-slow") else 12
    after = WRITERS[writer](FIRST)
    always = {key for key in FIRST if key in after}
    for direction in ((writer, walk), (walk_into, writer)):
        for maps, _, gave in between_lines(*direction, points=points):
            pairs = gave if direction[1] is walk else maps.walked
            keys = [key for key, _ in pairs]
            assert len(set(keys)) == len(keys)
            assert always <= set(keys) <= set(FIRST) | set(after)
            assert all(number in (FIRST.get(key), after.get(key)) for key, number in pairs)


def walk(maps, p, m):
    return maps.walk(p, m)


def walk_into(maps, p, m):
    maps.walked = maps.walk(p, m)
