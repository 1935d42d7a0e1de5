"""A large object that is made by a call from Python: a stop does not wait until all of it is committed and zeroed."""

from __future__ import annotations

import ctypes
import time

import pytest
from kernel_heap import collect_now

from gomp.core.heap import mspan
from gomp.core.mutator import boundary
from gomp.core.sched.status import OK, RETRY, start_world, stop_world
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_relaxed, store64
from gomp.runtime.verify import verify
from tests.protocols.drivers import OVER, OWN, VIOLATIONS
from tests.protocols.processes import World, now_ns

pytestmark = pytest.mark.alone

SIZE = 16 << 20
MADE = OWN


def make_large_objects(world: World) -> None:
    """One after another, each dropped at once. Whoever gets its memory has to find it zeroed."""
    while (slot := boundary.grow_handles(1)) == RETRY:
        pass
    handle = layout.handles_addr(1) + 8 * slot
    while world.word(OVER) == 0:
        boundary.new_object(slot, SIZE, 0, 0)
        if addr := boundary.handle_addr(slot):
            if ctypes.string_at(addr, SIZE).strip(b"\0"):
                add_relaxed(VIOLATIONS, 1)
            ctypes.memset(addr, 255, SIZE)
            add_relaxed(MADE, 1)
            store64(handle, 0)


def what_is_in_hand(world: World) -> str:
    p = world.ps[1]
    if p.taking_page != mspan.NO_SPAN:
        return "committed"
    return "zeroed" if p.xpending else ""


def look_at_a_stop(world: World) -> str:
    assert stop_world(now_ns(10_000_000_000)) == OK
    in_hand = what_is_in_hand(world)
    if in_hand:
        assert verify(3).problems == ()
    start_world()
    time.sleep(0.0005)
    return in_hand


def test_a_stop_comes_between_the_pieces_of_a_large_object(world: World) -> None:
    world.fork(1, lambda: make_large_objects(world))
    found: set[str] = set()
    deadline = time.monotonic() + 20
    while "committed" not in found:  # which only the first are
        assert world.word(MADE) == 0, "no stop has come while pages were committed"
        found.add(look_at_a_stop(world))
    while "zeroed" not in found:
        assert time.monotonic() < deadline, "no stop has come while an object was zeroed"
        found.add(look_at_a_stop(world))
        if world.runtime.xgc_request:
            world.runtime.xgc_request = 0
            collect_now()
    made = world.word(MADE)
    while world.word(MADE) < made + 3:
        assert time.monotonic() < deadline + 20
        time.sleep(0.005)  # a world that is stopped again at once gets nowhere
        collect_now()
    store64(OVER, 1)
    world.join()
    assert world.word(VIOLATIONS) == 0
