"""Locks: one holder, no waiter forgotten, and no owner that can keep one for ever."""

from __future__ import annotations

import os
import signal

import pytest

from gomp.core import inline, kernel
from gomp.core.gc import work
from gomp.core.sched.locks import (
    CONTENDED,
    OWNER_MASK,
    acquire,
    acquire_within,
    begin_critical,
    end_critical,
    owner_of,
    release,
    release_locks_of,
    try_lock,
)
from gomp.core.sched.locks import NOBODY as NO_OWNER
from gomp.core.sched.status import OK, enter_waiting, leave, start_world, stop_world
from gomp.core.sched.throw import MESSAGES, THROW_BAD_FREE, THROW_LOST_LOCK, THROW_ZOMBIE, tell_of_lost_lock, throw
from gomp.core.shm import layout, records
from gomp.core.shm.atomics import (
    add_relaxed,
    cas_acq_rel,
    cpu_pause,
    load64,
    load_acquire,
    load_relaxed,
    store64,
    store_release,
)
from gomp.core.shm.libc import futex_wait, nanotime, stack_pointer
from gomp.core.shm.records import (
    LIMITER_XLOCK,
    MHEAP_XLOCK,
    RT_XLOST_LOCK,
    RT_XSHUTDOWN,
    RT_XSPECIALS_LOCK,
    RT_XTABLE_LOCK,
    RT_XWBUF_LOCK,
    SCHED_XLOCK,
    STACKPOOL_XLOCK,
    self_p,
)
from gomp.runtime.throws import take_lost_lock, thrown
from tests.protocols.drivers import OVER, OWN, VIOLATIONS, VISITS, dawdle, is_over, visit
from tests.protocols.processes import LINE, World, now_ns, sleeps, wait_until

pytestmark = pytest.mark.alone

MUTANT_NS = 20_000_000_000
LOCK = MHEAP_XLOCK
LAST_MCENTRAL = layout.MCENTRALS_BASE + (layout.NUM_SPAN_CLASSES - 1) * records.mcentral_dtype.itemsize
EVERY_KIND = [
    MHEAP_XLOCK,
    RT_XWBUF_LOCK,
    RT_XTABLE_LOCK,
    RT_XSPECIALS_LOCK,
    LIMITER_XLOCK,
    STACKPOOL_XLOCK,
    SCHED_XLOCK,
    layout.MCENTRALS_BASE,
    LAST_MCENTRAL,
]
MAP_LOCKS = [layout.MAP_LOCKS_BASE, layout.MAP_LOCKS_BASE + (layout.MAP_LOCKS - 1) * layout.MAP_LOCK_SIZE]
TOTAL = OWN  # counted without atomics, under the lock
LONGEST = OWN + LINE  # a line for each P: the longest wait for the lock
WOKEN = OWN + 16 * LINE
NOBODY = OWN + 17 * LINE  # nobody wakes who sleeps here
COUNTED = OWN + 18 * LINE  # what a redo record changes
FRAME = 1024


@inline
def acquire_by_load_and_store(lock: int) -> None:
    """Mutant: two may find it free."""
    while load_acquire(lock) != 0:
        cpu_pause()
    store_release(lock, self_p().idx + 1)


@kernel("void(int64, int64, int64)")
def contend(until_ns: int, seed: int, torn: int) -> None:
    me = self_p()
    longest = 0
    while nanotime() < until_ns and not is_over():
        began = nanotime()
        if torn:
            acquire_by_load_and_store(LOCK)
        else:
            acquire(LOCK)
        longest = max(longest, nanotime() - began)
        count = load64(TOTAL)
        seed = visit(me.idx, seed)
        if seed & 63 == 0:
            futex_wait(NOBODY, 0, 200_000)  # long enough for the others to go to sleep
        store64(TOTAL, count + 1)
        if torn:
            store_release(LOCK, 0)
        else:
            release(LOCK)
        seed = dawdle(seed)
    store64(LONGEST + LINE * me.idx, longest)


