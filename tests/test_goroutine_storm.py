"""Goroutines that are started, wait, wake, yield, grow and shrink at random, on two Ps that steal from each other: none is lost, none runs twice."""

from __future__ import annotations

import threading
import time

import pytest

import gomp
from tests.chan_load import Deep, wait_until_none

DEEPEST = 63  # frames: beyond 8 KiB


@gomp.compiled
def following(state: int) -> int:
    """Knuth's generator; the low bits are the worst."""
    return state * 6364136223846793005 + 1442695040888963407


@gomp.frame
class Node:
    """One of a tree: says to the one above how many there are in its part of it."""

    number: int
    size: int
    state: int
    reply: gomp.Chan[int]
    mine: gomp.Chan[int]
    runs: gomp.Array[int]  # how often each has been here
    faults: gomp.Array[int]
    at: int
    children: int
    total: int
    got: int
    wanted: int
    depth: int

    def step(f) -> gomp.Action:
        f.state = following(f.state)
        if f.state >> 44 & 511 == 0:
            for _ in range(5_000_000):  # longer than a slice, so that others run in the middle of it
                f.state = following(f.state)
        if f.at == 0:
            f.at = 1
            f.runs[f.number] += 1
            f.total = 1
            f.mine = gomp.Chan[int](f.number & 1)
            for child in range(2 * f.number + 1, min(2 * f.number + 3, f.size)):
                gomp.go(
                    Node, number=child, size=f.size, state=f.state + child, reply=f.mine, runs=f.runs, faults=f.faults
                )
                f.children += 1
        if f.depth != f.wanted:
            f.faults[0] += 1
        if f.at == 1 and f.state >> 33 & 7 == 0:
            f.wanted = f.state >> 40 & DEEPEST
            return f.call(Deep, depth=f.wanted, into="depth")
        if f.at == 1 and f.state >> 36 & 3 != 1:
            return f.yield_()
        if f.at == 1 and f.children > 0:
            f.children -= 1
            f.at = 2
            return f.recv(f.mine, into="got")
        if f.at == 2:
            f.total += f.got
            f.at = 1
            return f.yield_()
        if f.at == 1:
            f.at = 3
            return f.send(f.reply, f.total)
        return f.ret()


@pytest.mark.parametrize("seconds", [1, pytest.param(300, marks=pytest.mark.slow)])
def test_a_storm(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    monkeypatch.setenv("GODEBUG", "gccheckmark=1,clobberfree=1,adaptivestackstart=0")
    size, rounds = 1 << (10 if seconds == 1 else 13), 0
    with gomp.Runtime(procs=2, gogc=50, max_heap="1GiB") as rt:
        stop = threading.Event()

        def collect() -> None:
            while not stop.is_set():
                rt.gc()

        collecting = threading.Thread(target=collect)
        collecting.start()
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end or rounds < 2:
                rounds += 1
                reply, runs, faults = gomp.Chan[int](), gomp.array(int, size), gomp.array(int, 1)
                gomp.go(
                    Node, number=0, size=size, state=88172645463325252 + rounds, reply=reply, runs=runs, faults=faults
                )
                assert reply.recv(60) == size
                assert (set(runs), faults[0]) == ({1}, 0)
        finally:
            stop.set()
            collecting.join()
        wait_until_none()
        rt.verify()
    print(f"{rounds} storms of {size:,}")


@gomp.struct
class Item:
    value: int
    next: Item


@gomp.frame
class Holds:
    """Has its item in its stack alone, waits until ``hold`` is closed, and says whether the item is what it was."""

    out: gomp.Chan[bool]
    hold: gomp.Chan[int]
    item: Item
    number: int
    steps: int
    got: int

    def step(f) -> gomp.Action:
        f.steps += 1
        if f.steps == 1:
            return f.recv(f.hold, into="got")
        if f.steps == 2:
            return f.send(f.out, f.item.value == f.number and f.item.next.value == -f.number)
        return f.ret()


@gomp.compiled
def hold(out: gomp.Chan[bool], until_closed: gomp.Chan[int], first: int, n: int) -> int:
    for number in range(first, first + n):
        item = gomp.new(Item, value=number)
        item.next = gomp.new(Item, value=-number)
        gomp.go(Holds, out=out, hold=until_closed, item=item, number=number)
    return first + n


@gomp.frame
class Idles:
    forever: gomp.Chan[int]
    got: int

    def step(f) -> gomp.Action:
        return f.recv(f.forever, into="got")


@gomp.compiled
def idle(forever: gomp.Chan[int], n: int) -> None:
    for _ in range(n):
        gomp.go(Idles, forever=forever)


@pytest.mark.parametrize("seconds", [1, pytest.param(60, marks=pytest.mark.slow)])
def test_who_is_woken_while_the_heap_is_marked_keeps_what_its_stack_holds(
    monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """A thousand others that wait keep the markers busy with stacks; what was freed by mistake is overwritten."""
    monkeypatch.setenv("GODEBUG", "clobberfree=1")
    with gomp.Runtime(procs=1) as rt:
        idle(gomp.Chan[int](), 1000)
        out, number, cycles, stop = gomp.Chan[bool](1000), 0, 0, threading.Event()

        def collect() -> None:
            nonlocal cycles
            while not stop.is_set():
                rt.gc()
                cycles += 1

        collecting = threading.Thread(target=collect)
        collecting.start()
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                until_closed, seen = gomp.Chan[int](), cycles
                number = hold(out, until_closed, number, 500)
                while cycles < seen + 3:
                    time.sleep(0.002)
                until_closed.close()
                assert [out.recv(timeout=60) for _ in range(500)] == [True] * 500
        finally:
            stop.set()
            collecting.join()
        rt.verify()
