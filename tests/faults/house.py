"""Errands in compiled code, which waits for others without a time limit: so somebody keeps the house where they meet.

The host is a thread of the script, which nobody kills. In each of its turns it rings, for all who wait to be told, empties the letterbox, opens the
door that a dead process has locked, and takes away from the party whoever of it has died.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable

import gomp
from tests.chan_load import Deep, Item

TURN_S = 0.01
LONG = 10  # turns after which who holds something is taken for dead
PATIENCE_S = 0.02
HIGH = 1 << 20  # keys
END_S = 60.0


@gomp.struct
class House:
    door: gomp.Mutex
    bell: gomp.Chan[int]  # closed when it rings: then there is another
    letterbox: gomp.Chan[int]
    party: gomp.WaitGroup


@gomp.struct
class Pair:
    first: gomp.Inline[Item]
    second: gomp.Inline[Item]


HOUSE = gomp.Global("faults.house", House)
SEEN = gomp.Global("faults.seen", Item)  # by compiled code


@gomp.frame
class Partygoer:
    """Waits until everybody is done, then at the bell, and passes the door."""

    house: House
    got: int
    at: int

    def step(f) -> gomp.Action:
        f.at += 1
        if f.at == 1:
            return f.wait(f.house.party)
        if f.at == 2:
            return f.recv(f.house.bell, into="got")
        if f.at == 3:
            return f.lock(f.house.door)
        if f.at == 4:
            f.house.door.unlock()
        return f.ret()


@gomp.compiled
def pass_door(house: House, n: int) -> int:
    """So slowly that others come to it meanwhile."""
    house.door.lock()
    passed = 0
    for _ in range(n):
        block = gomp.array(int, n)
        block[0] = 1
        passed += block[0]
    house.door.unlock()
    return passed


@gomp.compiled
def wait_for_bell(house: House) -> int:
    """Raises ClosedChannel."""
    return house.bell.recv()


@gomp.compiled
def post(house: House, n: int) -> None:
    house.letterbox.send(n)


@gomp.compiled
def post_or_wait(house: House, n: int) -> int:
    place, _, _ = gomp.select(house.letterbox.sending(n), house.bell.receiving())
    return place


@gomp.compiled
def wait_for_either(house: House, other: gomp.Chan[int]) -> int:
    place, _, _ = gomp.select(other.receiving(), house.bell.receiving())
    return place


@gomp.compiled
def come_and_go(house: House) -> None:
    house.party.add(1)
    house.party.done()


@gomp.compiled
def outstay(house: House) -> None:
    """Wait until all others are done."""
    house.party.wait()


@gomp.compiled
def bring_others(house: House, n: int) -> int:
    """Goroutines that compiled code starts, and one whose end it waits for."""
    for _ in range(n):
        gomp.go(Partygoer, house=house)
    return Deep.run(depth=n)


@gomp.compiled
def fill(n: int) -> int:
    """How many a map holds, all of whose keys are of compiled code."""
    numbers = gomp.map(int, Item)
    for i in range(n):
        numbers[HIGH + i] = gomp.new(Item, i, -i)
    found = len(numbers)
    numbers.clear()
    return found + len(numbers)


@gomp.compiled
def look_weakly(n: int) -> int:
    """How often a weak pointer led to what it was made of."""
    item = gomp.new(Item, n, -n)
    found = 0
    for _ in range(n):
        pointer = gomp.weak(item)
        held = pointer.value()
        if held is not None and held.check == -n:
            found += 1
    item.check = 0
    return found


@gomp.compiled
def leave_and_take(n: int) -> int:
    """What a global holds after this process, or another, has set it."""
    SEEN.set(gomp.new(Item, n, -n))
    found = SEEN.get()
    return 0 if found is None else found.number + found.check


async def visit(house: House, n: int) -> int:
    """A goroutine of Python's, which waits at the bell."""
    with contextlib.suppress(gomp.ClosedChannel):
        await house.bell.receiving()
    return n


