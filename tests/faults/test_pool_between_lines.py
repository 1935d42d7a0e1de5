"""What one P does to a pool between any two lines of what another does: as plain Python, where every line can be counted.

Runs with ``NUMBA_DISABLE_JIT=1``. Without ``--run-slow`` a part of the lines, the same ones each time.
"""

from __future__ import annotations

import random

import pytest
from heap_world import heap_world
from killed import kill_at, lines_of
from map_world import Maps

from gomp.core import COMPILED
from gomp.core.mutator import pool
from gomp.core.mutator.hashmap import TABLE_TYPE
from gomp.core.sched.status import OK

if COMPILED:
    pytest.skip("needs NUMBA_DISABLE_JIT=1", allow_module_level=True)


class Pooled:
    """A pool of numbered objects, and what each P has taken of it."""

    def __init__(self, world):
        self.world, self.maps = world, Maps(world)
        self.taken = []
        assert pool.bind_pool(1, 2, 3, 4, 77, 0) == 0

    def put(self, p, *numbers):
        for number in numbers:
            made = self.maps.value(p, number)
            length = pool.pool_put(0, made[1])
            if length > 1:
                ring = self.world.new_array(p, length, TABLE_TYPE)
                assert pool.pool_grow(0, ring[1]) == OK
                self.world.drop(ring)
                assert pool.pool_put(0, made[1]) == OK
            self.world.drop(made)

    def get(self, p, times=100):
        for _ in range(times):
            self.world.be(p)
            slot = self.world._free_slot(p)
            if pool.pool_get(0, slot) != OK:
                return
            self.taken.append(self.world.address((p, slot)))


def takes(pooled):
    pooled.get(0, 4)


def puts(pooled):
    pooled.put(0, 20, 21)


def grows(pooled):
    pooled.put(0, *range(30, 36))


def takes_and_puts(pooled):
    pooled.get(0, 2)
    pooled.put(0, 40)
    pooled.get(0, 1)


def steals_one(pooled):
    pooled.get(1, 1)


def steals_all(pooled):
    pooled.get(1)


@pytest.mark.parametrize("thief", [steals_one, steals_all])
@pytest.mark.parametrize("owner", [takes, puts, grows, takes_and_puts])
def test_nothing_is_given_to_two_and_nothing_is_lost(owner, thief, pytestconfig):
    def scene(world):
        pooled = Pooled(world)
        pooled.put(0, *range(7))
        return pooled

    with heap_world(nprocs=2) as world:
        pooled = scene(world)
        total = len(lines_of(lambda: owner(pooled)))
    points = 1000 if pytestconfig.getoption("--run-slow") else 25
    for n in sorted(random.Random(4).sample(range(total), min(points, total))):
        with heap_world(nprocs=2) as world:
            pooled = scene(world)
            made = 7 + {puts: 2, grows: 6, takes_and_puts: 1}.get(owner, 0)

            def interrupt(pooled=pooled, world=world):
                thief(pooled)
                world.be(0)

            kill_at(lambda pooled=pooled: owner(pooled), n, interrupt)
            pooled.get(0)
            pooled.get(1)
            assert len(set(pooled.taken)) == len(pooled.taken) == made, n
            world.verify()
