"""A P is killed before each line of what it does, as plain Python; what the others have is intact, and what only it had is free again.

Runs with ``NUMBA_DISABLE_JIT=1``. Without ``--run-slow`` a part of the lines, the same ones each time. A failure names the scenario and the number of
the line: ``lines_of`` gives the line itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import random
import signal
from dataclasses import dataclass

import pytest
from heap_world import heap_world
from killed import kill_at, lines_of, some_of
from map_world import Maps
from special_world import Lifetimes

from gomp.core import COMPILED
from gomp.core.gc import assist, pacer, ragged, rebuild, repair, scavenger, sweep, wbbuf, worker
from gomp.core.heap import scavenge
from gomp.core.heap.accounting import mapped_ready
from gomp.core.mutator import boundary, pool, transit
from gomp.core.mutator import lifetimes as specials
from gomp.core.mutator.hashmap import TABLE_TYPE
from gomp.core.mutator.lifecycle import init_p
from gomp.core.mutator.types import publish_type, reserve_mask
from gomp.core.sched.status import OK, enter, leave
from gomp.core.shm import layout, records
from gomp.core.shm.records import GC_TRIGGER_HEAP

if COMPILED:
    pytest.skip("needs NUMBA_DISABLE_JIT=1", allow_module_level=True)

SURVIVOR, VICTIM = 0, 1
SEAL = b"seal" * 14
SIZES = (8, 16, 64, 512, 600, 3000, 40_000)
POINTS = 12  # of a scenario, in the short run


class Kept:
    """What the survivor holds: a chain of objects of every size, each with the address of the one before and bytes to be recognised by.

    Only the last has a handle: the rest of the chain is as lost as any one of it.
    """

    def __init__(self, world, rng, count):
        self.world = world
        self.rests = []
        self.last = None
        for i in range(count):
            size = SIZES[i % len(SIZES)]
            root = world.new(SURVIVOR, size, world.struct_type(size, (0,)))
            if self.last:
                world.be(SURVIVOR)
                assert boundary.write_reference(root[1], 0, self.last[1]) == OK
                world.drop(self.last)
            self.last = root
            rest = rng.randbytes(size - 8)
            ctypes.memmove(world.address(root) + 8, rest, len(rest))
            self.rests.append(rest)

    def check(self):
        at = self.world.address(self.last)
        for rest in reversed(self.rests):
            assert ctypes.string_at(at + 8, len(rest)) == rest
            at = ctypes.c_int64.from_address(at).value
        assert at == 0


# --- what the victim does ---------------------------------------------------------------------------------------------


def in_kernel(world, body):
    def entered():
        world.be(VICTIM)
        assert enter() == OK
        body()
        leave()

    return entered


def fill(world, p, size, n, key=0):
    return [world.new(p, size, key) for _ in range(n)]


def small_in_a_fresh_span(world):
    return lambda: fill(world, VICTIM, 64, 2)


def small_in_the_next_window(world):
    fill(world, VICTIM, 16, 64)
    return lambda: fill(world, VICTIM, 16, 2)


def the_last_of_a_span(world):
    fill(world, VICTIM, 2048, 4)
    return lambda: fill(world, VICTIM, 2048, 2)


def small_with_references(world):
    key = world.struct_type(48, (1, 3))
    return lambda: fill(world, VICTIM, 48, 3, key)


def typed_by_a_header(world):
    key = world.struct_type(1000, (0, 124))
    return lambda: fill(world, VICTIM, 1000, 2, key)


def tiny(world):
    return lambda: [world.new(VICTIM, size) for size in (1, 2, 4, 8, 8, 3)]


def refill_from_a_swept_span(world):
    roots = fill(world, VICTIM, 512, 40)
    for root in roots[::2]:
        world.drop(root)
    world.collect()
    return lambda: fill(world, VICTIM, 512, 20)


def refill_by_sweeping(world):
    roots = fill(world, VICTIM, 512, 40)
    for root in roots[::2]:
        world.drop(root)
    world.collect(GC_TRIGGER_HEAP)
    return lambda: fill(world, VICTIM, 512, 20)


def sweep_many(world):
    for size in SIZES:
        for root in fill(world, VICTIM, size, 30)[::3]:
            world.drop(root)
    for root in fill(world, VICTIM, 64, 200):
        world.drop(root)
    world.collect(GC_TRIGGER_HEAP)
    return in_kernel(world, lambda: sweep.sweep_step(1000))


def large(world):
    return lambda: fill(world, VICTIM, 100_000, 2)


def large_with_references(world):
    key = world.struct_type(100_000, (5, 9000))
    return lambda: fill(world, VICTIM, 100_000, 1, key)


def large_where_something_was(world):
    world.drop(world.new(VICTIM, 300_000))
    world.collect(GC_TRIGGER_HEAP)
    return lambda: fill(world, VICTIM, 200_000, 1)


def growth(world):
    return lambda: fill(world, VICTIM, 450 * layout.PAGE_SIZE, 2)


def handles(world):
    def body():
        world.be(VICTIM)
        assert boundary.grow_handles(20_000) >= 0

    return body


def names(world):
    root = world.new(VICTIM, 64)
    return lambda: name_something(world, root, 4711)


def name_something(world, root, number):
    world.be(VICTIM)
    idx = boundary.add_global(number, 2, 3, 4, 5, 6)
    assert boundary.write_global(idx, root[1], number) == OK
    mask = reserve_mask(3)
    assert publish_type(number, 1600, 1600, 0, mask) > 0


def stores_while_marking(world):
    key = world.struct_type(64, (0, 1))
    roots = fill(world, VICTIM, 64, 6, key)
    world.begin_marking()

    def body():
        world.be(VICTIM)
        for a, b in zip(roots, roots[1:] + roots[:1], strict=True):
            assert boundary.write_reference(a[1], 0, b[1]) == OK
        enter()
        wbbuf.flush_own()
        leave()
        fill(world, VICTIM, 64, 2, key)

    return body


def moves_while_marking(world):
    """The only reference to what the survivor reads afterwards is moved from object to object."""
    key = world.struct_type(64, (0, 1))
    holder, other = world.new(SURVIVOR, 64, key), world.new(SURVIVOR, 64, key)
    moved = world.new(SURVIVOR, 64, key)
    world.be(SURVIVOR)
    assert boundary.write_reference(holder[1], 0, moved[1]) == OK
    world.drop(moved)
    mine = [world.hold(VICTIM, world.address(root)) for root in (holder, other)]
    world.begin_marking()
    world.scan_p(VICTIM)

    def body():
        world.be(VICTIM)
        slot = world._free_slot(VICTIM)
        assert boundary.read_reference(mine[0][1], 0, slot) == OK
        assert boundary.write_reference(mine[0][1], 0, boundary.NO_SLOT) == OK
        assert boundary.write_reference(mine[1][1], 0, slot) == OK

    return body


def marking(world):
    world.begin_marking()
    world.scan_p(SURVIVOR)
    return in_kernel(world, lambda: worker.drain(1 << 40))


def marking_with_work_given_away(world):
    fill(world, VICTIM, 600, 300, world.struct_type(600, (0,)))
    world.begin_marking()

    def body():
        ragged.publish_grey(layout.p_addr(VICTIM))
        worker.drain(1 << 40)

    return in_kernel(world, body)


def allocating_while_marking(world):
    key = world.struct_type(64, (0,))
    world.begin_marking()
    return lambda: fill(world, VICTIM, 64, 130, key)


def in_transit(world):
    """(slot, ticket, number) of an object that the survivor has sent, and does not hold otherwise."""
    root = world.new(SURVIVOR, 64, world.struct_type(64, (0,)))
    ctypes.memmove(world.address(root) + 8, SEAL, len(SEAL))
    slot, ticket = world._free_slot(SURVIVOR), world._free_slot(SURVIVOR)
    number = transit.send_reference(root[1], slot, ticket)
    assert number > 0
    world.drop(root)
    return slot, ticket, number


def receiving_while_marking(world):
    sent = in_transit(world)
    into = world._free_slot(VICTIM)
    world.begin_marking()
    world.scan_p(VICTIM)

    def body():
        world.be(VICTIM)
        assert transit.receive_reference(SURVIVOR, *sent, into) == OK

    return body


def sending(world):
    root = world.new(VICTIM, 64)
    slot, ticket = world._free_slot(VICTIM), world._free_slot(VICTIM)

    def body():
        world.be(VICTIM)
        number = transit.send_reference(root[1], slot, ticket)
        assert transit.revoke_reference(slot, ticket, number) == OK
        assert transit.send_reference(root[1], slot, ticket) == number + (1 << transit.SLOT_BITS)

    return body


def assisting(world):
    world.begin_marking()
    world.ps[VICTIM].assist_bytes = -(1 << 20)
    return in_kernel(world, assist.try_assist)


def something_to_return(world):
    """Free pages here and there: some in chunks that are nearly full, some at the end."""
    for root in fill(world, VICTIM, 70_000, 12)[::2]:
        world.drop(root)
    world.collect()


def giving_memory_back(world):
    something_to_return(world)

    def body():
        scavenger.work()
        scavenge.scavenge(1 << 30, 1 << 30, 1, scavenge.ALWAYS)

    return in_kernel(world, body)


def growth_beyond_the_limit(world):
    something_to_return(world)
    pacer.set_memory_limit(mapped_ready() + (64 << 10))
    return lambda: fill(world, VICTIM, 300_000, 2)


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
        box = specials.weak_waiting(addr)
        assert specials.weak_waiting(addr) == box
        assert specials.weak_value_waiting(box) == addr
        assert specials.weak_waiting(addr + 8) != box

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


SCENARIOS = (
    small_in_a_fresh_span, small_in_the_next_window, the_last_of_a_span, small_with_references, typed_by_a_header, tiny,
    refill_from_a_swept_span, refill_by_sweeping, sweep_many, large, large_with_references, large_where_something_was, growth, handles, names,
    giving_memory_back, growth_beyond_the_limit, stores_while_marking, moves_while_marking, marking, marking_with_work_given_away,
    allocating_while_marking, assisting, sending, receiving_while_marking,
    finalizers_set_and_cleared, cleanups_added_and_stopped, weak_pointers, weak_pointers_of_programs, sweep_of_specials, finalizers_run,
    map_insertions, map_growth, map_replacements_and_removals, map_changes_while_marking, map_cleared,
    pool_use, pool_use_while_marking,
)  # fmt: skip


# --- death, repair, and what must be true then ------------------------------------------------------------------------


@dataclass
class Scene:
    """A world in which the survivor has things, and what the victim is about to do."""

    world: object
    kept: Kept
    body: object


def scene(world, scenario):
    kept = Kept(world, random.Random(5), 2 * len(SIZES))
    return Scene(world, kept, scenario(world))


def be_repaired(world):
    world.be(layout.COORDINATOR_P)
    repair.bury(layout.p_addr(VICTIM))
    assert repair.repair(10**18) == OK
    assert world.runtime.xthrow == 0


def go_on(s):
    """Nothing of the survivor's is lost, nothing of the dead one's is left, and a new process can be it."""
    world = s.world
    world.verify()
    assert not any(world.handles(VICTIM))
    assert world.finish_marking() == ()
    s.kept.check()
    getattr(world, "also_check", bool)()
    ran = []
    for _ in range(3):
        world.collect()
        ran += Lifetimes(world).run(SURVIVOR)
    assert sorted(ran) == sorted(getattr(world, "expected", []))
    world.collect()
    report = world.verify()
    assert report.objects == report.reached
    s.kept.check()
    check_accounts(world)
    world.be(VICTIM)
    shared = world.segments
    assert init_p(VICTIM, os.getpid(), shared.heap_fd, shared.meta_fd, world.ps[SURVIVOR].wake_fd, -1) == 1
    for size in SIZES:
        fill(world, VICTIM, size, 3)
    name_something(world, world.new(VICTIM, 64), 7)
    world.verify()
    drop_everything(world)
    world.collect()
    world.collect()
    assert world.verify().spans == 0
    assert (world.mheap.pages_in_use, world.mheap.xheap_inuse) == (0, 0)
    check_accounts(world)


def check_accounts(world):
    """What counts as committed is what the file system has given; each work buffer is somebody's."""
    assert 512 * os.fstat(world.segments.heap_fd).st_blocks == world.mheap.xheap_committed
    runtime = world.runtime
    assert runtime.wbuf_made == runtime.wbuf_empty + runtime.xwbuf_full + 2 * (world.nprocs + 1)