def contend_for(world: World, length_ns: int, torn: int) -> None:
    until = now_ns(length_ns)
    for p in range(world.nprocs):
        world.fork(p, lambda p=p: contend(until, 88172645463325252 + 2 * p, torn))
    world.join(length_ns / 1e9 + 30)


def test_one_holds_the_lock_at_a_time_and_every_waiter_gets_it(world, run_ns):
    contend_for(world, run_ns, 0)
    visits = [world.word(VISITS + LINE * p) for p in range(world.nprocs)]
    assert world.word(VIOLATIONS) == 0
    assert world.word(TOTAL) == sum(visits)
    assert min(visits) > 10
    assert max(world.word(LONGEST + LINE * p) for p in range(world.nprocs)) < 5_000_000_000
    assert world.word(LOCK) == 0
    assert [(p.no_park, p.waiting_for) for p in world.ps] == [(0, 0)] * 3


def test_a_lock_taken_in_two_steps_is_caught(world):
    contend_for(world, MUTANT_NS, 1)
    assert world.word(VIOLATIONS) > 0


# --- sleeping and waking ----------------------------------------------------------------------------------------------


@kernel("void(int64)")
def take(lock: int) -> None:
    acquire(lock)


@kernel("void(int64)")
def give(lock: int) -> None:
    release(lock)


@kernel("void(int64)")
def give_without_waking(lock: int) -> None:
    """Mutant: a sleeper is left to its timeout."""
    self_p().no_park -= 1
    store_release(lock, 0)


@kernel("void(int64, int64)")
def sleep_on(lock: int, timeout_ns: int) -> None:
    """What a waiter does when it goes to sleep, but for longer than its nap."""
    word = load_acquire(lock)
    cas_acq_rel(lock, word, word | CONTENDED)
    store64(WOKEN, 2 if futex_wait(lock, word | CONTENDED, timeout_ns) < 0 else 1)


@pytest.mark.parametrize(
    ("giving", "timeout_ns", "woken"), [(give, 20_000_000_000, 1), (give_without_waking, 10**9, 2)]
)
def test_a_sleeper_is_woken_by_release_and_a_release_that_wakes_nobody_is_caught(world, giving, timeout_ns, woken):
    take(LOCK)
    sleeper = world.fork(0, lambda: sleep_on(LOCK, timeout_ns))
    wait_until(lambda: world.word(LOCK) & CONTENDED and sleeps(sleeper), "P0 sleeps")
    giving(LOCK)
    world.join()
    assert world.word(WOKEN) == woken


@kernel("int64(int64)")
def try_to_take(lock: int) -> int:
    return 1 if try_lock(lock) else 0


def test_a_lock_names_its_owner_and_a_waiter_what_it_waits_for(world):
    take(LOCK)
    assert world.word(LOCK) == layout.COORDINATOR_P + 1
    assert try_to_take(LOCK) == 0
    world.fork(1, lambda: take(LOCK))
    wait_until(lambda: world.word(LOCK) & CONTENDED != 0, "P1 waits")
    assert world.word(LOCK) & OWNER_MASK == layout.COORDINATOR_P + 1
    assert world.ps[1].waiting_for == LOCK
    give(LOCK)
    world.join()
    assert world.word(LOCK) & OWNER_MASK == 1 + 1
    assert world.ps[1].waiting_for == 0


# --- stops ------------------------------------------------------------------------------------------------------------


@kernel("void(int64)")
def take_in_a_program(in_hand: int) -> None:
    if enter_waiting() != OK:
        return
    self_p().native_base = stack_pointer() + FRAME
    if in_hand:
        begin_critical()
    acquire(LOCK)
    release(LOCK)
    if in_hand:
        end_critical()
    leave()


