"""GOMAXPROCS changes while the runtime runs: set by somebody, or because the CPU quota did."""

from __future__ import annotations

import os
import resource
import signal
import time

import pytest

import gomp
from gomp.config import DEFAULT_PROCS, RuntimeSettings, default_procs, load
from gomp.core import COMPILED
from gomp.runtime.maxprocs import MaxProcs

if not COMPILED:
    pytest.skip("runs processes of its own", allow_module_level=True)

WAIT_S = 20


def until(condition):
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def pids(rt):
    """Of the processes of Ps that there are."""
    return {p.idx: p.pid for p in rt.stats().ps[:-2] if p.pid}


@gomp.struct
class Node:
    next: Node
    value: int


@gomp.compiled
def chain(n: int) -> int:
    head = gomp.new(Node)
    for i in range(n):
        node = gomp.new(Node)
        node.next = head
        node.value = i
        head = node
    length = 0
    while head.next is not None:
        head = head.next
        length += 1
    return length


def churn(seconds):
    end, done = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        assert chain(2000) == 2000
        done += 1
    return done


@pytest.fixture(scope="module")
def started():
    settings = load(RuntimeSettings, procs=2, max_procs=4, max_heap="1GiB")
    with gomp.Runtime.of(settings) as rt:
        yield rt


@pytest.fixture
def rt(started):
    gomp.debug.set_max_procs(2)
    until(lambda: list(pids(started)) == [0, 1])
    return started


def test_without_a_descriptor_there_are_as_many_as_before():
    """Else a quota that cannot be read would be none."""
    found = [2]
    followed = MaxProcs(load(RuntimeSettings, max_procs=8), lambda: found[0])
    followed.set(DEFAULT_PROCS)
    found[0] = 8
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        followed.set(DEFAULT_PROCS)
        assert followed.wanted == 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    followed.set(DEFAULT_PROCS)
    assert followed.wanted == 8


def test_it_grows_and_shrinks_and_says_what_it_was(rt):
    assert gomp.debug.set_max_procs(4) == 2
    assert gomp.debug.set_max_procs(0) == 4
    until(lambda: len(pids(rt)) == 4)
    assert {rt.run(os.getpid) for _ in range(20)} <= set(pids(rt).values())
    assert rt.stats().procs == 4
    assert gomp.debug.set_max_procs(1) == 4
    until(lambda: list(pids(rt)) == [0])
    assert rt.run(os.getpid) == pids(rt)[0]
    assert rt.stats().repairs.count == 0, "an end that was asked for is no repair"
    assert sum(p.deaths for p in rt.stats().ps) == 0
    rt.verify(3)


def test_a_goroutine_ends_where_it_runs_and_what_waits_behind_it_goes_elsewhere(rt):
    gomp.debug.set_max_procs(1)
    until(lambda: len(pids(rt)) == 1)
    gomp.debug.set_max_procs(2)
    until(lambda: len(pids(rt)) == 2)
    running = [rt.go(churn, 1.0) for _ in range(2)]
    queued = [rt.go(os.getpid) for _ in range(20)]
    time.sleep(0.2)
    gomp.debug.set_max_procs(1)
    left = pids(rt)
    assert len(left) == 2  # one has a program to end
    assert {g.wait() for g in queued} == {left[0]}
    assert all(g.wait() for g in running)
    until(lambda: list(pids(rt)) == [0])
    rt.verify(3)


def make_chain():
    return gomp.new(Node, value=7)


def test_what_a_surplus_p_has_sent_arrives(rt):
    gomp.debug.set_max_procs(4)
    for procs in (1, 4, 1):
        sent = [rt.go(make_chain) for _ in range(16)]
        gomp.debug.set_max_procs(procs)
        assert [g.wait().value for g in sent] == [7] * 16
    rt.verify(3)


def test_more_than_there_is_room_for_is_refused_and_changes_nothing(rt):
    with pytest.raises(gomp.GompError, match="room for 4 Ps; start with max_procs=5"):
        gomp.debug.set_max_procs(5)
    assert gomp.num_procs() == 2
    with pytest.raises(gomp.ConfigError, match="GOMAXPROCS=1000"):
        gomp.debug.set_max_procs(1000)


def where_after(seconds):
    time.sleep(seconds)
    return os.getpid()


def test_an_executor_has_as_many_calls_on_their_way_as_there_are_ps(rt):
    with gomp.Executor(rt) as executor:
        gomp.debug.set_max_procs(4)
        until(lambda: len(pids(rt)) == 4)
        executor.submit(os.getpid).result()
        assert len(set(executor.map(where_after, [0.3] * 4))) == 4
        gomp.debug.set_max_procs(1)
        until(lambda: len(pids(rt)) == 1)
        executor.submit(os.getpid).result()
        assert set(executor.map(where_after, [0.01] * 4)) == set(pids(rt).values())


def test_a_program_may_set_it_while_it_runs_on_the_p_that_goes(rt):
    assert {rt.go(gomp.debug.set_max_procs, 1).wait() for _ in range(4)} <= {1, 2}
    until(lambda: list(pids(rt)) == [0])
    assert gomp.debug.set_default_max_procs() == 1
    assert gomp.num_procs() == min(default_procs(), 4)


def test_a_p_that_is_killed_in_the_middle_of_a_change_is_replaced_if_it_is_to_be_there(rt):
    for procs, victim in ((4, 1), (1, 0), (2, 1)):
        running = [rt.go(churn, 0.3) for _ in range(4)]
        before = pids(rt)
        gomp.debug.set_max_procs(procs)
        if victim in before:
            os.kill(before[victim], signal.SIGKILL)
        for g in running:
            try:
                assert g.wait() > 0
            except gomp.WorkerDied:
                assert victim in before
        until(lambda procs=procs: list(pids(rt)) == list(range(procs)))
        rt.verify(3)


@pytest.mark.slow
def test_a_hundred_changes_under_allocation(rt):
    began, done, changes, repairs = time.monotonic(), 0, 0, rt.stats().repairs.count
    running = [rt.go(churn, 0.2) for _ in range(6)]
    while changes < 100:
        gomp.debug.set_max_procs((4, 1, 3, 2)[changes % 4])
        changes += 1
        time.sleep(0.05)
        done += sum(g.wait() for g in running[:2])
        running = running[2:] + [rt.go(churn, 0.2) for _ in range(2)]
    done += sum(g.wait() for g in running)
    print(f"{changes} changes in {time.monotonic() - began:.1f} s, {done} chains")
    until(lambda: list(pids(rt)) == [0, 1])
    print(rt.verify(3))
    assert rt.stats().repairs.count == repairs