def drop_everything(world):
    for p in (SURVIVOR, VICTIM):
        ctypes.memset(layout.handles_addr(p), 0, 8 * int(world.ps[p].handles))
    for idx in range(int(boundary.count_globals())):
        ctypes.c_int64.from_address(int(boundary.global_addr(idx))).value = 0


def kill_and_go_on(scenario, n):
    with heap_world(nprocs=2, max_pages=8 * layout.CHUNK_PAGES) as world:
        s = scene(world, scenario)
        if not kill_at(s.body, n):
            return False
        be_repaired(world)
        go_on(s)
        return True


def points(scenario, within=""):
    """Where to kill in a scenario: before lines of the files with ``within`` in their name."""
    with heap_world(nprocs=2, max_pages=8 * layout.CHUNK_PAGES) as world:
        lines = lines_of(scene(world, scenario).body)
        return [n for n in some_of(lines) if within in lines[n][0]]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_others_go_on_wherever_one_is_killed(scenario, pytestconfig):
    where = points(scenario)
    if pytestconfig.getoption("--run-slow"):
        faulthandler.cancel_dump_traceback_later()  # it takes minutes, and a dump of a process that is traced crashes it
    else:
        where = random.Random(1).sample(where, min(POINTS, len(where)))
    for n in where:
        try:
            assert kill_and_go_on(scenario, n)
        except BaseException as error:
            raise AssertionError(f"{scenario.__name__}, killed before line {n}: {error}") from error


