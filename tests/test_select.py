"""Select: from frames, compiled code and Python, over channels that others use meanwhile."""

from __future__ import annotations

import collections
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gomp
from gomp.core.mutator import selectcalls
from gomp.core.sched.status import OK, RETRY
from gomp.errors import CompileError
from tests.chan_load import Item, goroutines, wait_until_none


@gomp.frame
class Merge:
    """Sends on what it receives from both, until both are closed."""

    a: gomp.Chan[int]
    b: gomp.Chan[Item]
    out: gomp.Chan[int]
    number: int
    item: Item
    ok: bool
    place: int
    has: bool

    def step(f) -> gomp.Action:
        if f.has:
            f.has = False
            if f.ok:
                return f.send(f.out, f.number if f.place == 0 else f.item.number)
            if f.place == 0:
                f.a = None
            else:
                f.b = None
        if f.a is None and f.b is None:
            f.out.close()
            return f.ret()
        f.has = True
        return f.select(f.a.receiving(into="number", ok="ok"), f.b.receiving(into="item", ok="ok"), into="place")


@gomp.compiled
def send_numbers(to: gomp.Chan[int], n: int) -> None:
    for i in range(n):
        to.send(i)
    to.close()


@gomp.compiled
def send_items(to: gomp.Chan[Item], n: int) -> None:
    for i in range(n):
        to.send(gomp.new(Item, number=-1 - i))
    to.close()


@pytest.fixture(scope="module")
def rt():
    with gomp.Runtime(procs=2, gogc=50) as runtime:
        yield runtime
        wait_until_none()
        assert "verified" in runtime.verify()


def test_the_heap_is_whole_in_the_middle_of_a_select(rt):
    """From Python it is several kernels, between which anything may happen."""
    g = again(selectcalls.select_begin)
    try:
        assert g > 0
        assert "verified" in rt.verify()
    finally:
        assert again(selectcalls.select_end, g) == OK


def again(kernel, *args):
    """Its result, when no stop of the world keeps it from being entered any more."""
    while (result := kernel(*args)) == RETRY:
        time.sleep(0.001)
    return result


@pytest.mark.parametrize("size", [0, 3])
def test_a_frame_merges_two_channels(rt, size):
    a, b, out = gomp.Chan[int](size), gomp.Chan[Item](size), gomp.Chan[int](size)
    gomp.go(Merge, a=a, b=b, out=out)
    programs = [rt.go(send_numbers, a, 1000), rt.go(send_items, b, 1000)]
    assert sorted(out) == list(range(-1000, 1000))
    assert [each.wait(60) for each in programs] == [None, None]


@gomp.compiled
def receive_from_two(a: gomp.Chan[Item], b: gomp.Chan[Item], n: int) -> int:
    total = 0
    for _ in range(n):
        place, item, _ = gomp.select(a.receiving(), b.receiving())
        total += item.number if place == 0 else -item.number
    return total


def test_python_and_a_program(rt):
    a, b = gomp.Chan[Item](), gomp.Chan[Item](2)
    program = rt.go(receive_from_two, a, b, 200)
    sent = 0
    for i in range(200):
        item = gomp.new(Item, number=i)
        place, value, ok = gomp.select(a.sending(item), b.sending(item), timeout=30)
        assert (value, ok) == (None, True)
        sent += i if place == 0 else -i
        if i % 50 == 0:
            rt.gc()
    assert program.wait(60) == sent


def test_any_of_those_that_can_be_done(rt):
    channels = [gomp.Chan[int](1) for _ in range(3)]
    chosen: collections.Counter[int] = collections.Counter()
    for _ in range(300):
        for ch in channels[:2]:
            if not len(ch):
                ch.send(1)
        place, value, ok = gomp.select(*(ch.receiving() for ch in channels))
        assert (value, ok) == (1, True)
        chosen[place] += 1
    assert set(chosen) == {0, 1}
    assert min(chosen.values()) > 60


@gomp.compiled
def choose(a: gomp.Chan[int], b: gomp.Chan[int], n: int) -> int:
    first = 0
    for _ in range(n):
        a.send(1)
        b.send(1)
        place, _, _ = gomp.select(a.receiving(), b.receiving())
        if place == 0:
            first += 1
            b.recv()
        else:
            a.recv()
    return first


def test_any_in_compiled_code(rt):
    """Of 4,000, five standard deviations around the half: at an even pace, too, which a choice by the clock does not survive."""
    assert 1842 < choose(gomp.Chan[int](1), gomp.Chan[int](1), 4000) < 2158


@gomp.compiled
def select_or_not(ch: gomp.Chan[int]) -> int:
    place, value, ok = gomp.select(ch.receiving(), default=True)
    return place if not ok else 100 + value


