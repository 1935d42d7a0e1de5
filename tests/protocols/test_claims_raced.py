"""Claims: no P runs beside its claimer, and what a dead claimer held can be released."""

from __future__ import annotations

import pytest

from gomp.core import inline, kernel
from gomp.core.sched.status import (
    OK,
    RETRY,
    SELF_STATUS,
    enter,
    leave,
    release_claims_of,
    start_world,
    stop_world,
    try_claim,
    unclaim,
    wait_to_enter,
)
from gomp.core.shm import layout, records
from gomp.core.shm.atomics import (
    load_seq_cst,
    xchg_acq_rel,
)
from gomp.core.shm.libc import nanotime
from gomp.core.shm.records import RT_XSTOP, STATUS_CLAIMED, STATUS_KERNEL, STATUS_SAFE, self_p
from tests.protocols.drivers import OVER, VIOLATIONS, VISITS, is_over, visit
from tests.protocols.processes import LINE, World, now_ns, sleeps, wait_until

pytestmark = pytest.mark.alone

AS_IT_IS, BY_EXCHANGE = 0, 1
MUTANT_NS = 20_000_000_000  # a mutant's driver ends at the first violation
P0, OTHER = 1, 2  # who visits


@inline
def enter_by_exchange() -> int:
    """Mutant: overwrites a claim."""
    if xchg_acq_rel(SELF_STATUS, STATUS_KERNEL) == STATUS_KERNEL or load_seq_cst(RT_XSTOP) != 0:
        leave()
        return RETRY
    return OK


@kernel("void(int64, int64)")
def keep_entering(until_ns: int, how: int) -> None:
    seed = 88172645463325252
    while nanotime() < until_ns and not is_over():
        for _ in range(64):
            if how == BY_EXCHANGE:
                code = enter_by_exchange()
            else:
                code = enter()
            if code == OK:
                seed = visit(P0, seed)
                leave()


@kernel("void(int64)")
def keep_claiming(until_ns: int) -> None:
    seed = 1181783497276652981
    while nanotime() < until_ns and not is_over():
        for _ in range(64):
            if try_claim(layout.p_addr(0)):
                seed = visit(OTHER, seed)
                unclaim(layout.p_addr(0))


def visits(world: World, who: int) -> int:
    return world.word(VISITS + LINE * who)


def claim_against(world: World, length_ns: int, how: int) -> int:
    """P1 claims while P0 enters; how often they were seen together."""
    until = now_ns(length_ns)
    world.fork(0, lambda: keep_entering(until, how))
    world.fork(1, lambda: keep_claiming(until))
    world.join(length_ns / 1e9 + 30)
    return world.word(VIOLATIONS)


def test_a_claimer_and_its_p_never_run_together(world, run_ns):
    assert claim_against(world, run_ns, AS_IT_IS) == 0
    assert visits(world, P0) > 100
    assert visits(world, OTHER) > 100
    assert world.ps[0].xstatus == STATUS_SAFE
    assert world.ps[1].no_park == 0


def test_entry_by_exchange_is_caught_beside_a_claimer(world):
    assert claim_against(world, MUTANT_NS, BY_EXCHANGE) > 0


@kernel("int64(int64)")
def claim(p: int) -> int:
    return 1 if try_claim(layout.p_addr(p)) else 0


@kernel("int64()")
def my_number() -> int:
    return self_p().idx


def test_the_claims_of_a_dead_p_are_released(world):
    world.fork(1, lambda: claim(0) and claim(2))
    world.join()
    assert world.ps[0].xstatus == world.ps[2].xstatus == STATUS_CLAIMED | 1
    assert my_number() == layout.COORDINATOR_P
    assert claim(0) == 0
    assert release_claims_of(layout.p_addr(1)) == 2
    assert release_claims_of(layout.p_addr(1)) == 0
    assert world.ps[0].xstatus == STATUS_SAFE
    assert claim(0) == 1


def test_a_futex_can_tell_every_status_apart():
    words = [STATUS_SAFE, STATUS_KERNEL, *(STATUS_CLAIMED | p for p in range(layout.MAX_PS))]
    assert len({word & 0xFFFFFFFF for word in words}) == len(words)


@kernel("void()")
def end_claim() -> None:
    unclaim(layout.p_addr(0))


def test_a_p_that_waits_for_its_claimer_is_woken(world):
    assert claim(0) == 1
    waiter = world.fork(0, lambda: wait_to_enter(60_000_000_000))
    wait_until(lambda: sleeps(waiter), "P0 sleeps")
    end_claim()
    world.join(20)


@pytest.mark.parametrize("p", [0, 1, 2])
def test_every_p_can_be_claimed_and_counts_as_stopped(world, p):
    assert claim(p) == 1
    assert stop_world(now_ns(1_000_000_000)) == OK
    start_world()
    assert records.view(records.p_dtype, layout.p_addr(p))[0].xstatus == STATUS_CLAIMED | layout.COORDINATOR_P
    assert world.word(OVER) == 0