@pytest.mark.parametrize("is_marking", [False, True])
def test_what_a_killed_receiver_was_about_to_take_is_still_there_or_gone_with_it(is_marking):
    """And the sender can tell: it gets its two slots back either way."""
    outcomes = set()
    n = 0
    while True:
        with heap_world(nprocs=2) as world:
            slot, ticket, number = in_transit(world)
            into = world._free_slot(VICTIM)
            if is_marking:
                world.begin_marking()
                world.scan_p(VICTIM)

            def body(into=into, sent=(slot, ticket, number), world=world):
                world.be(VICTIM)
                transit.receive_reference(SURVIVOR, *sent, into)

            if not kill_at(body, n):
                break
            n += 1
            world.ps[VICTIM].deaths += 1  # the coordinator's part
            be_repaired(world)
            assert world.finish_marking() == ()
            world.collect()
            world.be(SURVIVOR)
            mine = world._free_slot(SURVIVOR)
            status = transit.receive_reference(SURVIVOR, slot, ticket, number, mine)
            outcomes.add(status)
            if status == OK:
                assert ctypes.string_at(world.address((SURVIVOR, mine)) + 8, len(SEAL)) == SEAL
                assert world.address((SURVIVOR, slot)) == 0
            else:
                deaths, p = divmod(transit.CLAIMED - world.handles(SURVIVOR)[ticket], 256)
                assert (p, deaths) == (VICTIM, 0) != (VICTIM, world.ps[VICTIM].deaths)
            world.verify()
    assert outcomes == {OK, transit.GONE}