def test_without_waiting(rt):
    ch = gomp.Chan[int](1)
    assert gomp.select(ch.receiving(), default=True) == (-1, None, False)
    assert select_or_not(ch) == -1
    ch.send(5)
    assert select_or_not(ch) == 105
    assert gomp.select(default=True) == (-1, None, False)


def test_a_wait_has_an_end(rt):
    ch = gomp.Chan[int]()
    with pytest.raises(TimeoutError, match=r"none of the cases could be done within 0\.05 s"):
        gomp.select(ch.receiving(), ch.sending(1), timeout=0.05)
    threading.Timer(0.05, ch.send, [2]).start()
    assert gomp.select(ch.receiving(), ch.sending(1), timeout=10) == (0, 2, True)
    assert goroutines() == 0


def test_closed_channels(rt):
    a, b = gomp.Chan[int](), gomp.Chan[Item]()
    threading.Timer(0.05, b.close).start()
    assert gomp.select(a.receiving(), b.receiving(), timeout=10) == (1, None, False)
    with pytest.raises(gomp.ClosedChannel, match="send on closed channel"):
        gomp.select(b.sending(None))
    threading.Timer(0.05, a.close).start()
    with pytest.raises(gomp.ClosedChannel, match="send on closed channel"):
        gomp.select(a.sending(1), timeout=10)


@gomp.compiled
def two_classes(a: gomp.Chan[int], b: gomp.Chan[Item]) -> int:
    place, _, _ = gomp.select(a.receiving(), b.receiving())
    return place


@gomp.frame
class WrongSlot:
    a: gomp.Chan[int]
    item: Item

    def step(f) -> gomp.Action:
        return f.select(f.a.receiving(into="item"))


def test_mistakes(rt):
    ch = gomp.Chan[int]()
    with pytest.raises(TypeError, match=r"gomp\.select takes ch\.receiving\(\) and ch\.sending\(value\)"):
        gomp.select(ch)
    with pytest.raises(TypeError, match="names slots of a frame"):
        ch.receiving(into="x")
    with pytest.raises(CompileError, match="receives from channels of one class"):
        two_classes(ch, gomp.Chan[Item]())
    with pytest.raises(
        CompileError, match=r"ch\.receiving: Chan\[int\] gives a int64, and slot item of WrongSlot holds a Item"
    ):
        WrongSlot.run(a=ch)


# --- many at once -----------------------------------------------------------------------------------------------------


@gomp.frame
class Swap:
    """Sends its number on one channel or receives from another, whatever comes first, so many times; what it receives it sends next."""

    a: gomp.Chan[int]
    b: gomp.Chan[int]
    number: int
    place: int
    left: int
    done: gomp.WaitGroup

    def step(f) -> gomp.Action:
        if f.left == 0:
            f.done.done()
            return f.ret()
        f.left -= 1
        return f.select(f.a.sending(f.number), f.b.receiving(into="number"), into="place")


def test_everybody_selects_on_both_ends_of_the_same_channels(rt):
    a, b = gomp.Chan[int](), gomp.Chan[int]()
    done = gomp.WaitGroup()
    done.add(40)
    for i in range(20):
        gomp.go(Swap, a=a, b=b, number=i, left=500, done=done)
        gomp.go(Swap, a=b, b=a, number=-i, left=500, done=done)
    deadline = time.monotonic() + 60
    while done.pending and time.monotonic() < deadline:  # whoever is left without a partner is served here
        gomp.select(a.receiving(), b.receiving(), a.sending(0), b.sending(0), default=True)
    done.wait(1)


operations = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["send", "receive", "close"])), max_size=30)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=operations, wanted=st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=4))
def test_it_does_what_can_be_done_and_nothing_else(rt, program, wanted):
    channels = [gomp.Chan[int](size) for size in (0, 1, 2)]
    held: list[collections.deque[int]] = [collections.deque() for _ in channels]
    closed = [False] * 3
    for n, (which, operation) in enumerate(program):
        ch = channels[which]
        if operation == "close" and not closed[which] and n % 7 == 0:
            ch.close()
            closed[which] = True
        elif operation == "send" and not closed[which] and len(held[which]) < ch.capacity:
            ch.send(n)
            held[which].append(n)
        cases = [channels[w].sending(-1) if sends and not closed[w] else channels[w].receiving() for w, sends in wanted]
        can = [
            (i, w, case.sends)
            for i, ((w, _), case) in enumerate(zip(wanted, cases, strict=True))
            if (len(held[w]) < channels[w].capacity if case.sends else bool(held[w]) or closed[w])
        ]
        place, value, ok = gomp.select(*cases, default=True)
        assert (place >= 0) == bool(can)
        if place >= 0:
            w, sends = next((w, sends) for i, w, sends in can if i == place)
            if sends:
                held[w].append(-1)
            elif held[w]:
                assert (value, ok) == (held[w].popleft(), True)
            else:
                assert (value, ok) == (None, False)
        assert [len(ch) for ch in channels] == list(map(len, held))
