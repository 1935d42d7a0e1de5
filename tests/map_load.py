"""What several Ps do to one map at the same time, each with a model of the keys that are its own."""

from __future__ import annotations

import random
import time

import gomp


@gomp.struct
class Item:
    owner: int
    number: int


SHARED = gomp.Global("map_load.shared", gomp.Map[Item])
HIGH = 1 << 40  # above: the keys of compiled code


@gomp.compiled
def change_many(shared: gomp.Map[Item], owner: int, round_: int, n: int) -> int:
    """Change ``n`` keys of the owner's, of which every third goes; how many are not as they were left the last time."""
    wrong = 0
    first = (owner + 1) * HIGH
    for i in range(n):
        found = shared.get(first + i)
        if round_ == 0 or i % 3 == (round_ - 1) % 3:
            wrong += found is not None
        elif found is None:
            wrong += 1
        else:
            wrong += found.number != round_ - 1
    for i in range(n):
        if i % 3 == round_ % 3:
            if first + i in shared:
                del shared[first + i]
        else:
            shared[first + i] = gomp.new(Item, owner, round_)
    return wrong


def keys_of(owner: int, rng: random.Random) -> int | str | bytes:
    n = rng.randrange(400)
    return (f"{owner}/{n}", f"{owner}/{n}".encode() * (1 + n % 20), owner * 1000 + n)[n % 3]


def mixed_load(owner: int, seconds: float, seed: int) -> tuple[dict[int | str | bytes, int], int, int]:
    """Random changes for so long: the model of the owner's keys, how many rounds of compiled code, and how many operations."""
    rng = random.Random(seed)
    shared = SHARED.get()
    model: dict[int | str | bytes, int] = {}
    change_many(gomp.map(Item), owner, 0, 1)  # compiled before the clock runs
    until, rounds, done = time.monotonic() + seconds, 0, 0
    while time.monotonic() < until:
        if change_many(shared, owner, rounds, 300):
            raise AssertionError("compiled code finds what it has not left")
        rounds += 1
        for _ in range(200):
            done += 1
            key, draw = keys_of(owner, rng), rng.random()
            if draw < 0.4:
                shared[key] = gomp.new(Item, owner, done)
                model[key] = done
            elif draw < 0.6:
                gone = shared.pop(key, None)
                if (None if gone is None else gone.number) != model.pop(key, None):
                    raise AssertionError(f"popped another value of {key!r}")
            elif draw < 0.9:
                found = shared.get(key)
                if (None if found is None else found.number) != model.get(key):
                    raise AssertionError(f"another value of {key!r}")
            else:
                other = shared.get(keys_of(rng.randrange(8), rng))
                if other is not None and not 0 <= other.owner < 8:
                    raise AssertionError("a value that nobody made")
        if rounds % 10 == 0:
            mine = {key: item.number for key, item in shared.items() if item.owner == owner and not is_high(key)}
            if mine != model:
                raise AssertionError("a walk does not meet what is there")
    return model, rounds, done


def is_high(key: int | str | bytes) -> bool:
    return isinstance(key, int) and key >= HIGH


def claim(n: int, owner: int) -> int:
    """Be the first to have set key i, for i below n; how many times that was."""
    shared = SHARED.get()
    mine = gomp.new(Item, owner)
    return sum(shared.setdefault(i, mine) == mine for i in range(n))
