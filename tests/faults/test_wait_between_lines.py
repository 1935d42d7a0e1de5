"""A P is killed before each line of what it does for goroutines that wait, in selects above all, and others do something before each line of it.

Runs with ``NUMBA_DISABLE_JIT=1``. Without ``--run-slow`` a part of the lines, the same ones each time.
"""

from __future__ import annotations

import faulthandler
import os
import random

import pytest
from heap_world import heap_world
from killed import kill_at, kill_before, lines_of
from waiting_world import Waiting

from gomp.core import COMPILED
from gomp.core.gc import repair
from gomp.core.heap.waitq import FIRST, HOLDER, PENDING, SIZE
from gomp.core.mutator import chan, select, sync
from gomp.core.mutator.boundary import NO_SLOT
from gomp.core.mutator.chancalls import chan_send
from gomp.core.mutator.goroutine import end_g
from gomp.core.mutator.lifecycle import init_p
from gomp.core.sched.runq import NO_G, get_global, runq_get, runq_put
from gomp.core.sched.status import OK, RETRY, enter, leave
from gomp.core.shm import layout, records
from gomp.core.shm.atomics import load64, store64
from gomp.core.shm.records import (
    AGAIN,
    CHAN_DONE,
    CHAN_WOULD_BLOCK,
    G_DEAD,
    G_RUNNABLE,
    G_RUNNING,
    G_STATUS_MASK,
    G_WAITING,
    g_dtype,
    view,
)

if COMPILED:
    pytest.skip("needs NUMBA_DISABLE_JIT=1", allow_module_level=True)

SURVIVOR, VICTIM = 0, 1
POINTS = 4  # of a scenario, in the short run
_OUT = layout.SELF_BASE + records.P_OUT


class Scene:
    """Two channels without room, a group of one and a lock, which both Ps hold; and goroutines at them, by their addresses."""

    def __init__(self, world):
        self.world, self.waiting = world, Waiting(world)
        roots = [self.waiting.channel(SURVIVOR) for _ in range(2)]
        roots += [world.new(SURVIVOR, sync.SYNC_BYTES, 0) for _ in range(2)]
        self.a, self.b, self.group, self.mutex = (world.address(root) for root in roots)
        self.held = [world.hold(VICTIM, at) for at in (self.a, self.b, self.group, self.mutex)]
        self.acts(SURVIVOR, lambda: sync.add_group(self.group, 1))

    def acts(self, p, what):
        """What P ``p`` gets, in KERNEL."""
        self.world.be(p)
        assert enter() == OK
        try:
            return what()
        finally:
            leave()

    def goroutine(self, p):
        """One that ``p`` runs."""
        return self.waiting.running(p)

    def selects(self, p, g, receives=True):
        """It waits, if it has to, for either channel."""

        def do():
            for i, ch in enumerate((self.a, self.b)):
                case = _OUT + select.CASE_BYTES * i
                for word, value in enumerate((ch, 0 if receives else 40 + i, 0 if receives else select.SENDS, 0)):
                    store64(case + 8 * word, value)
            records.self_p().out_into = 0
            return select.wait_for_cases(2, g)

        why = self.acts(p, do)
        self.world.ps[p].curg = 0
        return why

    def status(self, g):
        return load64(g) & G_STATUS_MASK

    def take(self, g):
        """Take one that is ready out of its queue, whosever that is."""

        def do():
            others = []
            while (number := runq_get() or get_global(1)) not in (layout.g_number(g), NO_G):
                others.append(number)
            for other in others:
                runq_put(other, 0)
            return number != NO_G

        assert self.status(g) == G_RUNNABLE
        assert self.acts(SURVIVOR, do) or self.acts(VICTIM, do)

    def goes_on(self, p, g):
        """``p`` runs one that is in no queue any more, and has a select behind it: place and value; None if it waits on."""

        def do():
            store64(g, G_RUNNING)
            view(g_dtype, g)[0].p = p
            if int(view(g_dtype, g)[0].done) == AGAIN and select.look_again(g) == select.WAITS:
                return None
            place = select.end_select(g)
            value = load64(chan.VALUE)
            records.self_p().curg = g
            end_g(g)
            return place, value

        return self.acts(p, do)

    def ends(self, g):
        """The survivor runs one that is ready, and has a select behind it, to its end: place and value; None if it waits on."""
        self.take(g)
        return self.goes_on(SURVIVOR, g)

    def sends(self, p, ch, value):
        return self.acts(p, lambda: chan.send(ch, value, 0))

    def receives(self, p, ch):
        done = self.acts(p, lambda: chan.receive(ch, 0))
        return load64(chan.VALUE) if done == CHAN_DONE else None


