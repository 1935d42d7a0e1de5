"""Parking: whoever finds a program's P stopped finds the address that the program holds in its registers, and not an older one."""

from __future__ import annotations

import pytest

from gomp.core import inline, kernel
from gomp.core.sched.status import (
    OK,
    become_safe,
    enter,
    enter_waiting,
    leave,
    park_while_stopped,
    publish_native_roots,
    start_world,
    stop_requested,
    stop_world,
    wait_to_enter,
)
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_relaxed, load64, load_acquire, load_relaxed, store_relaxed, store_release
from gomp.core.shm.libc import nanotime, sched_yield, stack_pointer
from gomp.core.shm.records import P_XNATIVE_N, STATUS_SAFE, self_p
from tests.protocols.drivers import OVER, OWN, VIOLATIONS, dawdle, is_over
from tests.protocols.processes import LINE, World, now_ns

pytestmark = pytest.mark.alone

AS_IT_IS, SAFE_FIRST, FORGOTTEN_FIRST = 0, 1, 2
MUTANT_NS = 20_000_000_000
_FRAME = 1024  # covers the frame of the kernel that calls the parking one
_NAP_NS = 1_000_000
NEXT = OWN  # the next address to hold
HELD = OWN + LINE  # the address that the program holds now; 0: no program runs
PARKED = OWN + 2 * LINE  # stops that found the program parked
SELF_NATIVE_N = layout.SELF_BASE + P_XNATIVE_N


@kernel("void()")
def park_safe_first() -> None:
    """Mutant: SAFE is stored before the roots are copied."""
    leave()
    sched_yield()
    publish_native_roots()
    while enter() != OK:
        wait_to_enter(_NAP_NS)
    store_relaxed(SELF_NATIVE_N, 0)


@kernel("void()")
def park_forgotten_first() -> None:
    """Mutant: the roots are forgotten before the P is in KERNEL again."""
    become_safe()
    while True:
        store_relaxed(SELF_NATIVE_N, 0)
        if enter() == OK:
            return
        wait_to_enter(_NAP_NS)


@inline
def park(how: int) -> None:
    if how == SAFE_FIRST:
        park_safe_first()
    elif how == FORGOTTEN_FIRST:
        park_forgotten_first()
    else:
        park_while_stopped()


@kernel("void(int64, int64)")
def hold_and_park(until_ns: int, how: int) -> None:
    """A program: it holds one new address after another, and parks when it is asked to."""
    seed = 88172645463325252
    enter_waiting()
    self_p().native_base = stack_pointer() + _FRAME
    while nanotime() < until_ns and not is_over():
        addr = add_relaxed(NEXT, 8)
        store_release(HELD, addr)
        seed = dawdle(seed)
        if stop_requested():
            park(how)
        if (
            load_relaxed(HELD) != addr
        ):  # the address is needed after parking: it is in a register or on the stack meanwhile
            add_relaxed(VIOLATIONS, 1)
    store_release(HELD, 0)
    leave()


@inline
def is_published(p: int, addr: int) -> bool:
    base = layout.native_roots_addr(p)
    found = 0
    for slot in range(base, base + 8 * load_acquire(layout.p_addr(p) + P_XNATIVE_N), 8):
        found += load64(slot) == addr
    return found > 0


@kernel("void(int64)")
def keep_looking(until_ns: int) -> None:
    """Stop the world again and again; what the program holds must have been published."""
    seed = 1181783497276652981
    while nanotime() < until_ns and not is_over():
        stop_world(until_ns + MUTANT_NS)
        held = load_acquire(HELD)
        if held != 0:
            add_relaxed(PARKED, 1)
            if not is_published(0, held):
                add_relaxed(VIOLATIONS, 1)
        start_world()
        for _ in range(20):
            seed = dawdle(seed)


@kernel("void(int64)")
def first_addr(addr: int) -> None:
    store_relaxed(NEXT, addr)


def look_while_parking(world: World, length_ns: int, how: int) -> int:
    first_addr(layout.HEAP_BASE + layout.ARENA_SIZE)
    until = now_ns(length_ns)
    world.fork(0, lambda: hold_and_park(until, how))
    keep_looking(until)
    world.join()
    return world.word(VIOLATIONS)


def test_a_parked_program_has_published_what_it_holds(world, run_ns):
    assert look_while_parking(world, run_ns, AS_IT_IS) == 0
    assert world.word(PARKED) > 20
    assert world.ps[0].xstatus == STATUS_SAFE
    assert world.ps[0].xnative_n == 0
    assert world.word(OVER) == 0


def test_safe_before_the_roots_are_copied_is_caught(world):
    assert look_while_parking(world, MUTANT_NS, SAFE_FIRST) > 0


def test_roots_forgotten_before_the_p_runs_are_caught(world):
    assert look_while_parking(world, MUTANT_NS, FORGOTTEN_FIRST) > 0
