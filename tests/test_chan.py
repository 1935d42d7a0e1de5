"""Channels between goroutines of all kinds: order, hand-off, closing, waiting, and what a collection does to those who wait."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections import deque

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gomp
from gomp.errors import CompileError
from tests.chan_load import Item, Produce, Relay, goroutines, litter, wait_until_none


@pytest.fixture(scope="module")
def rt():
    with gomp.Runtime(procs=2, gogc=50) as runtime:
        yield runtime
        wait_until_none()
        assert "verified" in runtime.verify()


# --- one process ------------------------------------------------------------------------------------------------------


def test_what_is_sent_is_received_in_order(rt):
    ch = gomp.Chan[int](3)
    assert (len(ch), ch.capacity) == (0, 3)
    for i in range(3):
        ch.send(i)
    assert len(ch) == 3
    assert [ch.recv(), ch.recv()] == [0, 1]
    ch.send(3)
    ch.close()
    assert list(ch) == [2, 3]


@pytest.mark.parametrize(("kind", "values"), [(int, [-(1 << 63), 7]), (float, [0.1, -1e300]), (bool, [True, False])])
def test_numbers_of_each_kind(rt, kind, values):
    ch = gomp.Chan[kind](2)
    for value in values:
        ch.send(value)
    received = [ch.recv() for _ in values]
    assert received == values
    assert all(type(each) is kind for each in received)


def test_references_and_none(rt):
    ch = gomp.Chan[Item](2)
    ch.send(gomp.new(Item, number=5))
    ch.send(None)
    rt.gc()
    assert ch.recv().number == 5
    assert ch.recv() is None


def test_a_closed_channel(rt):
    ch = gomp.Chan[int](1)
    ch.send(1)
    ch.close()
    with pytest.raises(gomp.ClosedChannel, match="send on closed channel"):
        ch.send(2)
    with pytest.raises(gomp.ClosedChannel, match="close of closed channel"):
        ch.close()
    assert ch.recv() == 1
    with pytest.raises(gomp.ClosedChannel, match="receive from a closed channel that is empty"):
        ch.recv()
    assert ch.get(default=-1) == -1
    assert list(ch) == []


def test_a_wait_has_an_end(rt):
    ch = gomp.Chan[int]()
    with pytest.raises(TimeoutError, match=r"nobody was at the other end of the channel within 0\.05 s"):
        ch.recv(timeout=0.05)
    with pytest.raises(TimeoutError):
        ch.send(1, timeout=0.05)
    threading.Timer(0.05, ch.send, [2]).start()
    assert ch.recv(timeout=10) == 2


def test_what_a_channel_does_not_take(rt):
    with pytest.raises(TypeError, match=r"a Chan\[int\] "):
        gomp.Chan[int](1).send("1")
    with pytest.raises(OverflowError):
        gomp.Chan[int](1).send(1 << 63)
    with pytest.raises(TypeError, match=r"a Chan\[Item\] holds a Item or None"):
        gomp.Chan[Item](1).send(gomp.str("x"))
    with pytest.raises(TypeError, match="a channel is of int, float, bool or a class of references"):
        gomp.Chan[str]
    with pytest.raises(ValueError, match="n is how many values it holds"):
        gomp.Chan[int](-1)
    with pytest.raises(TypeError, match=r"write gomp\.Chan\[T\]\(n\)"):
        gomp.Chan(1)


@gomp.compiled
def send_a_float(ch: gomp.Chan[int]) -> None:
    ch.send(0.5)


def test_nor_does_compiled_code(rt):
    with pytest.raises(CompileError, match=r"a Chan\[int\] holds an int, not float64"):
        send_a_float(gomp.Chan[int](1))


operations = st.lists(st.tuples(st.sampled_from(["send", "recv", "close"]), st.integers(-9, 9)), max_size=40)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(0, 4), program=operations)
def test_it_is_a_queue_of_so_many(rt, size, program):
    ch, model, is_closed = gomp.Chan[int](size), deque(), False
    for operation, value in program:
        if operation == "send":
            if is_closed:
                with pytest.raises(gomp.ClosedChannel):
                    ch.send(value)
            elif len(model) < size:
                ch.send(value)
                model.append(value)
            else:
                with pytest.raises(TimeoutError):
                    ch.send(value, timeout=0)
        elif operation == "recv":
            if model:
                assert ch.recv() == model.popleft()
            elif is_closed:
                assert ch.get(default="none") == "none"
            else:
                with pytest.raises(TimeoutError):
                    ch.recv(timeout=0)
        elif not is_closed:
            ch.close()
            is_closed = True
        assert len(ch) == len(model)
    assert goroutines() == 0


# --- frames, programs and scripts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 100])
def test_a_pipeline(rt, size):
    channels = [gomp.Chan[Item](size) for _ in range(4)]
    for source, to in itertools.pairwise(channels):
        gomp.go(Relay, source=source, to=to)
    gomp.go(Produce, to=channels[0], end=3000)
    for number in range(3000):
        item = channels[-1].recv(timeout=30)
        assert (item.number, item.check) == (number, -number - 1)
        if number % 1000 == 0:
            rt.run(litter, 20_000)
    for ch in channels:
        ch.close()
    wait_until_none()


@gomp.compiled
def produce(to: gomp.Chan[Item], n: int) -> None:
    for i in range(n):
        to.send(gomp.new(Item, number=i, check=-i - 1))
    to.close()


@gomp.compiled
def consume(source: gomp.Chan[Item], n: int) -> int:
    total = 0
    for _ in range(n):
        item = source.recv()
        if item.check != -item.number - 1:
            return -1
        total += item.number
    return total


@pytest.mark.parametrize("size", [0, 7])
def test_programs_wait_too(rt, size):
    first, last = gomp.Chan[Item](size), gomp.Chan[Item](size)
    gomp.go(Relay, source=first, to=last)
    consumer = rt.go(consume, last, 2000)
    produce(first, 2000)
    assert consumer.wait(60) == sum(range(2000))
    wait_until_none()


@gomp.frame
class Nested(gomp.Frame[int]):
    ch: gomp.Chan[int]

    def step(f) -> gomp.Action:
        return f.ret(f.ch.recv())


def test_a_step_does_not_wait_within_itself(rt):
    with pytest.raises(RuntimeError, match=r"a step would wait here"):
        Nested.run(ch=gomp.Chan[int]())
    full = gomp.Chan[int](1)
    full.send(4)
    assert Nested.run(ch=full) == 4


def test_all_who_wait_at_a_channel_that_is_closed_are_told(rt):
    source, to = gomp.Chan[Item](), gomp.Chan[Item]()
    for _ in range(3000):
        gomp.go(Relay, source=source, to=to)
    while goroutines() < 3000:
        time.sleep(0.01)
    rt.gc()
    source.close()
    wait_until_none()


def test_who_waits_keeps_what_it_sends(rt):
    ch = gomp.Chan[Item]()
    for i in range(200):
        gomp.go(Produce, to=ch, first=i, end=i + 1)
    time.sleep(0.1)
    for _ in range(3):
        rt.gc()
        rt.run(litter, 100_000)
    items = [ch.recv(timeout=20) for _ in range(200)]
    assert {item.number for item in items} == set(range(200))
    assert all(item.check == -item.number - 1 for item in items)


def test_threads_of_a_script_wait_each_by_itself(rt):
    ch = gomp.Chan[int]()
    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(ch.get(default=0))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for i in range(5):
        ch.send(i + 1)
    ch.close()
    for thread in threads:
        thread.join(20)
    assert sorted(got) == [0, 0, 0, 0, 0, 1, 2, 3, 4, 5]


def test_each_thread_gets_what_it_has_received(rt):
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    wrong = []

    def echo(mark: int) -> None:
        ch = gomp.Chan[int](1)
        for i in range(3000):
            ch.send(mark + i)
            if ch.recv() != mark + i:
                wrong.append(i)

    try:
        threads = [threading.Thread(target=echo, args=(mark,)) for mark in (0, 1_000_000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    assert wrong == []
