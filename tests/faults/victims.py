"""What a P is killed in: allocation, marking, sending, giving memory back. Each function prepares a world, and returns what the victim does then."""

from __future__ import annotations

import ctypes

from gomp.core.gc import assist, pacer, ragged, scavenger, sweep, wbbuf, worker
from gomp.core.heap import scavenge
from gomp.core.heap.accounting import mapped_ready
from gomp.core.mutator import boundary, transit
from gomp.core.mutator.types import publish_type, reserve_mask
from gomp.core.sched.status import OK, enter, leave
from gomp.core.shm import layout
from gomp.core.shm.records import GC_TRIGGER_HEAP

SURVIVOR, VICTIM = 0, 1
SEAL = b"seal" * 14
SIZES = (8, 16, 64, 512, 600, 3000, 40_000)


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


def passed_barrier(world, body):
    """As in_kernel, of who has passed the barrier with which the marking has begun: before that it marks nothing."""
    in_kernel(world, ragged.pass_ragged)()
    return in_kernel(world, body)


def marks():
    assert worker.drain(1 << 40) > 0


def marking(world):
    world.begin_marking()
    world.scan_p(SURVIVOR)
    return passed_barrier(world, marks)


def marking_with_work_given_away(world):
    fill(world, VICTIM, 600, 300, world.struct_type(600, (0,)))
    world.begin_marking()

    def body():
        ragged.publish_grey(layout.p_addr(VICTIM))
        ragged.pass_ragged()
        marks()

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

    def body():
        world.ps[VICTIM].assist_bytes = debt = -(1 << 20)
        assist.try_assist()
        assert world.ps[VICTIM].assist_bytes > debt

    return passed_barrier(world, body)


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


SCENARIOS = (
    small_in_a_fresh_span, small_in_the_next_window, the_last_of_a_span, small_with_references, typed_by_a_header, tiny,
    refill_from_a_swept_span, refill_by_sweeping, sweep_many, large, large_with_references, large_where_something_was, growth, handles,
    names, giving_memory_back, growth_beyond_the_limit, stores_while_marking, moves_while_marking, marking, marking_with_work_given_away,
    allocating_while_marking, assisting, sending, receiving_while_marking,
)  # fmt: skip
