"""Processes, attached ones and Ps, share a map, an array and a lock: each has a model of what is its own, and all count what is common."""

from __future__ import annotations

import threading
import time

import gomp
from tests.map_load import SHARED, Item, mixed_load

OWNERS, PART = 10, 64
ARRAY = gomp.Global("share.array", gomp.Array[int])
COMMON = gomp.Global("share.common", gomp.Array[int])
LOCK = gomp.Global("share.lock", gomp.Mutex)


def prepare() -> None:
    SHARED.set(gomp.map(Item))
    ARRAY.set(gomp.array(int, OWNERS * PART))
    COMMON.set(gomp.array(int, 1))
    LOCK.set(gomp.Mutex())


def value(owner: int, i: int, round_: int) -> int:
    return round_ * 1_000_000 + owner * 1000 + i if round_ else 0


@gomp.compiled
def change_part(array: gomp.Array[int], owner: int, round_: int) -> int:
    """Make the owner's part what it is in this round; how many elements are not as the last has left them."""
    wrong = 0
    for i in range(PART):
        before = round_ - 1
        wrong += array[owner * PART + i] != (before * 1_000_000 + owner * 1000 + i if before else 0)
        array[owner * PART + i] = round_ * 1_000_000 + owner * 1000 + i
    return wrong


def share(owner: int, seconds: float) -> tuple[int, int]:
    """Change all of it for so long: rounds of the array's part, how often it was counted, and how many keys there are in the end."""
    array, common, lock = ARRAY.get(), COMMON.get(), LOCK.get()
    counted, wrong, until = 0, 0, time.monotonic() + seconds

    def change_array() -> None:
        nonlocal counted, wrong
        while time.monotonic() < until:
            wrong += change_part(array, owner, counted + 1)
            with lock:
                common[0] += 1
            counted += 1

    thread = threading.Thread(target=change_array)
    thread.start()
    model, _, _ = mixed_load(owner, seconds, owner)
    thread.join()
    assert wrong == 0, f"{wrong} elements are not as they were left"
    assert [array[owner * PART + i] for i in range(PART)] == [value(owner, i, counted) for i in range(PART)]
    return counted, len(model)


def on_the_ps(rt: gomp.Runtime, seconds: float) -> int:
    """As :func:`share`, two programs on Ps; how often they have counted."""
    running = [rt.go(share, owner, seconds) for owner in (8, 9)]
    return sum(started.wait()[0] for started in running)


def count() -> int:
    return int(COMMON.get()[0])
