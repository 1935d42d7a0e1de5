"""The ragged barrier: when it returns, its action has run once for each P, by the P itself or by its claimer."""

from __future__ import annotations

import random
import time

import pytest

from gomp.core import inline, kernel
from gomp.core.gc.ragged import begin_ragged, for_each_p, has_passed
from gomp.core.mutator.poll import poll
from gomp.core.sched.status import OK, enter, enter_waiting, leave
from gomp.core.shm import layout, records
from gomp.core.shm.atomics import add_relaxed, cpu_pause, load_acquire, load_relaxed, store_relaxed, store_release
from gomp.core.shm.libc import nanotime, sched_yield, stack_pointer
from gomp.core.shm.records import P_XRAGGED, P_XSTATUS, STATUS_SAFE, p_at, self_p
from tests.protocols.drivers import OVER, OWN, VIOLATIONS, dawdle, is_over
from tests.protocols.processes import LINE, World, now_ns, wait_until

pytestmark = pytest.mark.alone

MUTANT_NS = 20_000_000_000
_FRAME = 1024
_PATIENCE_NS = 20_000_000_000
BARRIERS = OWN
TURNS = OWN + LINE  # a line for each P


@kernel("void(int64, int64)")
def wander(turns: int, seed: int) -> None:
    """Enter, poll a few times, leave, and again."""
    me = self_p()
    me.native_base = stack_pointer() + _FRAME
    for _ in range(turns):
        if enter_waiting() != OK:
            return
        for _ in range(seed & 7):
            seed = dawdle(seed)
            poll()
        add_relaxed(TURNS + LINE * me.idx, 1)
        leave()
        seed = dawdle(seed)


def be_a_p(world: World, p: int) -> None:
    draw = random.Random(p)
    while not world.word(OVER) and not world.word(VIOLATIONS):
        wander(draw.choice((1, 10, 1000)), 1 + 2 * draw.getrandbits(40))
        if draw.random() < 0.2:
            time.sleep(draw.random() * 0.001)


@inline
def pass_unclaimed(p: int, number: int, seed: int) -> int:
    """Mutant: acts for a P that it found SAFE, without claiming it."""
    while not has_passed(p, number):
        if load_acquire(p + P_XSTATUS) == STATUS_SAFE:
            seed = dawdle(seed)
            p_at(p).ragged_runs += 1
            store_release(p + P_XRAGGED, number)
        else:
            sched_yield()
    return seed


@inline
def count_runs(nprocs: int, number: int) -> None:
    for i in range(nprocs):
        p = layout.p_addr(i)
        if not has_passed(p, number) or p_at(p).ragged_runs != number:
            add_relaxed(VIOLATIONS, 1)


@kernel("int64(int64, int64)")
def keep_asking(until_ns: int, unclaimed: int) -> int:
    """One barrier after another; OK, or what for_each_p said."""
    nprocs = records.runtime().nrecords
    seed = 2685821657736338717
    while nanotime() < until_ns and not is_over():
        number = add_relaxed(BARRIERS, 1) + 1
        if unclaimed:
            begin_ragged()
            for i in range(nprocs):
                seed = pass_unclaimed(layout.p_addr(i), number, seed)
        else:
            code = for_each_p(nanotime() + _PATIENCE_NS)
            if code != OK:
                return code
        count_runs(nprocs, number)
        seed = dawdle(seed)
    return OK


@kernel("void()")
def set_over() -> None:
    store_relaxed(OVER, 1)


def ask_while_wandering(world: World, length_ns: int, unclaimed: int) -> int:
    for p in range(world.nprocs):
        world.fork(p, lambda p=p: be_a_p(world, p))
    wait_until(lambda: all(world.word(TURNS + LINE * p) for p in range(world.nprocs)), "every P runs")
    code = keep_asking(now_ns(length_ns), unclaimed)
    set_over()
    world.join()
    return code


def test_the_action_has_run_once_for_each_p(world, run_ns):
    assert ask_while_wandering(world, run_ns, 0) == OK
    assert world.word(VIOLATIONS) == 0
    assert world.word(BARRIERS) > 100
    assert all(p.ragged_runs == p.xragged == world.runtime.xragged for p in world.ps)


def test_acting_for_a_p_without_a_claim_is_caught(world):
    ask_while_wandering(world, MUTANT_NS, 1)
    assert world.word(VIOLATIONS) > 0


@kernel("void()")
def run_without_polls() -> None:
    if enter() != OK:
        return
    add_relaxed(TURNS + LINE * self_p().idx, 1)
    while load_relaxed(OVER) == 0:
        cpu_pause()
    leave()


def test_a_p_that_never_polls_is_named_and_passes_the_next_barrier_once(world):
    world.fork(1, run_without_polls)
    wait_until(lambda: world.word(TURNS + LINE) == 1, "P1 runs")
    assert for_each_p(now_ns(100_000_000)) == -1 - 1
    set_over()
    world.join()
    assert for_each_p(now_ns(10_000_000_000)) == OK
    assert [p.xragged for p in world.ps] == [2, 2, 2]
    assert [p.ragged_runs for p in world.ps] == [2, 1, 1]  # the first barrier ended at P1
