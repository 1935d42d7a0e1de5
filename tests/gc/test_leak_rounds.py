"""Goroutines that wait for ever: what a cycle finds, against a walk over the same graph in Python."""

from __future__ import annotations

import random

import pytest
from heap_world import heap_world
from waiting_world import Waiting

from gomp.core import COMPILED
from gomp.core.gc import cycle, leaks
from gomp.core.shm import layout
from gomp.core.shm.records import LEAKS_HIDE, LEAKS_IGNORED, LEAKS_REVEAL

NIL = 0
SEEDS = range(30 if COMPILED else 2)  # plain Python is slow


class Graph:
    """Channels and nodes by number, the objects that each leads to; who waits where with what; and which are roots."""

    def __init__(self, world, rng):
        self.rng, self.waiting = rng, Waiting(world)
        self.world = world
        self.roots: dict[int, tuple[int, int]] = {}  # by address
        self.leads: dict[int, int] = {}
        self.waiters: dict[int, tuple[int, list[int]]] = {}  # its channel, and what is in its frame
        self.ready: list[int] = []  # what those have who wait no more
        self.channels = [self.make(self.waiting.channel) for _ in range(rng.randint(1, 8))]
        objects = list(self.channels)
        for _ in range(rng.randint(0, 10)):
            objects.append(self.make(self.waiting.node, rng.choice(objects)))
        for _ in range(rng.randint(1, 15)):
            ch = rng.choice([NIL, *self.channels])
            held = rng.choices([NIL, *objects], k=rng.randint(0, 2))
            number = self.waiting.waiter(rng.randrange(2), ch, *held)
            self.waiters[number] = ch, held
        for addr in rng.sample(objects, rng.randint(len(objects) // 2, len(objects))):
            self.drop(addr)

    def make(self, how, *leads_to):
        root = how(self.rng.randrange(2), *leads_to)
        addr = self.world.address(root)
        self.roots[addr] = root
        self.leads[addr] = leads_to[0] if leads_to else NIL
        return addr

    def drop(self, addr):
        self.world.drop(self.roots.pop(addr))

    def wake(self, ch):
        """The first who waits there goes on, and stays ready."""
        self.waiting.send(self.roots[ch][0], ch)
        first = next((number for number, (at, _) in self.waiters.items() if at == ch), None)
        if first is not None:
            self.ready += self.waiters.pop(first)[1]

    def leaked(self) -> set[int]:
        """Those who cannot be reached, by the plainest walk."""
        reached, woken, more = set(), set(), [*self.roots, *self.ready]
        while more:
            while more:
                addr = more.pop()
                if addr not in reached and addr != NIL:
                    reached.add(addr)
                    more.append(self.leads[addr])
            for number, (ch, held) in self.waiters.items():
                if number not in woken and ch in reached:
                    woken.add(number)
                    more += [ch, *held]
        return set(self.waiters) - woken


@pytest.mark.parametrize("seed", SEEDS)
def test_exactly_those_are_found_that_nobody_can_reach(seed):
    rng = random.Random(seed)
    with heap_world(nprocs=2, max_pages=layout.ARENA_PAGES) as world:
        graph = Graph(world, rng)
        while True:
            assert graph.waiting.look() == graph.leaked()
            world.verify()
            world.collect()  # what the leaked have is still there
            world.verify()
            if not graph.roots:
                break
            graph.drop(rng.choice(list(graph.roots)))


@pytest.mark.parametrize("seed", SEEDS)
def test_and_none_besides_while_programs_run(seed):
    """Roots go away and waits end between the steps of the cycle: who could not be reached when it began is found, and nobody who can be still."""
    rng = random.Random(seed)
    with heap_world(nprocs=2, max_pages=layout.ARENA_PAGES) as world:
        graph = Graph(world, rng)
        before = graph.leaked()
        graph.waiting.begin()
        for _ in range(rng.randint(0, 8)):
            step = rng.randrange(5)
            if step == 0 and graph.roots:
                graph.drop(rng.choice(list(graph.roots)))
            elif step == 1 and (held := [ch for ch in graph.channels if ch in graph.roots]):
                graph.wake(rng.choice(held))
            elif step == 2:
                world.scan_p(rng.randrange(2))
            elif step == 3:
                world.mark(rng.choice([8, 64, 1000]))
            elif world.is_marking:
                graph.waiting.to_next_round()
        assert world.finish_marking() == ()
        assert before & set(graph.waiters) <= graph.waiting.found() <= graph.leaked()
        world.verify()
        assert graph.waiting.look() == graph.leaked()


LEFT_OUT = {
    "there is no round": (cycle.leaks, "needs_round", lambda: False),
    "a primitive that is marked does not count": (leaks, "_is_any_marked", lambda g: False),
    "each primitive counts as marked": (leaks, "_is_any_marked", lambda g: True),
}


@pytest.mark.slow
@pytest.mark.skipif(COMPILED, reason="kernels are replaced, which needs NUMBA_DISABLE_JIT=1")
@pytest.mark.parametrize("left_out", LEFT_OUT)
def test_without_one_of_its_rules_it_is_caught(left_out, monkeypatch):
    monkeypatch.setattr(*LEFT_OUT[left_out])
    with pytest.raises(AssertionError):
        _run_twenty()


def _run_twenty():
    for seed in range(20):
        test_and_none_besides_while_programs_run(seed)


def test_a_cycle_that_does_not_look_hides_nobody():
    with heap_world(nprocs=2, max_pages=layout.ARENA_PAGES) as world:
        waiting = Waiting(world)
        ch = waiting.channel(0)
        addr = world.address(ch)
        waiting.waiter(0, addr, addr)
        world.drop(ch)
        world.begin_marking()
        assert waiting.sched.leak_mode == LEAKS_IGNORED
        assert world.finish_marking() == ()
        assert waiting.sched.leak_looks == 0
        assert world.verify().objects == 1


def test_it_goes_through_its_modes_and_counts():
    with heap_world(nprocs=2, max_pages=layout.ARENA_PAGES) as world:
        waiting = Waiting(world)
        assert waiting.look() == set()
        waiting.waiter(0, NIL)
        waiting.begin()
        assert waiting.sched.leak_mode == LEAKS_HIDE
        waiting.to_reveal()
        assert waiting.sched.leak_mode == LEAKS_REVEAL
        assert world.finish_marking() == ()
        assert (waiting.sched.leaked, waiting.sched.leak_looks, waiting.sched.leak_mode) == (1, 2, LEAKS_IGNORED)
