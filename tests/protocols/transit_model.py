"""The protocol of references in transit as small processes in plain Python, interleaved at random between any two of their steps.

P 0 sends: objects that it made or found in a global, one pair of slots for all. Ps 1 and 2 receive: whatever bytes there are, also those that were
received before; now and then one is killed and started again. A mutator overwrites the global. The coordinator collects for ever, and repairs.
``yield`` is where others may run: between two of them a process does one access to what others see.

What must hold: nobody gets bytes twice, or another object than was sent; no object is freed that some root holds; the sender gets its pair back.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

SLOT, TICKET, HELD = 0, 1, 2  # words of the sender's table; of a receiver's only HELD
SENDER, RECEIVERS, MUTATOR = 0, (1, 2), 3
Steps = Iterator[None]


class Broken(AssertionError):
    """What must not happen has happened."""


class Model:
    """One world. ``mutant``: which step is left out or changed."""

    def __init__(self, seed: int, mutant: str = "") -> None:
        self.random = random.Random(seed)
        self.mutant = mutant
        self.tables = [[0, 0, 0] for _ in range(4)]
        self.buffers: list[set[int]] = [set() for _ in range(4)]  # of the write barrier
        self.in_kernel = [False] * 4
        self.claimed = [False] * 4
        self.deaths = [0] * 4
        self.dead: set[int] = set()
        self.stopped = self.marking = False
        self.marked: set[int] = set()
        self.alive: set[int] = set()
        self.made = 0
        self.global_ = self.new()
        self.number = 0
        self.mail: list[tuple[int, int]] = []  # bytes: (number, the object that was sent)
        self.received: list[int] = []
        self.waited = 0  # how long the sender has waited for its pair

    def run(self, steps: int) -> None:
        """Raises Broken."""
        processes = {SENDER: self.sender(), MUTATOR: self.mutator(), 4: self.coordinator()}
        processes |= {p: self.receiver(p) for p in RECEIVERS}
        for _ in range(steps):
            who = self.random.choice(list(processes))
            next(processes[who])
            if who in RECEIVERS and self.random.random() < 0.005:  # it is killed where it stands
                self.dead.add(who)
                self.deaths[who] += 1
                self.in_kernel[who] = False
                del processes[who]
            for p in RECEIVERS:
                if p not in processes and p not in self.dead:
                    processes[p] = self.receiver(p)

    # --- the heap -----------------------------------------------------------------------------------------------------

    def new(self) -> int:
        self.made += 1
        self.alive.add(self.made)
        if self.marking:
            self.marked.add(self.made)
        return self.made

    def shade(self, p: int, obj: int) -> None:
        if self.marking:
            self.buffers[p].add(obj)

    def enter(self, p: int) -> Steps:
        while self.stopped or self.claimed[p]:
            yield
        self.in_kernel[p] = True

    # --- processes ----------------------------------------------------------------------------------------------------

    def sender(self) -> Steps:
        table = self.tables[SENDER]
        while True:
            yield from self.enter(SENDER)
            table[HELD] = self.global_ or self.new()
            yield
            if self.mutant != "one number for all" or self.number == 0:
                self.number += 1
            table[SLOT] = table[HELD]
            yield
            table[TICKET] = -self.number
            self.mail = [*self.mail[-3:], (self.number, table[HELD])]
            yield
            self.in_kernel[SENDER] = False
            if self.random.random() < 0.7:
                yield
                table[HELD] = 0
            yield from self.settle(table)

    def settle(self, table: list[int]) -> Steps:
        """Wait until the pair is free again: received, revoked, or its receiver died."""
        self.waited = 0
        while table[SLOT] != 0:
            yield
            self.waited += 1
            if self.waited > 5000:
                raise Broken("the sender does not get its pair back")
            if table[TICKET] == -self.number:
                if self.random.random() < 0.02:
                    table[TICKET] = 1000
                    yield
                    table[SLOT] = 0
            elif table[TICKET] != 1000:
                p, deaths = divmod(table[TICKET] - 1000, 100_000)
                gone = self.deaths[p] != deaths and self.mutant != "dead claimers are waited for"
                if gone or self.mutant == "taken back when claimed":
                    yield
                    table[SLOT] = 0
        table[TICKET] = 0

    def receiver(self, p: int) -> Steps:
        mine, theirs = self.tables[p], self.tables[SENDER]
        while True:
            yield
            if not self.mail:
                continue
            number, obj = self.random.choice(self.mail)
            yield from self.enter(p)
            yield
            if theirs[TICKET] == -number:
                if self.mutant == "no compare-and-swap":
                    yield
                theirs[TICKET] = 1000 + 100_000 * p + self.deaths[p]
                yield
                yield from self.take(p, mine, theirs)
                if mine[HELD] != obj or (number in self.received and self.mutant != "one number for all"):
                    raise Broken("bytes are received twice, or as another object")
                self.received = [*self.received[-20:], number]
            self.in_kernel[p] = False
            for _ in range(self.random.randrange(200)):
                yield
            if mine[HELD] and mine[HELD] not in self.alive:
                raise Broken("a receiver holds an object that was freed")
            mine[HELD] = 0

    def take(self, p: int, mine: list[int], theirs: list[int]) -> Steps:
        got = theirs[SLOT]
        if self.mutant == "cleared before it is shaded":
            theirs[SLOT] = 0
            yield
            self.in_kernel[p] = False  # as if this were two stays in KERNEL
            for _ in range(50):
                yield
            yield from self.enter(p)
        yield
        if self.mutant != "not shaded":
            self.shade(p, got)
            yield
        mine[HELD] = got
        yield
        if self.mutant != "cleared before it is shaded":
            theirs[SLOT] = 0
            yield

    def mutator(self) -> Steps:
        """Overwrites the global, with the barrier."""
        while True:
            yield from self.enter(MUTATOR)
            if self.global_:
                self.shade(MUTATOR, self.global_)
            yield
            self.global_ = 0 if self.global_ else self.new()
            self.in_kernel[MUTATOR] = False
            for _ in range(self.random.randrange(60)):
                yield

    # --- the coordinator ----------------------------------------------------------------------------------------------

    def stop(self) -> Steps:
        self.stopped = True
        while any(self.in_kernel):
            yield

    def coordinator(self) -> Steps:
        while True:
            yield from self.stop()
            self.repair()
            self.marked, self.marking, self.stopped = set(), True, False
            while True:
                yield from self.scan()
                yield from self.stop()
                if not self.repair():
                    break
                self.stopped = False
            self.finish()
            self.marking = self.stopped = False
            for _ in range(self.random.randrange(30)):
                yield

    def scan(self) -> Steps:
        """Each root once, in any order: a P's table while the P is claimed."""
        jobs = [SENDER, *RECEIVERS, MUTATOR]
        self.random.shuffle(jobs)
        for p in jobs:
            if p == MUTATOR:
                self.marked.add(self.global_)
            while self.in_kernel[p]:
                yield
            self.claimed[p] = True
            for word in (HELD, SLOT) if self.random.random() < 0.5 else (SLOT, HELD):
                yield
                self.marked.add(self.tables[p][word])
            self.claimed[p] = False
            for _ in range(self.random.randrange(10)):
                yield

    def repair(self) -> bool:
        """World: stopped. Whether anybody had died: then marking starts over."""
        for p in self.dead:
            self.tables[p] = [0, 0, 0]
            self.buffers[p] = set()
        repaired, self.dead = bool(self.dead), set()
        if repaired and self.marking:
            self.marked = set()
            self.buffers = [set() for _ in range(4)]
        return repaired

    def finish(self) -> None:
        """World: stopped. What is not marked is freed."""
        for buffer in self.buffers:
            self.marked |= buffer
            buffer.clear()
        roots = {self.global_} | {table[word] for table in self.tables for word in (HELD, SLOT)}
        if roots - self.marked - {0}:
            raise Broken("an object that a root holds is not marked")
        self.alive &= self.marked
