"""Goroutines at channels, for several tests."""

from __future__ import annotations

import time

import numpy as np

import gomp
from gomp.core.shm import layout
from gomp.core.shm.records import G_DEAD, SCHED, g_dtype, sched_dtype, view


@gomp.struct
class Item:
    number: int
    check: int


@gomp.frame
class Relay:
    """Hands on what it receives until there is no more."""

    source: gomp.Chan[Item]
    to: gomp.Chan[Item]
    item: Item
    ok: bool
    has: bool

    def step(f) -> gomp.Action:
        if not f.has:
            f.has = True
            return f.recv(f.source, into="item", ok="ok")
        if not f.ok:
            return f.ret()
        f.has = False
        return f.send(f.to, f.item)


@gomp.frame
class Produce:
    to: gomp.Chan[Item]
    first: int
    end: int

    def step(f) -> gomp.Action:
        if f.first == f.end:
            return f.ret()
        f.first += 1
        return f.send(f.to, gomp.new(Item, number=f.first - 1, check=-f.first))


@gomp.frame
class Deep(gomp.Frame[int]):
    """How many frames are below it, as they say through their pointers to the frame above."""

    depth: int
    up: Deep
    below: int
    is_back: bool
    padding: float

    def step(f) -> gomp.Action:
        if not f.is_back and f.depth > 0:
            f.is_back = True
            return f.call(Deep, depth=f.depth - 1, up=f)
        if f.up is not None:
            f.up.below = f.below + 1
        return f.ret(f.below)


@gomp.compiled
def litter(n: int) -> int:
    total = 0
    for i in range(n):
        total += gomp.new(Item, number=i).number
    return total


def goroutines() -> int:
    n = int(view(sched_dtype, SCHED)[0].ngs)
    return int(np.count_nonzero(view(g_dtype, layout.g_addr(1), n)["xstatus"] != G_DEAD))


def wait_until_none(seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while goroutines():
        assert time.monotonic() < deadline, f"{goroutines()} goroutines are left"
        time.sleep(0.005)
