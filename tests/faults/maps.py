"""Maps for the harness of kills: each writer goes through a sequence that is known beforehand, so what one that was killed has left is known too.

A sequence is a number of operations, one after another: operation ``n`` is about place ``n % PLACES``, and each seventh takes away what is there. So
whoever finds what a dead writer has left can tell how far it came, and that all before that is there and nothing after it.

Each writer has two sequences: one of ordinary Python, whose keys are of every kind, and one of compiled code.
"""

from __future__ import annotations

import random

import gomp

PLACES = 211
STEP = 40
HIGH = 1 << 40  # above: the keys of compiled code
CONTENDED = 16
Key = int | str | bytes


@gomp.struct
class Item:
    owner: int
    number: int


MAP = gomp.Global("faults.map", gomp.Map[Item])
CLAIMED = gomp.Global("faults.claimed", gomp.Map[Item])


def key_of(owner: int, place: int) -> Key:
    return (f"{owner}/{place}", f"{owner}/{place}".encode() * (1 + place % 9), owner * 1000 + place)[place % 3]


def high_key_of(owner: int, place: int) -> Key:
    return owner * HIGH + HIGH + place


def is_removal(n: int) -> bool:
    return n % 7 == 3


def state_after(operations: int) -> dict[int, int]:
    """The number at each place that has one."""
    last = range(max(operations - PLACES, 0), operations)
    return {n % PLACES: n for n in last if not is_removal(n)}


@gomp.compiled
def write(shared: gomp.Map[Item], owner: int, first: int, n: int) -> int:
    """Do operations from ``first``; how many found something else than the sequence says."""
    wrong = 0
    for number in range(first, first + n):
        key = owner * HIGH + HIGH + number % PLACES
        found = shared.get(key)
        before = number - PLACES
        if before < 0 or before % 7 == 3:
            wrong += found is not None
        elif found is None:
            wrong += 1
        else:
            wrong += found.number != before
        if number % 7 != 3:
            shared[key] = gomp.new(Item, owner, number)
        elif key in shared:
            del shared[key]
    return wrong


class Writer:
    """One owner of keys. ``done``: how many operations of either sequence."""

    def __init__(self, owner: int, rng: random.Random) -> None:
        self.owner, self.rng = owner, rng
        self.done = [0, 0]

    def step(self) -> None:
        shared = MAP.get()
        for n in range(self.done[0], self.done[0] + STEP):
            self._operate(shared, n)
            self.done[0] = n + 1
        if write(shared, self.owner, self.done[1], STEP):
            raise AssertionError("compiled code finds in a map what it has not left there")
        self.done[1] += STEP
        self._claim()
        if self.rng.random() < 0.05:
            self._walk(shared)

    def _operate(self, shared: gomp.Map[Item], n: int) -> None:
        key = key_of(self.owner, n % PLACES)
        if is_removal(n):
            found = shared.pop(key, None)
        else:
            found = shared.get(key)
            shared[key] = gomp.new(Item, self.owner, n)
        before = n - PLACES
        expected = None if before < 0 or is_removal(before) else before
        if (None if found is None else found.number) != expected:
            raise AssertionError(f"map: {key!r} holds {found!r}, not number {expected}")

    def _claim(self) -> None:
        """Keys that all are after: whoever is first has it, until somebody takes it away."""
        claimed = CLAIMED.get()
        place = self.rng.randrange(CONTENDED)
        item = claimed.setdefault(place, gomp.new(Item, self.owner, place))
        gone = claimed.pop(self.rng.randrange(CONTENDED), item)
        if item.number != place or not 0 <= gone.number < CONTENDED:
            raise AssertionError("map: a contended key has the value of another")

    def _walk(self, shared: gomp.Map[Item]) -> None:
        found = {key: item.number for key, item in shared.items() if item.owner == self.owner}
        if found != expected_of(self.owner, self.done):
            raise AssertionError("map: a walk does not meet what is there")


def expected_of(owner: int, done: list[int]) -> dict[Key, int]:
    low, high = map(state_after, done)
    return {key_of(owner, place): n for place, n in low.items()} | {
        high_key_of(owner, place): n for place, n in high.items()
    }


def settle(owner: int, done: list[int] | None) -> None:
    """Take away what a writer has left, which is what ``done`` says; None if it died, and nobody knows but the map."""
    shared = MAP.get()
    for which, key in enumerate((key_of, high_key_of)):
        left = {p: item.number for p in range(PLACES) if (item := shared.pop(key(owner, p), None)) is not None}
        if done is None:
            reached = max(left.values(), default=-1) + 1
            possible = (
                [state_after(reached), state_after(reached + 1)] if is_removal(reached) else [state_after(reached)]
            )
        else:
            possible = [state_after(done[which])]
        if left not in possible:
            raise AssertionError(f"map: writer {owner}, {'killed' if done is None else done}, has left {left}")
