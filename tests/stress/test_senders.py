"""Ps that send graphs of objects to one another while the heap is collected without pause, freed memory is clobbered, and marking is checked."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import signal
import time

import pytest

import gomp
from gomp.config import RuntimeSettings
from gomp.runtime.transit import outbox

MAX_OBJECTS = 60


@gomp.struct
class Part:
    left: Part
    right: Part
    number: int
    seal: int


def seal(number: int) -> int:
    """A freed object, or one whose memory was given out again, does not have it."""
    return int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:7], "little")


def build(rng: random.Random, given: list[Part]) -> tuple[Part, list[int]]:
    """A graph of new and of given objects, and the numbers of all that is reachable from its root."""
    parts = list(given)
    for _ in range(rng.randrange(1, 20)):
        number = rng.getrandbits(40)
        part = gomp.new(Part, number=number, seal=seal(number))
        for side in ("left", "right"):
            if parts and rng.random() < 0.7:
                setattr(part, side, rng.choice(parts))
        parts.append(part)
    return parts[-1], walk(parts[-1])


def walk(root: Part) -> list[int]:
    """Numbers of what is reachable, in the order of a search; each object checked."""
    seen: dict[int, int] = {}
    ahead = [root]
    while ahead and len(seen) < MAX_OBJECTS:
        part = ahead.pop()
        if hash(part) in seen:
            continue
        assert part.seal == seal(part.number), f"{part.number:#x} has the seal {part.seal:#x}"
        seen[hash(part)] = part.number
        ahead += [child for child in (part.right, part.left) if child is not None]
    return list(seen.values())


def relay(root: Part, expected: list[int], seed: int, hops: int) -> tuple[Part, list[int]]:
    """Check a graph that another P has sent, build on it, send it on, and give back what comes of that."""
    rng = random.Random(seed)
    assert walk(root) == expected
    mine, numbers = build(rng, [root])
    del root
    other = gomp.array(Part, 2)
    other[1] = mine
    spare = pickle.dumps(other)  # lies about on the way, and is the only reference to what is in it for a while
    del other
    gomp.array(int, rng.randrange(1, 20_000))
    if hops:
        mine, numbers = gomp.go(relay, mine, numbers, rng.getrandbits(40), hops - 1).wait()
    assert walk(mine) == numbers
    kept = pickle.loads(spare)
    walk(kept[1])
    return mine, numbers


def run(seconds: float, seed: int, kills: bool, godebug: str = "clobberfree=1,gccheckmark=1,gccollectevery=3") -> int:
    """Relays until the time is over; how many ended well. Raises what any of them finds wrong."""
    rng = random.Random(seed)
    settings = RuntimeSettings(procs=2, max_heap=256 << 20, godebug=godebug)
    done = 0
    with gomp.Runtime.of(settings) as rt:
        until = time.monotonic() + seconds
        running: list[tuple[gomp.Goroutine, list[int]]] = []
        last, numbers = build(rng, [])
        while time.monotonic() < until:
            while len(running) < 3:
                running.append((rt.go(relay, last, numbers, rng.getrandbits(40), rng.randrange(4)), numbers))
            if kills and rng.random() < 0.2:
                pid = int(_p(rng.randrange(2)).xpid)
                if pid:
                    os.kill(pid, signal.SIGKILL)
            goroutine, _ = running.pop(0)
            try:
                last, numbers = goroutine.wait()
            except (
                gomp.WorkerDied,
                gomp.StaleReference,
            ):  # it, or a goroutine that it waited for, or whoever sent its result
                assert kills
                last, numbers = build(rng, [])
                continue
            finally:
                del goroutine
            assert walk(last) == numbers
            done += 1
        for goroutine, _ in running:
            try:
                goroutine.wait()
            except (gomp.WorkerDied, gomp.StaleReference):
                assert kills
        running.clear()
        rt.gc()
        assert rt.verify(3).startswith("verified at level 3")
        assert rt.stats().num_gc > 20
        outbox.settle()
        assert len(outbox) == 0
    return done


def _p(idx: int) -> object:
    from gomp.core.shm import layout
    from gomp.core.shm.records import p_dtype, view

    return view(p_dtype, layout.p_addr(idx))[0]


@pytest.mark.parametrize("seed", [1, 2])
def test_graphs_arrive_whole_while_the_heap_is_collected(seed):
    assert run(6, seed, kills=False) > 10


@pytest.mark.slow
def test_graphs_arrive_whole_or_not_at_all_while_ps_are_killed():
    assert run(10, 3, kills=True) > 3


@pytest.mark.slow
def test_two_minutes_of_kills():
    assert run(120, 4, kills=True) > 50
