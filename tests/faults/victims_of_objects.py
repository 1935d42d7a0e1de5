"""What a P is killed in: finalizers, cleanups and weak pointers, maps, pools. As in ``victims``."""

from __future__ import annotations

import ctypes

from map_world import Maps
from special_world import Lifetimes
from victims import SURVIVOR, VICTIM, in_kernel

from gomp.core.gc import sweep
from gomp.core.mutator import lifetimes as specials
from gomp.core.mutator import pool, weak
from gomp.core.mutator.hashmap import TABLE_TYPE
from gomp.core.sched.status import OK
from gomp.core.shm import layout, records
from gomp.core.shm.records import GC_TRIGGER_HEAP


def finalizers_set_and_cleared(world):
    x, key = Lifetimes(world), world.struct_type(64, (0,))
    a, b = world.new(VICTIM, 64, key), world.new(VICTIM, 600)
    theirs = world.new(SURVIVOR, 64)
    x.finalizer(theirs, 1)
    world.expected = [("finalizer", 1)]
    also_mine = world.hold(VICTIM, world.address(theirs))
    world.drop(theirs)
    world.begin_marking()

    def body():
        x.finalizer(a, 2)
        x.finalizer(b, 3)
        assert specials.clear_finalizer(a[1], 0) == 2
        x.finalizer(a, 4)
        assert x.finalizer(also_mine, 5) == specials.ALREADY_SET

    return body


def cleanups_added_and_stopped(world):
    x = Lifetimes(world)
    theirs = world.new(SURVIVOR, 64)
    x.cleanup(theirs, 1)
    world.expected = [("cleanup", 1)]
    mine = world.hold(VICTIM, world.address(theirs))
    world.drop(theirs)

    def body():
        added = [x.cleanup(mine, 10 + n) for n in range(3)]
        assert specials.stop_cleanup(added[1], 11) == 1

    return body


def weak_pointers(world):
    x = Lifetimes(world)
    root = world.new(VICTIM, 64)
    world.begin_marking()
    world.scan_p(VICTIM)

    def body():
        box = x.weak(root)
        assert x.value(box)
        assert x.value(x.weak(root, 8))

    return body


def weak_pointers_of_programs(world):
    """Not while the heap is marked: a program that allocates would wait for credit."""
    addr = world.address(world.new(VICTIM, 64))

    def body():
        box = weak.weak_waiting(addr)
        assert weak.weak_waiting(addr) == box
        assert weak.weak_value_waiting(box) == addr
        assert weak.weak_waiting(addr + 8) != box

    return in_kernel(world, body)


def things_with_specials(x, p, numbers):
    """Objects of several sizes that die with a finalizer, a cleanup or both, and the survivor's weak handles of them."""
    world, boxes = x.world, []
    for n in numbers:
        root = world.new(p, (5, 64, 600, 40_000)[n % 4])
        if n % 3 != 0:
            x.finalizer(root, n, 1)
        if n % 3 != 1:
            x.cleanup(root, n)
            x.cleanup(root, 100 + n)
        boxes.append(x.weak(world.hold(SURVIVOR, world.address(root))))
        world.drop(root)
    for slot, addr in enumerate(world.handles(SURVIVOR)):  # held for the weak handle only
        if addr in [boxed(world, box) for box in boxes]:
            world.drop((SURVIVOR, slot))
    return boxes


def boxed(world, box):
    return ctypes.c_int64.from_address(world.address(box)).value


def sweep_of_specials(world):
    """What dies is the survivor's: whoever sweeps, each of its functions runs once."""
    x = Lifetimes(world)
    things_with_specials(x, SURVIVOR, range(8))
    world.expected = [("finalizer", n) for n in range(8) if n % 3 != 0]
    world.expected += [("cleanup", n + k) for n in range(8) if n % 3 != 1 for k in (0, 100)]
    world.collect(GC_TRIGGER_HEAP)
    return in_kernel(world, lambda: sweep.sweep_step(1000))


def specials_lost(world):
    """What dies was registered by a process that is gone: whoever sweeps, each of its functions is counted once."""
    x = Lifetimes(world)
    things_with_specials(x, SURVIVOR, range(8))
    world.ps[SURVIVOR].epoch += 1
    world.collect(GC_TRIGGER_HEAP)

    def check():
        world.collect()
        everybody = [*world.ps, records.view(records.p_dtype, layout.p_addr(layout.COORDINATOR_P))[0]]
        assert sum(p.special_lost for p in everybody).tolist() == [5, 10]

    world.also_check = check
    return in_kernel(world, lambda: sweep.sweep_step(1000))


def finalizers_run(world):
    x = Lifetimes(world)
    things_with_specials(x, VICTIM, range(6))
    world.collect()
    return lambda: x.run(VICTIM)


