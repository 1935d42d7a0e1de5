"""The coordinator's look for a deadlock, in a model of its processes: whatever comes between, what it says is so, and it says so in the end."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from gomp.runtime import deadlocks
from gomp.runtime.channel import Message
from gomp.runtime.deadlocks import Census, Deadlocks
from gomp.runtime.requests import Asker
from gomp.runtime.stillness import ACTS, STILL

PROCESSES, GOROUTINES = 3, 4
WAITING, READY, RUNNING = "waiting", "ready", "running"


class Process:
    """``waits_for``: a goroutine by number, or a message; None while it acts. Message queues in both directions keep their order."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.waits_for: int | str | None = None
        self.runs: int | None = None  # a goroutine, in the middle of a wait for a message
        self.changes = 0
        self.inbox: list[Message] = []
        self.outbox: list[Message] = []

    def send(self, op, **fields):
        """By the coordinator, which takes this for the process's channel."""
        self.inbox.append(Message(op, fields))


class Model:
    def __init__(self, rng: random.Random, looks: type[Deadlocks], acts: int) -> None:
        self.rng, self.left = rng, acts  # so many things are done by programs in all
        self.processes = [Process(i) for i in range(PROCESSES)]
        self.goroutines = [WAITING] * GOROUTINES
        self.runs = [0] * GOROUTINES
        self.unstarted = 0
        self.found = 0
        ending = SimpleNamespace(owners=self.processes[:1], holders=self.processes[:1], peers=self.processes[:1])
        family = SimpleNamespace(channels=lambda: self.processes[1:])
        dispatcher = SimpleNamespace(tasks=SimpleNamespace(have_all_started=lambda: self.unstarted == 0))
        self.looks = looks(family, ending, dispatcher, "")

    def census(self):
        if any(status != WAITING for status in self.goroutines):
            return None
        waiters = [p.waits_for + 1 for p in self.processes if isinstance(p.waits_for, int)]
        return Census(sum(self.runs), tuple(waiters))

    def is_deadlock(self) -> bool:
        under_way = [m.op for p in self.processes for m in (*p.inbox, *p.outbox)]
        return (
            all(p.waits_for is not None and p.runs is None for p in self.processes)
            and all(status == WAITING for status in self.goroutines)
            and not {"go", "run", "started"} & set(under_way)
        )

    # --- what may happen ----------------------------------------------------------------------------------------------

    def step(self) -> None:
        process = self.rng.choice(self.processes)
        self.rng.choice((self._do, self._receive, self._go_on, self._tell, self._ask))(process)

    def _do(self, p: Process) -> None:
        """Something that a program does, or a goroutine: one is made ready, a call is started, or it waits."""
        if p.waits_for is not None and p.runs is None:
            return
        if self.left > 0 and self.rng.random() < 0.7:
            self.left -= 1
            waited_for = [other.waits_for for other in self.processes if isinstance(other.waits_for, int)]
            g = self.rng.choice([*waited_for, self.rng.randrange(GOROUTINES)])
            if self.rng.random() < 0.2:
                p.outbox.append(Message("go"))
            elif self.goroutines[g] == WAITING:
                self.goroutines[g] = READY
        elif p.runs is not None:
            self.goroutines[p.runs] = WAITING
            p.runs = None
        else:
            taken = {other.waits_for for other in self.processes}
            p.changes += 1
            p.waits_for = self.rng.choice([g for g in range(GOROUTINES) if g not in taken] + ["message"])

    def _receive(self, p: Process) -> None:
        if not p.inbox or p.waits_for is None or p.runs is not None:
            return
        message = p.inbox.pop(0)
        if message.op == "run":
            p.outbox.append(Message("started"))
            self._act(p)
        elif message.op == "look":
            has_come = isinstance(p.waits_for, int) and self.goroutines[p.waits_for] == READY
            state = ACTS if has_come else STILL
            fields = {"n": message["n"], "state": state, "changes": p.changes, "why": "", "waits": []}
            p.outbox.append(Message("looked", fields))
        else:
            assert message.op == "deadlock"

    def _go_on(self, p: Process) -> None:
        """Who waits finds that what it waits for has come, or runs what is ready."""
        if p.waits_for is None or p.runs is not None:
            return
        if isinstance(p.waits_for, int) and self.goroutines[p.waits_for] == READY:
            self.goroutines[p.waits_for] = WAITING
            self._act(p)
            return
        homes = {other.waits_for for other in self.processes}
        ready = [g for g, status in enumerate(self.goroutines) if status == READY and g not in homes]
        if ready:
            p.runs = self.rng.choice(ready)
            self.runs[p.runs] += 1
            self.goroutines[p.runs] = RUNNING

    def _act(self, p: Process) -> None:
        p.changes += 1
        p.waits_for = None

    def _tell(self, p: Process) -> None:
        """The coordinator receives one message of the process."""
        if not p.outbox:
            return
        message = p.outbox.pop(0)
        if message.op == "go":
            self.unstarted += 1
            self.rng.choice(self.processes[1:]).send("run")
        elif message.op == "started":
            self.unstarted -= 1
        else:
            before = sum(m.op == "deadlock" for each in self.processes for m in each.inbox)
            self.looks.hear(Asker(p, message))
            if sum(m.op == "deadlock" for each in self.processes for m in each.inbox) > before:
                self.found += 1
                assert self.is_deadlock()

    def _ask(self, p: Process) -> None:
        if isinstance(p.waits_for, int):
            p.outbox.append(Message("waits", {"seconds": 1}))


def play(seed: int, monkeypatch, looks: type[Deadlocks], steps: int = 4000) -> int:
    model = Model(random.Random(seed), looks, acts=seed % 40)
    monkeypatch.setattr(deadlocks, "census", model.census)
    monkeypatch.setattr(deadlocks, "_shown", lambda look: "")
    for _ in range(steps):
        model.step()
    waits = any(isinstance(p.waits_for, int) for p in model.processes)
    assert model.found > 0 or not (model.is_deadlock() and waits)
    return model.found


class Looks(Deadlocks):
    def _is_quiet(self):
        return self._dispatcher.tasks.have_all_started()


def test_what_is_said_is_so_and_is_said_in_the_end(monkeypatch):
    assert sum(play(seed, monkeypatch, Looks) > 0 for seed in range(150)) > 50


class OneRound(Looks):
    def _end_round(self, look):
        self._look = None
        if deadlocks.census() == look.census and self._is_quiet():
            self._found(look)


def play_all(monkeypatch, looks):
    for seed in range(1000):
        play(seed, monkeypatch, looks)


@pytest.mark.slow
def test_with_one_round_it_would_say_what_is_not_so(monkeypatch):
    with pytest.raises(AssertionError):
        play_all(monkeypatch, OneRound)