class Guest:
    """The errands of one process, each one thing."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.house = HOUSE.get()
        self.all: list[Callable[[], None]] = [
            self.pass_door, self.wait_for_bell, self.post, self.post_or_wait, self.wait_for_either, self.come_and_go,
            self.outstay, self.bring_others, self.fill, self.look_weakly, self.leave_and_take, self.come_slowly,
            self.choose_awaiting, self.outstay_awaiting, self.look_into_a_pair, self.come_as_python,
        ]  # fmt: skip

    def step(self) -> None:
        self.rng.choice(self.all)()

    def pass_door(self) -> None:
        n = self.rng.randrange(1, 3000)
        with contextlib.suppress(RuntimeError):  # the host has taken this process for dead
            if (found := pass_door(self.house, n)) != n:
                raise AssertionError(f"{n} blocks say that they are {found}")

    def wait_for_bell(self) -> None:
        with contextlib.suppress(gomp.ClosedChannel):
            raise AssertionError(f"nobody sends, and {wait_for_bell(self.house)} has come")

    def post(self) -> None:
        post(self.house, self.rng.randrange(1000))

    def post_or_wait(self) -> None:
        post_or_wait(self.house, self.rng.randrange(1000))

    def wait_for_either(self) -> None:
        if wait_for_either(self.house, gomp.Chan[int]()) != 1:
            raise AssertionError("nobody else has this channel, and something has come")

    def come_and_go(self) -> None:
        with contextlib.suppress(ValueError):  # as above
            come_and_go(self.house)

    def outstay(self) -> None:
        outstay(self.house)

    def come_slowly(self) -> None:
        """With others who wait until this one goes."""
        self.house.party.add(1)
        bring_others(self.house, self.rng.randrange(3))
        with contextlib.suppress(ValueError):
            self.house.party.done()

    def bring_others(self) -> None:
        n = self.rng.randrange(3)
        if (found := bring_others(self.house, n)) != n:
            raise AssertionError(f"{found} frames, and {n} were to be")

    def fill(self) -> None:
        n = self.rng.randrange(200)
        if (found := fill(n)) != n:
            raise AssertionError(f"a map of {n} has {found}")

    def look_weakly(self) -> None:
        n = self.rng.randrange(1, 50)
        if (found := look_weakly(n)) != n:
            raise AssertionError(f"a weak pointer has led {found} times of {n} to what is held")

    def leave_and_take(self) -> None:
        if leave_and_take(self.rng.randrange(1000)) != 0:
            raise AssertionError("a global holds what nobody has set")

    def choose_awaiting(self) -> None:
        async def awaited() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await gomp.selecting(self.house.letterbox.sending(1), self.house.bell.receiving())

        with contextlib.suppress(TimeoutError):
            asyncio.run(awaited())

    def outstay_awaiting(self) -> None:
        async def awaited() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await self.house.party.waiting()

        with contextlib.suppress(TimeoutError):
            asyncio.run(awaited())

    def come_as_python(self) -> None:
        gomp.go(visit, self.house, self.rng.randrange(1, 5))

    def look_into_a_pair(self) -> None:
        n = self.rng.randrange(1000)
        pair = gomp.new(Pair)
        pair.first.number, pair.second.number = n, -n
        if pair.first.number + pair.second.number != 0:
            raise AssertionError("a part of an object does not hold what was stored in it")
        if gomp.pointer(pair.first, "number") == gomp.pointer(pair.second, "number"):
            raise AssertionError("two parts of an object are in one place")


class Host:
    """Keeps the house, from now on until :meth:`close`."""

    def __init__(self) -> None:
        HOUSE.set(gomp.new(House, gomp.Mutex(), gomp.Chan[int](), gomp.Chan[int](), gomp.WaitGroup()))
        self.house = HOUSE.get()
        self.letters = self.locked = self.pending = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="host", daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        with contextlib.suppress(gomp.RuntimeLost):  # which others tell
            while not self._is_over.wait(TURN_S):
                self._ring()
                self._empty_letterbox()
                self._see_to_the_dead()

    def _ring(self) -> None:
        before, self.house.bell = self.house.bell, gomp.Chan[int]()
        before.close()

    def _empty_letterbox(self) -> None:
        while gomp.select(self.house.letterbox.receiving(), default=True)[0] == 0:
            self.letters += 1

    def _see_to_the_dead(self) -> None:
        self.locked = self.locked + 1 if self.house.door.locked() else 0
        if self.locked > LONG:
            with contextlib.suppress(RuntimeError):  # it lives
                self.house.door.unlock()
        self.pending = self.pending + 1 if self.house.party.pending else 0
        if self.pending > LONG:
            with contextlib.suppress(ValueError):
                self.house.party.done()

    def close(self) -> None:
        """When nobody is on errands any more. Whoever still waits in the house has what he waits for."""
        self._is_over.set()
        self._thread.join(END_S)
        while self.house.party.pending:
            self.house.party.done()
        if self.house.door.locked():
            self.house.door.unlock()
        self._ring()
        self.house.bell.close()
        HOUSE.set(None)
        SEEN.set(None)
