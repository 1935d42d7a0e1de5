"""The redo record: a process killed at any instruction leaves two words that agree once repair has run."""

from __future__ import annotations

import random
import time

import pytest

from gomp.core import inline, kernel
from gomp.core.sched import redo
from gomp.core.shm import layout
from gomp.core.shm.atomics import load_relaxed, store_release
from tests.protocols.drivers import OWN
from tests.protocols.processes import LINE, World, now_ns, wait_until

pytestmark = pytest.mark.alone

ONE, OTHER, THIRD = OWN, OWN + LINE, OWN + 2 * LINE
MUTANT_NS = 30_000_000_000


@inline
def store_plainly(value: int) -> None:
    """Mutant: without the record."""
    store_release(ONE, value)
    store_release(OTHER, value)
    store_release(THIRD, value)


@kernel("void(int64)")
def keep_committing(plainly: int) -> None:
    value = load_relaxed(ONE)
    while True:
        value += 1
        if plainly:
            store_plainly(value)
        else:
            redo.plan(0, ONE, value)
            redo.plan(1, OTHER, value)
            redo.plan(2, THIRD, value)
            redo.commit(3)


def kill_until_torn(world: World, length_ns: int, plainly: int) -> tuple[int, int, bool]:
    """(kills, records that repair found, whether the words ever disagreed)."""
    draw = random.Random(1)
    kills, found = 0, 0
    until = now_ns(length_ns)
    while now_ns() < until:
        before = world.word(THIRD)
        pid = world.fork(0, lambda: keep_committing(plainly))
        wait_until(lambda before=before: world.word(THIRD) > before + 1, "P0 commits")
        time.sleep(draw.random() * 0.001)
        world.kill(pid)
        kills += 1
        found += redo.apply_redo(layout.p_addr(0)) != 0
        assert redo.apply_redo(layout.p_addr(0)) == 0
        if not world.word(ONE) == world.word(OTHER) == world.word(THIRD):
            return kills, found, True
    return kills, found, False


def test_what_a_killed_process_had_begun_is_finished_by_repair(world, run_ns):
    kills, found, torn = kill_until_torn(world, 2 * run_ns, 0)
    assert not torn
    assert kills > 10
    assert found > 0, f"none of {kills} kills hit a commit"


def test_plain_stores_are_torn_by_a_kill(world):
    assert kill_until_torn(world, MUTANT_NS, 1)[2]


@kernel("void()")
def commit_and_keep_the_record() -> None:
    """A process that died right before the record was cleared."""
    redo.plan(0, ONE, 7)
    redo.plan(1, OTHER, 8)
    redo.commit(2)
    store_release(redo._N, 2)


def test_repair_may_be_repeated_and_stores_each_word_in_its_place(world):
    world.fork(2, commit_and_keep_the_record)
    world.join()
    for expected in (2, 0):
        assert redo.apply_redo(layout.p_addr(2)) == expected
        assert (world.word(ONE), world.word(OTHER)) == (7, 8)