def map_with(world, n):
    """A map of the survivor, and what each P has of it; the survivor checks that what is in it is what was put there."""
    maps = Maps(world)
    made = maps.new(SURVIVOR)
    for key in range(n):
        maps.put(SURVIVOR, made, key, key)

    def check():
        contents = maps.contents(SURVIVOR, made)
        assert all(number in (key, key + 100) for key, number in contents.items())
        assert {key: maps.get(SURVIVOR, made, key) for key in contents} == contents
        maps.put(SURVIVOR, made, 50, 50)
        assert maps.remove(SURVIVOR, made, 50) == 50

    world.also_check = check
    return maps, world.hold(VICTIM, world.address(made))


def map_insertions(world):
    maps, mine = map_with(world, 6)
    return lambda: [maps.put(VICTIM, mine, key, key) for key in range(6, 12)]


def map_growth(world):
    maps, mine = map_with(world, 15)
    return lambda: [maps.put(VICTIM, mine, key, key) for key in range(15, 19)]


def map_replacements_and_removals(world):
    maps, mine = map_with(world, 12)
    return lambda: [(maps.put(VICTIM, mine, key, key + 100), maps.remove(VICTIM, mine, key + 1)) for key in (2, 6)]


def map_changes_while_marking(world):
    maps, mine = map_with(world, 15)
    world.begin_marking()
    world.scan_p(VICTIM)

    def body():
        maps.put(VICTIM, mine, 15, 15)
        maps.put(VICTIM, mine, 16, 16)
        maps.remove(VICTIM, mine, 3)

    return body


def map_cleared(world):
    maps, mine = map_with(world, 12)
    return lambda: maps.clear(VICTIM, mine)


def pool_use(world):
    """Both have put things into a pool; the victim takes, steals, puts more than its ring holds. Nothing in it is ever given to two."""
    Maps(world)
    root = world.new(SURVIVOR, 16)
    assert pool.bind_pool(1, 2, 3, 4, 77, 0) == 0

    def put(p, number):
        made = Maps(world).value(p, number)
        status = pool.pool_put(0, made[1])
        if status > 1:
            ring = world.new_array(p, status, TABLE_TYPE)
            assert pool.pool_grow(0, ring[1]) == OK
            world.drop(ring)
            assert pool.pool_put(0, made[1]) == OK
        world.drop(made)

    def get(p):
        world.be(p)
        slot = world._free_slot(p)
        if pool.pool_get(0, slot) != OK:
            world._free[p].append(slot)
            return None
        return p, slot

    for i in range(3):
        put(SURVIVOR, i)
    for i in range(3, 10):
        put(VICTIM, i)

    def body():
        get(VICTIM), get(VICTIM)
        for i in range(10, 14):
            put(VICTIM, i)
        for _ in range(12):
            get(VICTIM)

    def check():
        taken = []
        while (mine := get(SURVIVOR)) is not None:
            taken.append(mine)
        addresses = [world.address(mine) for mine in taken]
        assert len(set(addresses)) == len(addresses)
        assert all(0 <= ctypes.c_int64.from_address(a).value < 14 for a in addresses)
        for mine in taken:
            world.drop(mine)

    world.drop(root)
    world.also_check = check
    return body


def pool_use_while_marking(world):
    body = pool_use(world)
    world.begin_marking()
    world.scan_p(VICTIM)
    return body


def sample_all(world):
    records.view(records.memprofile_dtype, records.MEMPROFILE)[0].rate = 1


def objects_sampled(world):
    sample_all(world)
    return lambda: [world.new(VICTIM, size) for size in (5, 64, 64, 600, 40_000)]


def sweep_of_sampled(world):
    """Whoever sweeps, each of them is counted as dead once."""
    sample_all(world)
    for size in (5, 64, 600, 40_000):
        for p in (SURVIVOR, VICTIM):
            world.new(p, size)
            world.drop(world.new(p, size))
    things_with_specials(Lifetimes(world), SURVIVOR, (1, 2))
    world.expected = [("cleanup", 2), ("cleanup", 102), ("finalizer", 1), ("finalizer", 2)]
    world.collect(GC_TRIGGER_HEAP)
    return in_kernel(world, lambda: sweep.sweep_step(1000))


SCENARIOS = (
    finalizers_set_and_cleared, cleanups_added_and_stopped, weak_pointers, weak_pointers_of_programs, sweep_of_specials, finalizers_run,
    map_insertions, map_growth, map_replacements_and_removals, map_changes_while_marking, map_cleared, pool_use,
    pool_use_while_marking,
)  # fmt: skip
SLOW_SCENARIOS = (specials_lost, objects_sampled, sweep_of_sampled)
