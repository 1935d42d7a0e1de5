"""A runtime in a /dev/shm that is full again and again, whatever is just done (see ``test_full_shm``): prints how often each operation had no memory.

Two Ps and the script make objects of every kind. Each operation either does what it should, and what it made is looked at, or raises gomp.OutOfMemory
and has done nothing. Whoever finds out later that a page is missing would be killed by SIGBUS.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gomp
from gomp.core.shm import layout
from gomp.core.shm.records import p_dtype, view
from tests.chan_load import Deep

PROCS = 2
ROUND_S = 0.3  # how long it is full at a time
ROOMS = (0, 0, 1 << 14, 1 << 16, 1 << 18, 1 << 20)  # bytes that are left in a full one
FILLER = Path("/dev/shm/filler")


@gomp.struct
class Cell:
    number: int
    next: Cell
    name: gomp.Str


@gomp.compiled
def chain(n: int) -> Cell:
    head: Cell = None
    for i in range(n):
        head = gomp.new(Cell, number=i, next=head)
    return head


@gomp.compiled
def length(head: Cell) -> int:
    n = 0
    while head is not None:
        if head.number < 0:
            return -1
        n += 1
        head = head.next
    return n


CELLS = gomp.Pool(Cell, name="full.cells")
KEPT = [gomp.Global(f"full.kept{i}", Cell) for i in range(8)]


def make_chain(rng: random.Random) -> None:
    n = rng.randrange(20_000)
    head = chain(n)
    assert length(head) == n
    rng.choice(KEPT).set(head)


def make_array(rng: random.Random) -> None:
    n = rng.randrange(1, 300_000)
    made = gomp.array(int, n)
    assert made[n - 1] == made[0] == 0
    made[n - 1] = n


def make_ndarray(rng: random.Random) -> None:
    made = gomp.ndarray((rng.randrange(1, 400), 1000), float)
    made[-1, -1] = 1.5
    assert made.sum() == 1.5


def make_texts(rng: random.Random) -> None:
    n = rng.randrange(50_000)
    cell = gomp.new(Cell, number=n, name=gomp.str("ab" * n))
    assert str(cell.name) == "ab" * n


def fill_map(rng: random.Random) -> None:
    made, n = gomp.map(Cell), rng.randrange(2000)
    done = 0
    try:
        for i in range(n):
            made[str(i)] = gomp.new(Cell, number=i)
            done += 1
    finally:
        assert len(made) in (done, done + 1)  # the last may be there when its table could not grow after it
        assert all(made[str(i)].number == i for i in range(done))


def run_goroutines(rng: random.Random) -> None:
    depth = rng.randrange(2000)
    assert Deep.run(depth=depth) == depth


def fill_channel(rng: random.Random) -> None:
    n = rng.randrange(1, 5000)
    made = gomp.Chan[Cell](n)
    for i in range(n):
        made.send(gomp.new(Cell, number=i))
    assert [made.recv().number for _ in range(n)] == list(range(n))


def use_pool(rng: random.Random) -> None:
    taken = [CELLS.get() or gomp.new(Cell) for _ in range(100)]
    for cell in taken:
        CELLS.put(cell)


def register(rng: random.Random) -> None:
    for i in range(200):
        cell = gomp.new(Cell, number=i)
        gomp.add_cleanup(cell, len, ())
        assert gomp.weak(cell).value() is cell or gomp.weak(cell).value().number == i


OPERATIONS: tuple[Callable[[random.Random], None], ...] = (
    make_chain,
    make_array,
    make_ndarray,
    make_texts,
    fill_map,
    run_goroutines,
    fill_channel,
    use_pool,
    register,
)


def work(seconds: float, seed: int) -> dict[str, int]:
    """How often each operation had no memory."""
    rng, failed = random.Random(seed), collections.Counter[str]()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        operation = rng.choice(OPERATIONS)
        try:
            operation(rng)
        except gomp.OutOfMemory:
            failed[operation.__name__] += 1
    return dict(failed)


def fill(rng: random.Random) -> None:
    """All but a little of what is free."""
    room = os.statvfs("/dev/shm")
    size = room.f_bavail * room.f_frsize - rng.choice(ROOMS)
    with FILLER.open("wb") as file, contextlib.suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, max(size, 1))


def hoard(rng: random.Random) -> list[object]:
    """What is left in the heap: large objects, or small ones too."""
    kept: list[object] = []
    for words in (1 << 15, 1 << 11, 1 << 8)[: rng.randrange(1, 4)]:
        with contextlib.suppress(gomp.OutOfMemory):
            while True:
                kept.append(gomp.array(int, words))
    with contextlib.suppress(gomp.OutOfMemory):
        while rng.random() < 0.999:
            kept.append(chain(100))
    return kept


def main(seconds: float, seed: int) -> None:
    print(f"seed {seed}", file=sys.stderr, flush=True)
    rng, failed = random.Random(seed), collections.Counter[str]()
    with gomp.Runtime(procs=PROCS, max_heap="256MiB", gogc=50) as rt:
        pids = [int(view(p_dtype, layout.p_addr(i))[0].xpid) for i in range(PROCS)]
        failed.update(work(0.5, 1))
        assert not failed, f"there was room, and no memory for {dict(failed)}"
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            gomp.debug.free_os_memory()  # so that whatever is done next has to ask for pages again
            working = [rt.go(work, ROUND_S, rng.getrandbits(32)) for _ in range(PROCS)]
            fill(rng)
            kept = hoard(rng)
            failed.update(work(ROUND_S / 2, rng.getrandbits(32)))
            rt.gc()
            del kept
            for goroutine in working:
                failed.update(goroutine.wait(60))
            if rng.random() < 0.5:
                FILLER.unlink()
                rt.verify(3)
        FILLER.unlink(missing_ok=True)
        rt.gc()
        rt.verify(3)
        assert work(0.5, 2) == {}
        assert pids == [int(view(p_dtype, layout.p_addr(i))[0].xpid) for i in range(PROCS)], "a P has died"
    print(json.dumps(failed))


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
