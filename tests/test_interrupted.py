"""Ctrl-C anywhere in an operation: no slot is left without an owner, no object without a reference, and the interrupt is not lost."""

from __future__ import annotations

import contextlib
import gc
import pickle
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest
from interrupting import interrupted

import gomp
from gomp.core.mutator import boundary
from gomp.runtime import mapping, transit
from gomp.runtime.callbacks import callbacks
from gomp.runtime.channel import Channel
from tests.free_slots import free_handles, free_slots


@gomp.struct
class Node:
    value: int
    next: Node


@gomp.struct
class Large:
    nodes: gomp.Array[Node, 100]


@gomp.compiled
def successor(node: Node) -> Node:
    return node.next


@gomp.compiled
def weakly(node: Node) -> gomp.Weak[Node]:
    return gomp.weak(node)


@gomp.compiled
def tens(n: int) -> Any:
    return gomp.ndarray(n)


POOL = gomp.Pool(Node, name="interrupted")
NAMES = (
    "new", "a large one", "a field", "a field that is None", "an element", "an array", "a text", "an ndarray", "a map", "a key",
    "a key of any type", "a new key", "a walk", "a global", "a weak pointer", "what it points to", "a pointer", "a compiled program",
    "one with a weak pointer", "one with an array", "a pool", "a channel",
)  # fmt: skip


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def taken() -> int:
    """The slots that are not free, after a look whether none is free twice."""
    assert len(set(free_handles())) == free_slots()
    return boundary.handles_in_use() - free_slots()


@pytest.fixture(scope="module")
def node(rt: gomp.Runtime) -> Any:
    node = gomp.globals["node"] = gomp.new(Node, 1, gomp.new(Node, 2))
    return node


def operations(node: Any) -> dict[str, Callable[[], object]]:
    untyped, typed, channel = gomp.map(), gomp.map(int, Node), gomp.Chan[Node](4)
    untyped["key"] = typed[1] = node
    pointer, array = gomp.weak(node), gomp.array(Node, [node])

    def pass_through_pool() -> None:
        POOL.put(gomp.new(Node))
        POOL.get()

    def pass_through_channel() -> None:
        if not len(channel):
            channel.send(node)
        channel.recv()

    return {
        "new": lambda: gomp.new(Node, 1, node),
        "a large one": lambda: gomp.new(Large),
        "a field": lambda: node.next,
        "a field that is None": lambda: node.next.next,
        "an element": lambda: array[0],
        "an array": lambda: gomp.array(int, 3),
        "a text": lambda: gomp.str("text"),
        "an ndarray": lambda: gomp.ndarray(3),
        "a map": lambda: gomp.map(Node),
        "a key": lambda: typed[1],
        "a key of any type": lambda: untyped["key"],
        "a new key": lambda: (untyped.__setitem__("new", node), untyped.pop("new")),
        "a walk": lambda: list(untyped.items()),
        "a global": lambda: gomp.globals["node"],
        "a weak pointer": lambda: gomp.weak(node),
        "what it points to": pointer.value,
        "a pointer": lambda: gomp.pointer(node, "value"),
        "a compiled program": lambda: successor(node),
        "one with a weak pointer": lambda: weakly(node),
        "one with an array": lambda: tens(10),
        "a pool": pass_through_pool,
        "a channel": pass_through_channel,
    }


def places(use: Callable[[], object]) -> int:
    """How many places there are at which ``use()`` can be interrupted; after each of them everything is as it was."""
    use()
    use()
    before, n = taken(), 1
    while interrupted(use, n):
        assert taken() == before, f"after the {n}th place"
        n += 1
    assert taken() == before
    return n - 1


@pytest.mark.parametrize("name", NAMES)
def test_an_operation_that_is_interrupted_leaves_nothing(rt: gomp.Runtime, node: Any, name: str) -> None:
    assert places(operations(node)[name]) > 0
    assert node.next.value == 2


def test_sending_that_is_interrupted_leaves_nothing(rt: gomp.Runtime, node: Any) -> None:
    class Undone(Exception):
        pass

    def send() -> None:
        with contextlib.suppress(Undone), transit.parcel():
            transit.dumps([node, node.next])
            sys.setprofile(None)
            raise Undone

    assert places(send) > 0
    assert len(transit.outbox) == 0