@pytest.mark.parametrize(("in_hand", "stopped"), [(0, OK), (1, -1 - 2)])
def test_a_waiter_parks_for_a_stop_unless_it_has_something_in_hand(world, in_hand, stopped):
    take(LOCK)
    world.fork(2, lambda: take_in_a_program(in_hand))
    wait_until(lambda: world.word(LOCK) & CONTENDED != 0, "P2 waits")
    assert stop_world(now_ns(10_000_000_000 if stopped == OK else 100_000_000)) == stopped
    start_world()
    give(LOCK)
    world.join()
    assert world.ps[2].no_park == 0


@kernel("void()")
def take_a_work_buffer() -> None:
    if enter_waiting() != OK:
        return
    self_p().native_base = stack_pointer() + FRAME
    work.take_empty()
    leave()


def test_who_moves_grey_objects_does_not_park_with_some_in_hand(world):
    take(RT_XWBUF_LOCK)
    world.fork(2, take_a_work_buffer)
    wait_until(lambda: world.word(RT_XWBUF_LOCK) & CONTENDED != 0, "P2 waits")
    assert stop_world(now_ns(100_000_000)) == -1 - 2
    start_world()
    give(RT_XWBUF_LOCK)
    world.join()
    assert world.ps[2].no_park == 0


# --- dead owners ------------------------------------------------------------------------------------------------------


@kernel("void(int64)")
def take_and_hang(lock: int) -> None:
    acquire(lock)
    while load_relaxed(OVER) == 0:
        cpu_pause()


def kill_the_owner(world: World, lock: int) -> None:
    owner = world.fork(1, lambda: take_and_hang(lock))
    wait_until(lambda: world.word(lock) & OWNER_MASK == 2, "P1 has the lock")
    world.kill(owner)


@pytest.mark.parametrize("lock", EVERY_KIND)
def test_the_lock_of_a_killed_owner_is_released_by_repair_and_its_waiter_gets_it(world, lock):
    kill_the_owner(world, lock)
    world.fork(2, lambda: take(lock))
    wait_until(lambda: world.word(lock) & CONTENDED != 0, "P2 waits")
    assert release_locks_of(layout.p_addr(0)) == 0
    assert release_locks_of(layout.p_addr(1)) == 1
    world.join()
    assert world.word(lock) & OWNER_MASK == 3
    assert release_locks_of(layout.p_addr(1)) == 0


IMPATIENT_NS = 20_000_000
UNTIL_DEAD_NS = 300_000_000  # for the last moments of a process, on a busy machine too


@kernel("void(int64, int64)")
def take_within(lock: int, patience_ns: int) -> None:
    acquire_within(lock, patience_ns)
    add_relaxed(TOTAL, 1)


@pytest.mark.parametrize("waits", [False, True])
def test_what_a_dead_owner_had_begun_is_finished_before_anybody_else_has_its_lock(world, waits):
    """Its redo record says what a count becomes that it alone could change: one more than it was then."""
    owner = world.fork(1, lambda: take_and_hang(RT_XSPECIALS_LOCK))
    wait_until(lambda: world.word(RT_XSPECIALS_LOCK) & OWNER_MASK == 2, "P1 has the lock")
    p1 = world.ps[1]
    p1.redo_addr[0], p1.redo_value[0], p1.xredo_n = COUNTED, 8, 1
    store64(COUNTED, 7)
    p1.pidfd = os.pidfd_open(owner)
    world.kill(owner)
    if waits:
        take_within(RT_XSPECIALS_LOCK, UNTIL_DEAD_NS)
    else:
        assert release_locks_of(layout.p_addr(1)) == 1
    os.close(int(p1.pidfd))
    p1.pidfd = 0
    assert (world.word(COUNTED), p1.xredo_n) == (8, 0)


def test_the_coordinator_reports_a_dead_owner_and_is_not_kept_from_ending_the_runtime(world):
    kill_the_owner(world, LOCK)
    take_within(LOCK, IMPATIENT_NS)
    assert thrown() == MESSAGES[THROW_LOST_LOCK].format(a=LOCK, b=1)
    assert world.word(LOCK) & OWNER_MASK == layout.COORDINATOR_P + 1


