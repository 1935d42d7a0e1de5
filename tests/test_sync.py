"""gomp.Mutex and gomp.WaitGroup: from frames, compiled code and Python, at the same ones."""

from __future__ import annotations

import threading
import time

import pytest

import gomp
from gomp.errors import CompileError, NilDereference
from tests.chan_load import wait_until_none


@gomp.frame
class Add:
    """Adds one to a total so many times, under a lock."""

    m: gomp.Mutex
    group: gomp.WaitGroup
    total: gomp.Array[int]
    n: int
    holds: bool

    def step(f) -> gomp.Action:
        if f.holds:
            f.total[0] += 1
            f.m.unlock()
            f.holds = False
            f.n -= 1
        if f.n == 0:
            f.group.done()
            return f.ret()
        f.holds = True
        return f.lock(f.m)


@gomp.compiled
def add(m: gomp.Mutex, group: gomp.WaitGroup, total: gomp.Array[int], n: int) -> None:
    for _ in range(n):
        m.lock()
        total[0] += 1
        m.unlock()
    group.done()


@gomp.frame
class Await(gomp.Frame[int]):
    group: gomp.WaitGroup
    total: gomp.Array[int]
    has_waited: bool

    def step(f) -> gomp.Action:
        if f.has_waited:
            return f.ret(f.total[0])
        f.has_waited = True
        return f.wait(f.group)


@gomp.compiled
def total_when_done(group: gomp.WaitGroup, total: gomp.Array[int]) -> int:
    group.wait()
    return total[0]


@pytest.fixture(scope="module")
def rt():
    with gomp.Runtime(procs=2, gogc=50) as runtime:
        yield runtime
        wait_until_none()
        assert "verified" in runtime.verify()


def test_a_lock_is_one_goroutines_at_a_time(rt):
    m, group, total = gomp.Mutex(), gomp.WaitGroup(), gomp.array(int, 1)
    group.add(12)
    waits = rt.go(total_when_done, group, total)
    for _ in range(10):
        gomp.go(Add, m=m, group=group, total=total, n=500)
    programs = [rt.go(add, m, group, total, 500) for _ in range(2)]
    for _ in range(100):
        with m:
            value = total[0]
            time.sleep(0)
            total[0] = value + 1
    group.wait(60)
    expected = 12 * 500 + 100
    assert total[0] == expected
    assert waits.wait(60) == expected
    assert Await.run(group=group, total=total) == expected
    assert [each.wait(60) for each in programs] == [None, None]
    assert not m.locked()


def test_a_lock_that_is_held(rt):
    m = gomp.Mutex()
    assert m.try_lock()
    assert not m.try_lock()
    with pytest.raises(TimeoutError, match=r"the lock was not free within 0\.05 s"):
        m.lock(timeout=0.05)
    threading.Timer(0.05, m.unlock).start()
    m.lock(timeout=10)
    m.unlock()
    with pytest.raises(RuntimeError, match="unlock of unlocked mutex"):
        m.unlock()


@gomp.compiled
def misuse(m: gomp.Mutex, group: gomp.WaitGroup, what: int) -> bool:
    if what == 0:
        m.unlock()
    if what == 1:
        group.done()
    if what == 2:
        return m.try_lock()
    return False


def test_mistakes_in_compiled_code(rt):
    m, group = gomp.Mutex(), gomp.WaitGroup()
    with pytest.raises(RuntimeError, match="unlock of unlocked mutex"):
        misuse(m, group, 0)
    with pytest.raises(ValueError, match="negative WaitGroup counter"):
        misuse(m, group, 1)
    assert misuse(m, group, 2)
    assert not misuse(m, group, 2)
    m.unlock()
    with pytest.raises(NilDereference, match="a lock or a group that is None"):
        misuse(None, group, 0)


def test_who_waits_for_a_group_goes_on_though_it_is_used_again_at_once(rt):
    group = gomp.WaitGroup()
    for _ in range(50):
        group.add(1)
        waits = threading.Thread(target=group.wait, args=(30,))
        waits.start()
        while gomp.num_goroutine() == 0 and waits.is_alive():
            time.sleep(0)
        group.done()
        group.add(1)
        waits.join(30)
        assert not waits.is_alive()
        group.done()
    assert group.pending == 0


@gomp.frame
class Adds(gomp.Frame[int]):
    total: gomp.Array[int]
    m: gomp.Mutex
    in_group: int  # a name that gomp itself would take
    holds: bool

    def step(f) -> gomp.Action:
        if not f.holds:
            f.holds = True
            return f.lock(f.m)
        f.total[0] += f.in_group
        f.m.unlock()
        return f.ret(f.in_group)


def test_a_group_counts_the_goroutines_that_it_starts(rt):
    group, m, total = gomp.WaitGroup(), gomp.Mutex(), gomp.array(int, 1)
    for n in range(200):
        group.go(Adds, total=total, m=m, in_group=n)
    group.wait(60)
    assert total[0] == sum(range(200))
    assert group.pending == 0
    with pytest.raises(TypeError, match=r"Adds has no slot missing"):
        group.go(Adds, missing=1)
    with pytest.raises(TypeError, match=r"write group\.go\(F, slot=value, \.\.\.\), with F a frame"):
        group.go(print)
    with pytest.raises(TypeError, match="in_group"):
        group.go(Adds, in_group="text")
    assert group.pending == 0


def test_a_group_that_is_not_done(rt):
    group = gomp.WaitGroup()
    group.wait()
    group.add(2)
    group.done()
    assert group.pending == 1
    with pytest.raises(TimeoutError, match=r"not all of the group were done within 0\.05 s"):
        group.wait(timeout=0.05)
    with pytest.raises(ValueError, match="negative WaitGroup counter"):
        group.add(-2)
    group.done()
    with pytest.raises(TypeError, match=r"n of WaitGroup\.add"):
        group.add("1")


@gomp.frame
class LockAChannel:
    ch: gomp.Chan[int]

    def step(f) -> gomp.Action:
        return f.lock(f.ch)


def test_what_is_no_lock(rt):
    with pytest.raises(CompileError, match=r"f\.lock\(mutex\)"):
        LockAChannel.run(ch=gomp.Chan[int]())


@gomp.compiled
def are_none(m: gomp.Mutex, group: gomp.WaitGroup, ch: gomp.Chan[int]) -> int:
    return (m is None) + 2 * (group is None) + 4 * (ch is None) + 8 * (ch == ch)


def test_none_is_told_from_a_lock_a_group_and_a_channel(rt):
    assert are_none(None, None, None) == 15
    assert are_none(gomp.Mutex(), gomp.WaitGroup(), gomp.Chan[int]()) == 8