def test_receiving_that_is_interrupted_leaves_nothing(rt: gomp.Runtime, node: Any) -> None:
    before, n = taken(), 1
    data = pickle.dumps(node)
    while interrupted(partial(pickle.loads, data), n):
        with contextlib.suppress(gomp.StaleReference):
            pickle.loads(data)
        transit.outbox.settle()
        assert taken() == before
        data, n = pickle.dumps(node), n + 1
    transit.outbox.settle()
    assert taken() == before
    assert n > 1


def test_settling_that_is_interrupted_gives_nothing_twice(rt: gomp.Runtime, node: Any) -> None:
    before, n, again = taken(), 1, True
    while again:
        for _ in range(2):
            pickle.loads(pickle.dumps(node))
        again = interrupted(transit.outbox.settle, n)
        transit.outbox.settle()
        assert taken() == before
        n += 1
    assert n > 2


@pytest.mark.parametrize("register", [gomp.set_finalizer, lambda obj, fn: gomp.add_cleanup(obj, fn, 1)])
def test_registering_that_is_interrupted_is_done_or_not(rt: gomp.Runtime, register: Callable[..., object]) -> None:
    """Whatever function is known then is one that the heap knows too, and is run; no other is, and none is kept."""
    known, ran, registered, n, again = callbacks._functions, [], 0, 1, True
    register(gomp.new(Node), lambda _: ran.append(0))  # the start of a thread is Python's own, and not exact
    rt.gc()
    rt.gc()
    until(lambda: ran == [0])
    before = len(known)
    while again:
        obj, functions = gomp.new(Node), len(known)
        again = interrupted(partial(register, obj, lambda _: ran.append(1)), n)
        registered += len(known) - functions
        n += 1
    assert 0 < registered < n - 1
    del obj
    rt.gc()
    rt.gc()
    until(lambda: len(ran) == 1 + registered and len(known) == before)


def test_ctrl_c_is_neither_lost_in_a_reference_that_dies_nor_loses_it(
    rt: gomp.Runtime, node: Any, monkeypatch: Any
) -> None:
    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    untyped = gomp.map()
    untyped["key"] = node
    gc.collect()
    gc.disable()  # what others have left behind may lose it, too
    former = signal.signal(signal.SIGALRM, raise_interrupt)
    try:
        for use in (lambda: node.next, lambda: gomp.new(Node), lambda: untyped["key"]):
            before = taken()
            for i in range(100):
                end = time.monotonic() + 10
                with contextlib.suppress(KeyboardInterrupt):
                    signal.setitimer(signal.ITIMER_REAL, 0.0002 + i * 0.000007)
                    while time.monotonic() < end:
                        use()
                    pytest.fail(f"it was lost in {lost}")
            assert (taken(), len(lost)) == (before, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
        gc.enable()


def raise_interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def test_a_view_that_dies_while_ctrl_c_comes_is_not_looked_at_for_ever(rt: gomp.Runtime) -> None:
    looked_at, n = len(mapping._views), 1
    arrays = [gomp.ndarray(3)]
    while interrupted(arrays.clear, n):
        arrays, n = [gomp.ndarray(3)], n + 1
    arrays.clear()
    assert len(mapping._views) == looked_at


def two() -> int:
    return 2


def test_submitting_that_is_interrupted_is_done_or_not(rt: gomp.Runtime) -> None:
    with gomp.Executor(rt) as executor:
        executor.submit(two).result(10)
        n = 1
        while interrupted(partial(executor.submit, two), n):
            assert executor.submit(two).result(10) == 2
            n += 1
    assert n > 2


def test_starting_a_goroutine_that_is_interrupted_sends_nothing_twice(rt: gomp.Runtime, node: Any) -> None:
    outcome = rt.run(two)
    before, n = taken(), 1
    while interrupted(partial(rt.go, two), n):
        assert rt.run(two) == outcome
        n += 1
    transit.outbox.settle()
    assert taken() == before
    assert n > 2


def test_a_message_whose_sending_is_interrupted_arrives_once_or_not() -> None:
    sender, receiver = map(Channel, socket.socketpair())
    told: list[int] = []
    sender.written = partial(told.append, 1)
    n = 1
    while interrupted(partial(sender.send, "number", n=n), n):
        sender.flush()
        n += 1
    arrived = [message["n"] for message in receiver.receive()]
    assert arrived == sorted(set(arrived))
    assert arrived[-1] == n
    assert len(told) >= len(arrived)
    assert sender.is_flushed
    for channel in (sender, receiver):
        channel.close()