def test_the_coordinator_kills_an_owner_that_is_stopped_and_gets_its_lock(world):
    owner = world.fork(1, lambda: take_and_hang(LOCK))
    wait_until(lambda: world.word(LOCK) & OWNER_MASK == 2, "P1 has the lock")
    os.kill(owner, signal.SIGSTOP)
    world.ps[1].pidfd = os.pidfd_open(owner)
    take_within(LOCK, UNTIL_DEAD_NS)
    assert (thrown(), take_lost_lock()) == ("", None)
    assert world.word(LOCK) & OWNER_MASK == layout.COORDINATOR_P + 1
    os.close(int(world.ps[1].pidfd))
    world.ps[1].pidfd = 0
    world.kill(owner)


def test_who_has_a_lock(world):
    kill_the_owner(world, LOCK)
    assert [owner_of(lock) for lock in EVERY_KIND] == [1] + [NO_OWNER] * (len(EVERY_KIND) - 1)
    assert [owner_of(lock) for lock in MAP_LOCKS] == [NO_OWNER] * 2
    store64(MAP_LOCKS[1], 4)
    assert (owner_of(MAP_LOCKS[1]), owner_of(MAP_LOCKS[1] + 8)) == (3, NO_OWNER)
    assert owner_of(0) == owner_of(LOCK + 8) == owner_of(layout.MCENTRALS_BASE + 8) == NO_OWNER


@kernel("void()")
def shut_down() -> None:
    store_release(RT_XSHUTDOWN, 1)


def test_a_p_reports_a_dead_owner_and_waits_until_the_runtime_ends(world):
    kill_the_owner(world, LOCK)
    world.fork(0, lambda: take_within(LOCK, IMPATIENT_NS))
    wait_until(lambda: world.word(RT_XLOST_LOCK) != 0, "P0 reports")
    assert (take_lost_lock(), thrown()) == ((LOCK, 1), "")
    assert world.word(TOTAL) == 0
    shut_down()
    world.join()
    assert world.word(TOTAL) == 1


def test_the_first_throw_stands(world):
    throw(THROW_BAD_FREE, 1, 2)
    throw(THROW_LOST_LOCK, 3, 4)
    assert thrown() == MESSAGES[THROW_BAD_FREE].format(a=1, b=2)


def test_a_lost_lock_and_a_throw_are_both_told(world):
    tell_of_lost_lock(LOCK, 1)
    tell_of_lost_lock(MHEAP_XLOCK, 2)
    throw(THROW_BAD_FREE, 1, 2)
    assert thrown() == MESSAGES[THROW_BAD_FREE].format(a=1, b=2)
    assert (take_lost_lock(), take_lost_lock()) == ((LOCK, 1), None)
    tell_of_lost_lock(MAP_LOCKS[1], layout.COORDINATOR_P)
    assert take_lost_lock() == (MAP_LOCKS[1], layout.COORDINATOR_P)


@pytest.mark.parametrize("moment", ["before it is told", "after it"])
def test_who_is_killed_in_a_throw_keeps_nobody_from_throwing(world, moment):
    """Or has said all: by a P stopped in front of, or behind, the only store that others read."""

    def throw_and_die() -> None:
        if moment == "before it is told":
            world.ps[1].throw_a, world.ps[1].throw_b = 1, 2
        else:
            world.ps[1].wake_fd = -1
            throw(THROW_BAD_FREE, 1, 2)
        os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(world.fork(1, throw_and_die), 0)
    world.pids.clear()
    throw(THROW_ZOMBIE, 3, 4)
    told = (THROW_ZOMBIE, 3, 4) if moment == "before it is told" else (THROW_BAD_FREE, 1, 2)
    assert thrown() == MESSAGES[told[0]].format(a=told[1], b=told[2])