# --- scenarios: what the victim does, and what must be true afterwards --------------------------------------------------


def joins(s):
    g = s.goroutine(VICTIM)

    def check():
        if s.status(g) == G_DEAD:
            assert s.sends(SURVIVOR, s.a, 7) == CHAN_WOULD_BLOCK
        else:
            assert s.sends(SURVIVOR, s.b, 7) == CHAN_DONE
            assert s.ends(g) == (1, 7)
        assert s.sends(SURVIVOR, s.a, 8) == CHAN_WOULD_BLOCK

    return lambda: s.selects(VICTIM, g), check


def joins_to_send(s):
    g = s.goroutine(VICTIM)

    def check():
        is_dead = s.status(g) == G_DEAD
        assert s.receives(SURVIVOR, s.b) == (None if is_dead else 41)
        if not is_dead:
            assert s.ends(g)[0] == 1
        assert s.receives(SURVIVOR, s.a) is None

    return lambda: s.selects(VICTIM, g, receives=False), check


def finds_one_ready(s):
    """The victim's select comes to a sender, who has been told or has not."""
    sender, g = s.goroutine(SURVIVOR), s.goroutine(VICTIM)
    assert s.acts(SURVIVOR, lambda: chan.send(s.b, 5, sender)) == CHAN_WOULD_BLOCK
    s.world.ps[SURVIVOR].curg = 0

    def check():
        if s.status(sender) == G_WAITING:
            assert s.receives(SURVIVOR, s.b) == 5
        assert s.status(sender) == G_RUNNABLE
        assert s.receives(SURVIVOR, s.b) is None
        assert s.sends(SURVIVOR, s.a, 1) == CHAN_WOULD_BLOCK

    return lambda: s.selects(VICTIM, g), check


def wakes(s):
    g = s.goroutine(SURVIVOR)
    assert s.selects(SURVIVOR, g) == select.WAITS

    def check():
        got = s.ends(g) if s.status(g) == G_RUNNABLE else None
        if got is None:
            assert s.sends(SURVIVOR, s.b, 9) == CHAN_DONE
            assert s.ends(g) == (1, 9)
        else:
            assert got == (0, 7)
        assert s.sends(SURVIVOR, s.a, 1) == CHAN_WOULD_BLOCK
        assert s.sends(SURVIVOR, s.b, 1) == CHAN_WOULD_BLOCK

    return lambda: s.sends(VICTIM, s.a, 7), check


def closes(s):
    first, second = s.goroutine(SURVIVOR), s.goroutine(SURVIVOR)
    for g in (first, second):
        assert s.selects(SURVIVOR, g) == select.WAITS

    def check():
        is_closed = s.sends(SURVIVOR, s.a, 1) == records.CHAN_CLOSED
        for g in (first, second):
            if is_closed:
                assert s.ends(g) == (0, 0)
            else:
                assert s.status(g) == G_RUNNABLE or s.sends(SURVIVOR, s.a, 3) == CHAN_DONE
                s.ends(g)

    return lambda: s.acts(VICTIM, lambda: chan.close(s.a)), check


def goes_on(s):
    g = s.goroutine(SURVIVOR)
    assert s.selects(SURVIVOR, g) == select.WAITS
    assert s.sends(SURVIVOR, s.a, 7) == CHAN_DONE

    s.take(g)

    def body():
        s.goes_on(VICTIM, g)

    def check():
        for ch in (s.a, s.b):
            assert s.sends(SURVIVOR, ch, 1) == CHAN_WOULD_BLOCK

    return body, check


def is_done(s):
    waiters = [s.goroutine(SURVIVOR) for _ in range(3)]
    for g in waiters:
        assert s.acts(SURVIVOR, lambda g=g: sync.wait_group(s.group, g)) == CHAN_WOULD_BLOCK
        s.world.ps[SURVIVOR].curg = 0

    def check():
        if load64(s.group + PENDING) == 1:
            assert {s.status(g) for g in waiters} == {G_WAITING}
            s.acts(SURVIVOR, lambda: sync.add_group(s.group, -1))
        assert {s.status(g) for g in waiters} == {G_RUNNABLE}

    return lambda: s.acts(VICTIM, lambda: sync.add_group(s.group, -1)), check


