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
from gomp.core.mutator import chan, chancalls, listening, select, selectcalls, sync
from gomp.core.mutator.boundary import NO_SLOT
from gomp.core.mutator.chancalls import chan_send
from gomp.core.mutator.goroutine import end_g
from gomp.core.mutator.lifecycle import init_p
from gomp.core.mutator.waitcalls import received_value
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
        self.slots = {
            p: {at: held[1] for at, held in zip((self.a, self.b), holds, strict=False)}
            for p, holds in ((VICTIM, self.held), (SURVIVOR, roots))
        }
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

    def listens(self, p, ch):
        """One that waits to receive, as Python does that listens for it."""
        self.world.be(p)
        g = chancalls.chan_wait_to_receive(self.slots[p][ch], NO_SLOT)
        assert listening.listen(g) == 1
        return g

    def listens_in_select(self, p):
        self.world.be(p)
        g = selectcalls.select_begin()
        for ch in (self.b, self.a):
            assert selectcalls.select_add(g, self.slots[p][ch], 0, 0, NO_SLOT) == OK
        assert listening.listen(g) == 1
        assert selectcalls.select_join(g, NO_SLOT) == select.WAITS
        return g

    def hears(self, p):
        """By those whose waits have ended, what they have received; of selects the next thing is done, too."""
        self.world.be(p)
        heard = {}
        while (g := listening.take_ended(NO_SLOT)) != 0:
            if selectcalls.selected() == AGAIN:
                assert selectcalls.select_join(g, NO_SLOT) == select.WAITS
                continue
            heard[g] = received_value()
            if self.status(g) == G_RUNNING:
                assert selectcalls.select_end(g) == OK
        return heard

    def gives_up(self, p, g):
        """Whether it did, and nothing will come."""
        self.world.be(p)
        in_select = view(g_dtype, g)[0].wait == records.WAITS_IN_SELECT
        gave_up = listening.give_up(g)
        if gave_up == 1 and in_select:
            assert selectcalls.select_end(g) == OK
        return gave_up == 1

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


def tells_listeners(s):
    """One at a channel and one in a select, which wait for the same."""
    gs = s.listens(SURVIVOR, s.a), s.listens_in_select(SURVIVOR)

    def check():
        heard = s.hears(SURVIVOR)
        for value in (8, 9)[len(heard) :]:
            assert s.sends(SURVIVOR, s.a, value) == CHAN_DONE
            heard |= s.hears(SURVIVOR)
        assert heard.keys() == set(gs)
        assert sorted(heard.values()) in ([7, 9], [8, 9])
        assert s.sends(SURVIVOR, s.a, 1) == CHAN_WOULD_BLOCK

    return lambda: s.sends(VICTIM, s.a, 7), check


def hears(s):
    gs = s.listens(VICTIM, s.a), s.listens_in_select(VICTIM)
    for value in (7, 8):
        assert s.sends(SURVIVOR, s.a, value) == CHAN_DONE

    def check():
        assert {s.status(g) for g in gs} == {G_DEAD}
        assert s.hears(SURVIVOR) == {}
        assert s.sends(SURVIVOR, s.a, 1) == CHAN_WOULD_BLOCK

    return lambda: s.hears(VICTIM), check


def gives_up(s):
    gs = s.listens(VICTIM, s.a), s.listens_in_select(VICTIM)

    def check():
        assert {s.status(g) for g in gs} == {G_DEAD}
        assert s.sends(SURVIVOR, s.a, 1) == CHAN_WOULD_BLOCK

    return lambda: [s.gives_up(VICTIM, g) for g in gs], check


SCENARIOS = (
    joins, joins_to_send, finds_one_ready, wakes, closes, goes_on, is_done, unlocks, tells_listeners, hears, gives_up
)  # fmt: skip


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


def interleaved(scene, body, other, points):
    """``body(s)``, with ``other(s)`` done before one of its lines: the scene, and what either said. For ``points`` of all lines."""
    with heap_world(nprocs=2) as world:
        s = scene(world)
        total = len(lines_of(lambda: body(s)))
    faulthandler.cancel_dump_traceback_later()
    for n in sorted(random.Random(5).sample(range(total), min(points or total, total))):
        with heap_world(nprocs=2) as world:
            s, said, others = scene(world), [], []

            def interrupt(s=s, world=world, others=others):
                before = records.self_p().idx
                others.append(other(s))
                world.be(before)

            kill_at(lambda s=s, said=said: said.append(body(s)), n, interrupt)
            yield n, s, said[0], others[0]
            world.verify()


@pytest.fixture
def points(pytestconfig):
    return None if pytestconfig.getoption("--run-slow") else 2 * POINTS


def retried(call):
    while (said := call()) == RETRY:
        pass
    return said


@pytest.mark.parametrize("in_select", [False, True])
def test_a_sender_comes_while_it_gives_up(in_select, points):
    """It has given up, and the sender has found nobody; or it hears of what was sent."""

    def scene(world):
        s = Scene(world)
        s.g = s.listens_in_select(SURVIVOR) if in_select else s.listens(SURVIVOR, s.a)
        return s

    def send(s):
        s.world.be(VICTIM)
        return chan_send(s.slots[VICTIM][s.a], 7, NO_SLOT)

    for n, s, gave_up, sent in interleaved(scene, lambda s: s.gives_up(SURVIVOR, s.g), send, points):
        if sent == RETRY:
            sent = send(s)
        assert (gave_up, sent) in ((True, CHAN_WOULD_BLOCK), (False, CHAN_DONE)), n
        assert s.hears(SURVIVOR) == ({} if gave_up else {s.g: 7}), n


def test_it_hears_while_others_are_told(points):
    """Each end is heard of once, whichever line of either they meet at."""

    def scene(world):
        s = Scene(world)
        s.gs = [s.listens(SURVIVOR, ch) for ch in (s.a, s.b)]
        assert s.sends(VICTIM, s.a, 7) == CHAN_DONE
        return s

    def send(s):
        s.world.be(VICTIM)
        return chan_send(s.slots[VICTIM][s.b], 8, NO_SLOT)

    def hear(s):
        return s.hears(SURVIVOR)

    for body, other in ((hear, send), (send, hear)):
        for n, s, said, others in interleaved(scene, body, other, points):
            sent, heard = (others, said) if body is hear else (said, others)
            assert sent == CHAN_DONE or retried(lambda s=s: send(s)) == CHAN_DONE, n
            later = s.hears(SURVIVOR)
            assert not heard.keys() & later.keys(), n
            assert heard | later == dict(zip(s.gs, (7, 8), strict=True)), n
