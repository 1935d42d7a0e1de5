"""Store→load: of a stopper and a P that enters, at least one sees the other. Without either fence both miss; only with two cores, though."""

from __future__ import annotations

import pytest

from gomp.core import inline, kernel
from gomp.core.sched.status import OK, RETRY, SELF_STATUS, enter, leave, start_world, stop_world
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_relaxed, cpu_pause, load_relaxed, store_relaxed, store_release, store_seq_cst
from gomp.core.shm.libc import nanotime
from gomp.core.shm.records import P_XSTATUS, RT_XSTOP, STATUS_KERNEL, STATUS_SAFE
from tests.protocols.drivers import OCCUPANT, OVER, VIOLATIONS, VISITS, is_over
from tests.protocols.processes import LINE, World, now_ns

pytestmark = pytest.mark.alone

MUTANT_NS = 60_000_000_000  # a mutant's driver ends at the first violation
P0, STOPPER = 1, 2


@inline
def enter_unfenced() -> int:
    """Mutant: the load of the stop word may come before the store of the status."""
    if load_relaxed(SELF_STATUS) != STATUS_SAFE:
        return RETRY
    store_release(SELF_STATUS, STATUS_KERNEL)
    if load_relaxed(RT_XSTOP) != 0:
        leave()
        return RETRY
    return OK


@inline
def stop_unfenced() -> None:
    """Mutant: the load of the status may come before the store of the stop word."""
    store_release(RT_XSTOP, 1)
    while load_relaxed(layout.p_addr(0) + P_XSTATUS) == STATUS_KERNEL:
        cpu_pause()


@inline
def visit_briefly(number: int, pauses: int) -> None:
    """As drivers.visit, short, so that entries and stops meet often."""
    store_relaxed(OCCUPANT, number)
    for _ in range(pauses):
        cpu_pause()
    if load_relaxed(OCCUPANT) != number:
        add_relaxed(VIOLATIONS, 1)
    add_relaxed(VISITS + LINE * number, 1)


@kernel("void(int64, int64)")
def keep_entering(until_ns: int, unfenced: int) -> None:
    while nanotime() < until_ns and not is_over():
        for i in range(256):
            code = enter_unfenced() if unfenced else enter()
            if code == OK:
                visit_briefly(P0, i & 3)
                leave()


@kernel("void(int64, int64)")
def keep_stopping(until_ns: int, unfenced: int) -> None:
    while nanotime() < until_ns and not is_over():
        for i in range(256):
            if unfenced:
                stop_unfenced()
            else:
                stop_world(until_ns + MUTANT_NS)
            visit_briefly(STOPPER, i & 7)
            if unfenced:
                store_seq_cst(RT_XSTOP, 0)
            else:
                start_world()


@kernel("void()")
def set_over() -> None:
    store_relaxed(OVER, 1)


def stop_against(world: World, length_ns: int, entry_unfenced: int, stop_is_unfenced: int) -> int:
    """The coordinator stops the world while P0 enters; how often they were seen together."""
    until = now_ns(length_ns)
    world.fork(0, lambda: keep_entering(until, entry_unfenced))
    keep_stopping(until, stop_is_unfenced)
    set_over()
    world.join()
    return world.word(VIOLATIONS)


def test_a_p_never_runs_while_the_world_is_stopped(world, run_ns):
    assert stop_against(world, run_ns, 0, 0) == 0
    assert world.word(VISITS + LINE * P0) > 100
    assert world.word(VISITS + LINE * STOPPER) > 100


def test_an_entry_without_its_fence_is_caught(world):
    assert stop_against(world, MUTANT_NS, 1, 0) > 0


def test_a_stop_without_its_fence_is_caught(world):
    assert stop_against(world, MUTANT_NS, 0, 1) > 0
