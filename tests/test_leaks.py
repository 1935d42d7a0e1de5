"""Goroutines that wait for ever: a collection finds exactly those, whoever else waits, and keeps what they have."""

from __future__ import annotations

import time

import numpy as np
import pytest

import gomp
from gomp.core.shm import layout
from gomp.core.shm.records import G_STATUS_MASK, G_WAITING, SCHED, g_dtype, sched_dtype, view
from gomp.runtime import current

Numbers = gomp.Array[int]


@gomp.struct
class Held:
    numbers: Numbers
    ch: gomp.Chan[int]


@gomp.frame
class Receives:
    ch: gomp.Chan[int]
    held: Held
    done: gomp.Chan[int]
    has: bool

    def step(f) -> gomp.Action:
        if not f.has:
            f.has = True
            return f.recv(f.ch)
        if f.done is not None:
            f.done.send(len(f.held.numbers))
        return f.ret()


@gomp.frame
class Sends:
    ch: gomp.Chan[int]
    has: bool

    def step(f) -> gomp.Action:
        if not f.has:
            f.has = True
            return f.send(f.ch, 1)
        return f.ret()


@gomp.compiled
def held(n: int) -> Held:
    return gomp.new(Held, numbers=gomp.array(int, n))


def records():
    n = int(view(sched_dtype, SCHED)[0].ngs)
    return view(g_dtype, layout.g_addr(1), n)


def leaked() -> set[int]:
    """Ids of those that a collection finds now."""
    n = current.peer().ask("find_leaks")["leaked"]
    found = {int(g.id) for g in records() if int(g.xstatus) & G_STATUS_MASK == G_WAITING and g.leaked}
    assert len(found) == n
    return found


def wait_until_waiting(ids) -> None:
    deadline = time.monotonic() + 10
    while not ids <= {int(g.id) for g in records() if int(g.xstatus) & G_STATUS_MASK == G_WAITING}:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_who_waits_at_what_nobody_can_reach_has_leaked(rt):
    kept = gomp.Chan[int]()
    lost = gomp.Chan[int]()
    theirs = {gomp.go(Receives, ch=lost), gomp.go(Sends, ch=gomp.Chan[int]()), gomp.go(Receives), gomp.go(Sends)}
    others = {gomp.go(Receives, ch=kept), gomp.go(Sends, ch=gomp.globals["kept"] if False else kept)} if False else {gomp.go(Receives, ch=kept)}
    wait_until_waiting(theirs | others)
    assert leaked() == theirs - {min(theirs)}
    del lost
    assert leaked() == theirs
    assert leaked() == theirs
    kept.close()