# --- the same without a step of the repair ----------------------------------------------------------------------------


def nothing(*args):
    return 0


def keep_what_it_was_taking(p):
    page = records.p_at(p).taking_page
    settle(p)
    records.p_at(p).taking_page = page


def keep_its_mcache(p):
    if p != layout.p_addr(VICTIM):
        flush_mcache(p)


def keep_its_page_cache(p):
    if p != layout.p_addr(VICTIM):
        return_cached_pages(p)


settle, flush_mcache, return_cached_pages = repair._settle, rebuild._flush_mcache, rebuild._return_cached_pages
LEFT_OUT = {
    "its locks are not released": (repair, "release_locks_of", nothing, names, "mutator"),
    "its redo record is not applied": (repair, "apply_redo_stw", nothing, sweep_many, "redo"),
    "its handles are not dropped": (repair, "_drop_handles", nothing, small_in_a_fresh_span, "status"),
    "what it was taking stays taken": (repair, "_settle", keep_what_it_was_taking, growth, "mheap"),
    "its mcache is not emptied": (rebuild, "_flush_mcache", keep_its_mcache, small_in_the_next_window, "mcache"),
    "its page cache is not returned": (rebuild, "_return_cached_pages", keep_its_page_cache, large, "mheap"),
    "spans in hand are not found": (rebuild, "_rebuild_spans", nothing, sweep_many, "sweep"),
    "pages in hand are not released": (rebuild, "_punch_unknown_pages", nothing, large, "mheap"),
    "summaries are not made again": (rebuild, "rebuild_summaries_locked", nothing, growth, "palloc"),
    "counters are not made again": (rebuild, "_rebuild_counters", nothing, growth, "mheap"),
    "work buffers are not made again": (
        rebuild,
        "_rebuild_work_buffers",
        nothing,
        marking_with_work_given_away,
        "work",
    ),
    "lists of specials are not made again": (rebuild, "rebuild_specials_stw", nothing, sweep_of_specials, "specials"),
    "functions of the dead are not lost": (repair, "lose_specials_of_stw", nothing, finalizers_run, "lifetimes"),
    "marking is not started over": (repair, "restart_marking_stw", nothing, marking, "worker"),
    "nothing is made again": (repair, "rebuild_derived_stw", nothing, refill_by_sweeping, "refill"),
}


@pytest.mark.parametrize("left_out", LEFT_OUT)
def test_a_repair_without_one_of_its_steps_is_caught(left_out, monkeypatch):
    module, name, instead, scenario, within = LEFT_OUT[left_out]
    where = points(scenario, within)
    assert goes_on_in_a_child(scenario, where[0])
    monkeypatch.setattr(module, name, instead)
    assert any(not goes_on_in_a_child(scenario, n) for n in random.Random(2).sample(where, len(where)))


def goes_on_in_a_child(scenario, n, seconds=4):
    """Whether that process ends well: it may fail, crash or hang."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(seconds)
        with contextlib.suppress(BaseException):
            kill_and_go_on(scenario, n)
            os._exit(0)
        os._exit(1)
    return os.waitpid(pid, 0)[1] == 0
