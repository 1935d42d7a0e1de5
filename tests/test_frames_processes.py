"""Frames in several processes: what a script declares runs on every P, and a P that is killed takes only its own goroutine along."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from concurrent.futures import wait

import numpy as np

import gomp
from gomp.core.shm import layout
from gomp.core.shm.records import G_DEAD, SCHED, g_dtype, sched_dtype, view

SEED = 20
MOST_KILLS, ENOUGH = 100, 2  # until so many tasks were hit, and so many were not


@gomp.struct
class Node:
    left: Node
    right: Node


@gomp.compiled
def build(depth: int):
    node = gomp.new(Node)
    if depth > 0:
        node.left = build(depth - 1)
        node.right = build(depth - 1)
    return node


@gomp.frame
class Copy(gomp.Frame[Node]):
    old: Node
    calls: int
    left: Node
    right: Node

    def step(f) -> gomp.Action:
        if f.old is None:
            return f.ret(None)
        f.calls += 1
        if f.calls == 1:
            return f.call(Copy, old=f.old.left, into="left")
        if f.calls == 2:
            return f.call(Copy, old=f.old.right, into="right")
        return f.ret(gomp.new(Node, left=f.left, right=f.right))


@gomp.frame
class Count(gomp.Frame[int]):
    node: Node
    up: Count
    calls: int
    nodes: int
    got: int

    def step(f) -> gomp.Action:
        if f.node is not None and f.calls == 0:
            f.calls = 1
            f.nodes = 1
            return f.call(Count, node=f.node.left, up=f)
        if f.node is not None and f.calls == 1:
            f.calls = 2
            return f.call(Count, node=f.node.right, up=f)
        if f.up is not None:
            f.up.nodes += f.nodes
        return f.ret(f.nodes)


@gomp.frame
class Deep(gomp.Frame[int]):
    depth: int
    below: int
    is_back: bool

    def step(f) -> gomp.Action:
        if f.is_back or f.depth == 0:
            return f.ret(f.below + 1)
        f.is_back = True
        return f.call(Deep, depth=f.depth - 1, into="below")


def goroutines() -> int:
    records = view(g_dtype, layout.g_addr(1), int(view(sched_dtype, SCHED)[0].ngs))
    return int(np.count_nonzero(records["xstatus"] != G_DEAD))


def work(tree: Node, depth: int) -> tuple[int, int]:
    copied = Copy.run(old=Copy.run(old=tree))
    return Count.run(node=copied), Deep.run(depth=depth)


def test_a_p_that_is_killed_takes_only_its_own_goroutine_along(monkeypatch) -> None:
    monkeypatch.setenv("GODEBUG", "clobberfree=1,gccheckmark=1,gccollectevery=20")
    draw = random.Random(SEED)
    died = done = 0
    with (
        gomp.Runtime(procs=2) as rt,
        gomp.Executor(rt) as executor,
    ):
        tree = build(9)
        assert rt.run(work, tree, 100) == (1023, 101)
        began = time.monotonic()
        rt.run(work, tree, 50_000)
        takes_s = time.monotonic() - began
        for _ in range(MOST_KILLS):
            if died > ENOUGH and done > ENOUGH:
                break
            depths = [draw.randrange(50_000) for _ in range(4)]
            tasks = [executor.submit(work, tree, depth) for depth in depths]
            time.sleep(draw.random() * takes_s)
            if pid := rt.stats().ps[draw.randrange(2)].pid:  # 0: that one was not replaced yet
                with contextlib.suppress(ProcessLookupError):  # nobody has noticed yet that it is dead
                    os.kill(pid, signal.SIGKILL)
            wait(tasks, timeout=60)
            for task, depth in zip(tasks, depths, strict=True):
                if isinstance(task.exception(), gomp.WorkerDied):
                    died += 1
                else:
                    assert task.result() == (1023, depth + 1)
                    done += 1
        rt.gc()
        assert "verified" in str(rt.verify())
        assert goroutines() == 0
    assert min(died, done) > ENOUGH, f"{done} tasks were done, and {died} were hit"


def adding(n: int):
    @gomp.frame
    class Adding:
        to: int
        ch: gomp.Chan[int]
        has: bool

        def step(f) -> gomp.Action:
            if f.has:
                return f.ret()
            f.has = True
            return f.send(f.ch, f.to + n)

    return Adding


def adding_of_a_tuple(n: int):
    numbers = (n,)

    @gomp.frame
    class Adding:
        to: int
        ch: gomp.Chan[int]
        has: bool

        def step(f) -> gomp.Action:
            if f.has:
                return f.ret()
            f.has = True
            return f.send(f.ch, f.to + numbers[0])

    return Adding


def adding_by_another(n: int):
    @gomp.compiled
    def added(to: int, more: int = n) -> int:
        return to + more

    @gomp.frame
    class Adding:
        to: int
        ch: gomp.Chan[int]
        has: bool

        def step(f) -> gomp.Action:
            if f.has:
                return f.ret()
            f.has = True
            return f.send(f.ch, added(f.to))

    return Adding


def test_a_frame_that_is_declared_anew_does_what_it_says_now_on_every_p():
    """As a cell of a notebook that was changed and run again: the name and the slots are the same."""
    with gomp.Runtime(procs=2) as rt:
        ch = gomp.Chan[int](64)
        for make in (adding, adding_of_a_tuple, adding_by_another):
            for n in (1, 10, 100):
                cls = make(n)
                for _ in range(50):
                    gomp.go(cls, to=1000, ch=ch)
                time.sleep(0.2)  # in Python: the other P runs them
                assert {ch.recv() for _ in range(50)} == {1000 + n}
        assert rt.verify(3).startswith("verified")
