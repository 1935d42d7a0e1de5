"""Stopping the world: nobody moves while it is stopped, everybody moves afterwards, nobody waits for Python, who does not poll is named."""

from __future__ import annotations

import random
import time

import pytest

from gomp.core import inline, kernel
from gomp.core.mutator.poll import poll
from gomp.core.sched.status import OK, enter, enter_waiting, leave, start_world, stop_world
from gomp.core.shm import layout, records
from gomp.core.shm.atomics import (
    add_relaxed,
    cpu_pause,
    load_relaxed,
    or_acq_rel,
    store64,
    store_relaxed,
    store_seq_cst,
)
from gomp.core.shm.libc import nanotime, sched_yield, stack_pointer
from gomp.core.shm.records import P_XPOLL, P_XSTATUS, POLL_STOP, RT_XSTOP, STATUS_KERNEL, self_p
from tests.protocols.drivers import OVER, OWN, VIOLATIONS, dawdle, is_over
from tests.protocols.processes import LINE, World, now_ns, wait_until

pytestmark = pytest.mark.alone

MUTANT_NS = 20_000_000_000
_FRAME = 1024
_PATIENCE_NS = 20_000_000_000
WORK = OWN  # a line for each P: what it has done, without atomics
SEEN = OWN + 16 * LINE  # a line for each P: what the stopper saw
STOPS = OWN + 32 * LINE
LATENCIES = OWN + 8192
MOST_STOPS = 16384


@kernel("void(int64, int64)")
def run_program(turns: int, seed: int) -> None:
    """A program that changes shared words and polls."""
    if enter_waiting() != OK:
        return
    me = self_p()
    me.native_base = stack_pointer() + _FRAME
    mine = WORK + LINE * me.idx
    for _ in range(turns):
        store_relaxed(mine, load_relaxed(mine) + 1)
        seed = dawdle(seed)
        poll()
    leave()


def be_a_p(world: World, p: int) -> None:
    """Programs, and Python between them."""
    draw = random.Random(p)
    while not world.word(OVER) and not world.word(VIOLATIONS):
        run_program(draw.choice((1, 10, 1000)), 1 + 2 * draw.getrandbits(40))
        if draw.random() < 0.2:
            time.sleep(draw.random() * 0.001)


@inline
def stop_the_first_only() -> None:
    """Mutant: waits for P0 alone."""
    store_seq_cst(RT_XSTOP, 1)
    for i in range(records.runtime().nrecords):
        or_acq_rel(layout.p_addr(i) + P_XPOLL, POLL_STOP)
    while load_relaxed(layout.p_addr(0) + P_XSTATUS) == STATUS_KERNEL:
        cpu_pause()


@inline
def look(nprocs: int) -> None:
    for i in range(nprocs):
        store_relaxed(SEEN + LINE * i, load_relaxed(WORK + LINE * i))


@inline
def has_moved(i: int) -> bool:
    return load_relaxed(WORK + LINE * i) != load_relaxed(SEEN + LINE * i)


@kernel("int64(int64, int64)")
def keep_stopping(until_ns: int, first_only: int) -> int:
    """Stop, look twice, start, and wait until every P has moved: OK, or 1 + p if P p has not."""
    nprocs = records.runtime().nrecords
    seed = 2685821657736338717
    while nanotime() < until_ns and not is_over():
        began = nanotime()
        if first_only:
            stop_the_first_only()
        elif stop_world(began + _PATIENCE_NS) != OK:
            add_relaxed(VIOLATIONS, 1)
        n = add_relaxed(STOPS, 1)
        store64(LATENCIES + 8 * (n % MOST_STOPS), nanotime() - began)
        look(nprocs)
        for _ in range(30):
            seed = dawdle(seed)
        for i in range(nprocs):
            if has_moved(i):
                add_relaxed(VIOLATIONS, 1)
        look(nprocs)
        start_world()
        for i in range(nprocs):
            while not has_moved(i) and not is_over():
                if nanotime() - began > _PATIENCE_NS:
                    return 1 + i
                sched_yield()
    return OK


@kernel("void(int64)")
def set_over(value: int) -> None:
    store_relaxed(OVER, value)


def stop_while_running(world: World, length_ns: int, first_only: int) -> int:
    for p in range(world.nprocs):
        world.fork(p, lambda p=p: be_a_p(world, p))
    wait_until(lambda: all(world.word(WORK + LINE * p) for p in range(world.nprocs)), "every P runs")
    stuck = keep_stopping(now_ns(length_ns), first_only)
    set_over(1)
    world.join()
    return stuck


def test_nobody_moves_while_the_world_is_stopped_and_everybody_afterwards(world, run_ns):
    assert stop_while_running(world, run_ns, 0) == OK
    assert world.word(VIOLATIONS) == 0
    stops = min(world.word(STOPS), MOST_STOPS)
    assert stops > 20
    latencies = sorted(world.word(LATENCIES + 8 * i) for i in range(stops))
    p50, p99 = latencies[stops // 2], latencies[stops * 99 // 100]
    print(f"{stops} stops of {world.nprocs} Ps: p50 {p50 / 1e3:.0f} us, p99 {p99 / 1e3:.0f} us")
    # Three Ps and the stopper on as few as two cores that others use too: a few time slices, not a second.
    assert p50 < 50_000_000
    assert p99 < 1_000_000_000


def test_a_stop_that_waits_for_one_p_only_is_caught(world):
    stop_while_running(world, MUTANT_NS, 1)
    assert world.word(VIOLATIONS) > 0


def test_a_p_that_sleeps_in_python_is_not_waited_for(world):
    world.fork(0, lambda: (run_program(10, 1), time.sleep(30)))
    wait_until(lambda: world.word(WORK) == 10, "P0 has run")
    began = time.monotonic()
    for _ in range(20):
        assert stop_world(now_ns(5_000_000_000)) == OK
        start_world()
    assert time.monotonic() - began < 5


@kernel("void()")
def run_without_polls() -> None:
    if enter() != OK:
        return
    store_relaxed(WORK + LINE * self_p().idx, 1)
    while load_relaxed(OVER) == 0:
        cpu_pause()
    leave()


@pytest.mark.parametrize("p", [0, 1, 2])
def test_a_p_that_never_polls_is_named_and_the_world_goes_on(world, p):
    other = (p + 1) % 3
    world.fork(p, run_without_polls)
    wait_until(lambda: world.word(WORK + LINE * p) == 1, "the P runs")
    world.fork(other, lambda: be_a_p(world, other))
    wait_until(lambda: world.word(WORK + LINE * other) > 0, "the other runs")
    assert stop_world(now_ns(100_000_000)) == -1 - p
    start_world()
    done = world.word(WORK + LINE * other)
    wait_until(lambda: world.word(WORK + LINE * other) > done, "the other runs again")
    set_over(1)
    assert stop_world(now_ns(10_000_000_000)) == OK
    start_world()
    world.join()
