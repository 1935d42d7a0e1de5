"""Goroutines that wait for ever: a collection finds exactly those, whoever else waits, and keeps what they have."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest

import gomp
from gomp.core.heap.gs import num_goroutines
from gomp.core.shm import layout
from gomp.core.shm.records import LEAKS_HIDE, LEAKS_REVEAL, SCHED, p_dtype, sched_dtype, view

Numbers = gomp.Array[int]
KEPT = gomp.Global("tests.leaks.kept", gomp.Chan[int])


@gomp.struct
class Box:
    """What leads to a channel from the heap."""

    ch: gomp.Chan[int]
    next: Box
    size: int


@gomp.frame
class Receives:
    ch: gomp.Chan[int]
    box: Box
    has: bool

    def step(f) -> gomp.Action:
        if f.has:
            return f.ret()
        f.has = True
        return f.recv(f.ch)


@gomp.frame
class Sends:
    ch: gomp.Chan[int]
    has: bool

    def step(f) -> gomp.Action:
        if f.has:
            return f.ret()
        f.has = True
        return f.send(f.ch, 1)


@gomp.frame
class Runs:
    """Never waits: it has its turn again and again until it may end."""

    box: Box
    end: Box

    def step(f) -> gomp.Action:
        if f.end.size != 0:
            return f.ret()
        return f.yield_()


@gomp.compiled
def boxes(n: int) -> Box:
    first = gomp.new(Box)
    for _ in range(n):
        first = gomp.new(Box, next=first)
    return first


@gomp.compiled
def last(box: Box) -> Box:
    while box.next is not None:
        box = box.next
    return box


@gomp.compiled
def receive(ch: gomp.Chan[int]) -> int:
    return ch.recv()


def waiting() -> set[int]:
    return {g.id for g in gomp.debug.goroutines() if g.status == "waiting"}


def wait_until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def leaked() -> set[int]:
    return {g.id for g in gomp.debug.leaked_goroutines()}


@pytest.fixture(scope="module")
def rt():
    with gomp.Runtime(procs=2) as runtime:
        yield runtime
        assert runtime.verify(3).startswith("verified")


@pytest.fixture
def before(rt):
    """Those that other tests have leaked."""
    wait_until(lambda: num_goroutines() == len(waiting()))
    return leaked()


def test_who_waits_at_what_nobody_can_reach_has_leaked(rt, before):
    kept, lost = gomp.Chan[int](), gomp.Chan[int]()
    mine = gomp.go(Receives, ch=lost)
    others = {gomp.go(Sends, ch=gomp.Chan[int]()), gomp.go(Receives), gomp.go(Sends)}
    alive = {gomp.go(Receives, ch=kept), gomp.go(Receives, ch=kept)}
    wait_until(lambda: waiting() >= {mine, *others, *alive})
    assert leaked() - before == others
    del lost
    assert leaked() - before == {mine, *others}
    assert leaked() - before == {mine, *others}
    kept.close()
    wait_until(lambda: not waiting() & alive)


@pytest.mark.parametrize("by", ["a global", "an object", "another who waits", "one that runs", "a buffer"])
def test_whoever_can_still_be_reached_has_not(rt, before, by):
    """Along whatever leads to the channel, a long way."""
    ch, own, end = gomp.Chan[int](), gomp.Chan[int](), gomp.new(Box)
    box, letters, ids = boxes(1000), None, {gomp.go(Receives, ch=ch)}
    last(box).ch = ch
    if by == "a global":
        KEPT.set(ch)
    elif by == "another who waits":
        ids.add(gomp.go(Receives, ch=own, box=box))
    elif by == "one that runs":
        gomp.go(Runs, box=box, end=end)
    elif by == "a buffer":
        letters = gomp.Chan[Box](1)
        letters.send(box)
    wait_until(lambda: waiting() >= ids)
    if by != "an object":
        del box
    del ch
    assert leaked() - before == set()
    KEPT.set(None)
    end.size = 1
    box = letters = own = None
    wait_until(lambda: leaked() - before == ids)


def test_a_program_that_waits_with_it_keeps_it(rt, before):
    ch = gomp.Chan[int]()
    goid = gomp.go(Receives, ch=ch)
    program = rt.go(receive, ch)
    wait_until(lambda: len(waiting() - before) == 2)
    weak = gomp.weak(ch)
    del ch
    assert leaked() - before == set()
    for _ in range(2):
        gomp.go(Sends, ch=weak.value())
    assert program.wait(timeout=20) == 1
    wait_until(lambda: goid not in waiting())


def test_what_it_has_is_kept_and_can_come_back(rt, before):
    """A weak pointer leads to its channel: so somebody may end its wait after all."""
    ch = gomp.Chan[int]()
    weak = gomp.weak(ch)
    goid = gomp.go(Receives, ch=ch)
    wait_until(lambda: goid in waiting())
    del ch
    assert leaked() - before == {goid}
    gomp.gc()
    gomp.gc()
    ch = weak.value()
    assert leaked() - before == set()
    ch.send(1)
    wait_until(lambda: goid not in waiting())


def test_who_waits_in_python_is_not_counted(rt, before):
    with pytest.raises(TimeoutError):
        gomp.Chan[int]().recv(timeout=0.01)
    assert leaked() == before


def test_a_chain_of_those_who_wait_is_followed_to_its_end(rt, before):
    """Each leads to the channel of the next: all of them are reached in as many rounds, or none."""
    first = ch = gomp.Chan[int]()
    ids = set()
    for _ in range(20):
        following = gomp.Chan[int]()
        box = gomp.new(Box, ch=following)
        ids.add(gomp.go(Receives, ch=ch, box=box))
        ch = following
    del box, following, ch
    wait_until(lambda: waiting() >= ids)
    assert leaked() - before == set()
    del first
    assert leaked() - before == ids


def test_it_goes_on_while_programs_do(rt, before):
    """Goroutines that hand numbers to and fro all the time, collections besides."""
    from workers import ping_pong

    lost = {gomp.go(Receives, ch=gomp.Chan[int]()) for _ in range(50)}
    wait_until(lambda: waiting() >= lost)
    game = rt.go(ping_pong.play, 50_000)
    looks = 0
    while looks < 2:
        assert leaked() - before == lost
        gomp.gc()
        looks += 1
    game.wait(timeout=60)
    assert leaked() - before == lost


@pytest.mark.slow
def test_killed_ps_change_nothing_of_what_is_found(monkeypatch):
    """While a look is on, in each of its modes; who is killed takes along what it runs, and no more."""
    monkeypatch.setenv("GODEBUG", "gccheckmark=1,clobberfree=1")
    rng = random.Random(8)
    sched = view(sched_dtype, SCHED)[0]
    with gomp.Runtime(procs=2, max_heap="512MiB") as rt:
        kept, tree = gomp.Chan[int](), boxes(300_000)
        lost = {gomp.go(Receives, ch=gomp.Chan[int](), box=tree) for _ in range(300)}
        alive = {gomp.go(Receives, ch=kept) for _ in range(300)}
        wait_until(lambda: waiting() >= lost | alive)
        kills, modes = 0, set()

        def kill():
            nonlocal kills
            mode = rng.choice((LEAKS_HIDE, LEAKS_REVEAL))
            until = time.monotonic() + 5
            while sched.leak_mode != mode and time.monotonic() < until:
                pass
            time.sleep(rng.uniform(0, 0.003))
            modes.add(int(sched.leak_mode))
            if (pid := int(view(p_dtype, layout.p_addr(rng.randrange(2)))[0].xpid)) > 0:
                os.kill(pid, signal.SIGKILL)
                kills += 1

        for _ in range(12):
            end = gomp.new(Box)
            for _ in range(4):
                gomp.go(Runs, box=tree, end=end)
            killer = threading.Thread(target=kill)
            killer.start()
            assert leaked() & (lost | alive) == lost
            killer.join()
            end.size = 1
            assert rt.verify(3).startswith("verified")
        assert kills >= 8
        assert modes & {LEAKS_HIDE, LEAKS_REVEAL}
        kept.close()
        wait_until(lambda: not waiting() & alive)
        assert leaked() == lost
