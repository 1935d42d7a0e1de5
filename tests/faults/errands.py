"""What is done now and then while processes are killed: each step one thing, by chance, which waits for others a moment at most."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable

import gomp
from tests.chan_load import Item

PATIENCE_S = 0.02
HELD_S = 0.005
POOLS = 8


@gomp.struct
class Meeting:
    """Where all who are on errands meet: a lock, channels without room, and one whose end all see."""

    mutex: gomp.Mutex
    here: gomp.Chan[int]
    there: gomp.Chan[int]
    end: gomp.Chan[int]


MEETING = gomp.Global("faults.meeting", Meeting)


@gomp.frame
class Listener:
    """Waits until its channel is closed, or everything ends."""

    mine: gomp.Chan[int]
    end: gomp.Chan[int]
    got: int
    place: int
    waits: bool

    def step(f) -> gomp.Action:
        if f.waits:
            return f.ret()
        f.waits = True
        return f.select(f.mine.receiving(into="got"), f.end.receiving(into="got"), into="place")


@gomp.frame
class Adder:
    """One of a group, and is done."""

    group: gomp.WaitGroup
    n: int

    def step(f) -> gomp.Action:
        f.group.done()
        return f.ret()


@gomp.frame
class Failing:
    n: int

    def step(f) -> gomp.Action:
        if f.n >= 0:
            raise ValueError("as it is to")
        return f.ret()


@gomp.compiled
def talk_alone(n: int) -> int:
    """Channels, a lock and a group of its own, in compiled code."""
    pipe, group, mutex = gomp.Chan[int](2), gomp.WaitGroup(), gomp.Mutex()
    group.add(1)
    mutex.lock()
    pipe.send(n)
    pipe.send(1)
    _, total, _ = gomp.select(pipe.receiving(), pipe.receiving())
    pipe.close()
    total += pipe.recv()
    mutex.unlock()
    group.done()
    group.wait()
    return total


@gomp.compiled
def close_for(listener: gomp.Chan[int]) -> None:
    """Close it, in compiled code."""
    listener.close()


class Errands:
    """Those of one process."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.meeting = MEETING.get()
        self.all: list[Callable[[], None]] = [
            self.lock, self.send, self.receive, self.choose, self.wait_for_group, self.talk_alone, self.close,
            self.fail, self.clear, self.use_pool, self.look_weakly, self.wait_awaiting, self.lock_awaiting,
        ]  # fmt: skip

    def step(self) -> None:
        with contextlib.suppress(TimeoutError):
            self.rng.choice(self.all)()

    def lock(self) -> None:
        mutex = self.meeting.mutex
        with contextlib.suppress(TimeoutError):  # who has it may be dead: it is the next one's
            mutex.lock(PATIENCE_S)
        time.sleep(HELD_S * self.rng.random())
        with contextlib.suppress(RuntimeError):
            mutex.unlock()

    def send(self) -> None:
        self._one().send(1, PATIENCE_S)

    def receive(self) -> None:
        self._one().recv(PATIENCE_S)

    def choose(self) -> None:
        one, other = self.meeting.here, self.meeting.there
        cases = [one.sending(1), other.receiving()] if self.rng.random() < 0.5 else [one.receiving(), other.sending(1)]
        gomp.select(*cases, timeout=PATIENCE_S)

    def wait_for_group(self) -> None:
        group, n = gomp.WaitGroup(), self.rng.randrange(1, 4)
        group.add(n)
        for _ in range(n):
            gomp.go(Adder, group=group)
        group.wait(PATIENCE_S)

    def talk_alone(self) -> None:
        n = self.rng.randrange(1000)
        if (total := talk_alone(n)) != n + 1:
            raise AssertionError(f"{n} and 1 are {total}")

    def close(self) -> None:
        mine = gomp.Chan[int]()
        for _ in range(self.rng.randrange(3)):
            gomp.go(Listener, mine=mine, end=self.meeting.end)
        time.sleep(HELD_S)
        mine.close() if self.rng.random() < 0.5 else close_for(mine)

    def fail(self) -> None:
        gomp.go(Failing, n=self.rng.randrange(10))

    def clear(self) -> None:
        numbers, n = gomp.map(Item), self.rng.randrange(200)
        for i in range(n):
            numbers[i] = gomp.new(Item, i, -i)
        if len(numbers) != n:
            raise AssertionError(f"a map of {n} has {len(numbers)}")
        numbers.clear()

    def use_pool(self) -> None:
        pool = gomp.Pool(Item, name=f"faults.pool{self.rng.randrange(POOLS)}")
        pool.put(pool.get() or gomp.new(Item, 0, 0))

    def look_weakly(self) -> None:
        item = gomp.new(Item, 1, -1)
        pointer = gomp.weak(item)
        for _ in range(self.rng.randrange(1, 50)):
            if (found := pointer.value()) is None or found.number != 1:
                raise AssertionError("a weak pointer leads to something else than what is held")
        item.number = 0

    def wait_awaiting(self) -> None:
        async def awaited() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await (self._one().sending(1) if self.rng.random() < 0.5 else self._one().receiving())

        asyncio.run(awaited())

    def lock_awaiting(self) -> None:
        async def awaited() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await self.meeting.mutex.locking()
            self.meeting.mutex.unlock()

        asyncio.run(awaited())

    def _one(self) -> gomp.Chan[int]:
        return self.meeting.here if self.rng.random() < 0.5 else self.meeting.there


def open_meeting() -> None:
    """Before the first errand."""
    MEETING.set(gomp.new(Meeting, gomp.Mutex(), gomp.Chan[int](), gomp.Chan[int](), gomp.Chan[int]()))


def close_meeting() -> None:
    """After the last one: whoever listens for one who has died is told."""
    MEETING.get().end.close()
    MEETING.set(None)