def unlocks(s):
    g = s.goroutine(SURVIVOR)
    assert s.acts(VICTIM, lambda: sync.lock_mutex(s.mutex, 99, 0)) == CHAN_DONE
    assert s.acts(SURVIVOR, lambda: sync.lock_mutex(s.mutex, 55, g)) == CHAN_WOULD_BLOCK
    s.world.ps[SURVIVOR].curg = 0

    def check():
        holder = load64(s.mutex + HOLDER) >> 1
        assert (holder, s.status(g)) in ((99, G_WAITING), (55, G_RUNNABLE))
        if holder == 99:
            assert s.acts(SURVIVOR, lambda: sync.unlock_mutex(s.mutex)) == CHAN_DONE
        assert s.acts(SURVIVOR, lambda: sync.unlock_mutex(s.mutex)) == CHAN_DONE
        assert load64(s.mutex + HOLDER) == 0

    return lambda: s.acts(VICTIM, lambda: sync.unlock_mutex(s.mutex)), check


SCENARIOS = (joins, joins_to_send, finds_one_ready, wakes, closes, goes_on, is_done, unlocks)


def kill_and_look(scenario, n):
    with heap_world(nprocs=2) as world:
        s = Scene(world)
        body, check = scenario(s)
        if not kill_at(body, n):
            return False
        world.be(layout.COORDINATOR_P)
        repair.bury(layout.p_addr(VICTIM))
        assert repair.repair(10**18) == OK
        world.verify()
        shared = world.segments
        assert init_p(VICTIM, os.getpid(), shared.heap_fd, shared.meta_fd, world.ps[SURVIVOR].wake_fd, -1) == 1
        assert (world.ps[VICTIM].selecting, world.ps[VICTIM].woken) == (NO_G, NO_G)
        check()
        world.verify()
        return True


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nobody_waits_for_what_has_come(scenario, pytestconfig):
    with heap_world(nprocs=2) as world:
        lines = lines_of(scenario(Scene(world))[0])
    most = None if pytestconfig.getoption("--run-slow") else POINTS
    kill_before(scenario.__name__, lines, lambda n: kill_and_look(scenario, n), most)


# --- between any two lines ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1])
def test_a_sender_comes_while_it_joins(size, pytestconfig):
    """Whatever it finds it is not lost: it has gone to the select, or is in the buffer, and then the select has not waited."""

    def scene(world):
        s = Scene(world)
        if size:
            s.waiting.give_room(SURVIVOR, s.b, size)
        return s, s.goroutine(SURVIVOR)

    with heap_world(nprocs=2) as world:
        s, g = scene(world)
        total = len(lines_of(lambda: s.selects(SURVIVOR, g)))
    points = total if pytestconfig.getoption("--run-slow") else 4 * POINTS
    faulthandler.cancel_dump_traceback_later()
    for n in sorted(random.Random(3).sample(range(total), min(points, total))):
        with heap_world(nprocs=2) as world:
            s, g = scene(world)
            sent, why = [], []

            def interrupt(s=s, sent=sent, world=world):
                world.be(VICTIM)
                sent.append(chan_send(s.held[1][1], 7, NO_SLOT))
                world.be(SURVIVOR)

            kill_at(lambda s=s, g=g, why=why: why.append(s.selects(SURVIVOR, g)), n, interrupt)
            if sent[0] == RETRY:
                world.be(VICTIM)
                sent = [chan_send(s.held[1][1], 7, NO_SLOT)]
            if why == [select.DONE]:
                assert s.goes_on(SURVIVOR, g) == (1, 7)
                assert sent == [CHAN_DONE]
            elif sent == [CHAN_DONE]:
                assert s.ends(g) == (1, 7), n
            else:
                assert size == 0, n
                assert s.sends(SURVIVOR, s.b, 8) == CHAN_DONE
                assert s.ends(g) == (1, 8)
            assert load64(s.b + FIRST) < max(load64(s.b + SIZE), 1)
            world.verify()
