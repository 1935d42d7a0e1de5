"""Goroutines that any P runs: started from everywhere, stolen, offered, failing, and none lost or run twice whatever happens to the Ps."""

from __future__ import annotations

import inspect
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import gomp
from gomp.core.shm import layout
from gomp.core.shm.records import G_DEAD, SCHED, STACKPOOL, g_dtype, p_dtype, sched_dtype, stackpool_dtype, view

SEED = 21


@gomp.struct
class Tally:
    """What a goroutine leaves: only it writes there."""

    turns: int
    p: int
    ended: int


Tallies = gomp.Array[Tally]


@gomp.frame
class Turns:
    """Takes so many turns; each is a call, so that its stack is in use in between."""

    tally: Tally
    turns: int
    at: int
    litter: Tally

    def step(f) -> gomp.Action:
        if f.at % 2 == 1:
            f.at += 1
            return f.call(Turn, tally=f.tally)
        f.at += 1
        if f.at > 2 * f.turns:
            f.tally.ended += 1
            return f.ret()
        f.litter = gomp.new(Tally, turns=f.at)
        return f.yield_()


@gomp.frame
class Turn:
    tally: Tally
    has_yielded: bool

    def step(f) -> gomp.Action:
        if not f.has_yielded:
            f.has_yielded = True
            return f.yield_()
        f.tally.turns += 1
        return f.ret()


@gomp.frame
class Spread:
    """Starts a goroutine for each of a range of tallies: halves of it by goroutines like this one."""

    tallies: Tallies
    first: int
    end: int
    turns: int

    def step(f) -> gomp.Action:
        if f.end - f.first == 1:
            gomp.go(Turns, tally=f.tallies[f.first], turns=f.turns)
            return f.ret()
        middle = (f.first + f.end) // 2
        gomp.go(Spread, tallies=f.tallies, first=f.first, end=middle, turns=f.turns)
        gomp.go(Spread, tallies=f.tallies, first=middle, end=f.end, turns=f.turns)
        return f.ret()


@gomp.compiled
def start(tallies: Tallies, turns: int) -> None:
    for i in range(len(tallies)):
        gomp.go(Turns, tally=tallies[i], turns=turns)


@gomp.compiled
def made(n: int) -> Tallies:
    tallies = gomp.array(Tally, n)
    for i in range(n):
        tallies[i] = gomp.new(Tally)
    return tallies


@gomp.compiled
def ended(tallies: Tallies) -> int:
    n = 0
    for i in range(len(tallies)):
        n += tallies[i].ended
    return n


def wait_for(tallies, n: int, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while ended(tallies) < n:
        assert time.monotonic() < deadline, f"{ended(tallies)} of {n} goroutines have ended"
        time.sleep(0.005)


def goroutines() -> int:
    n = int(view(sched_dtype, SCHED)[0].ngs)
    return int(np.count_nonzero(view(g_dtype, layout.g_addr(1), n)["xstatus"] != G_DEAD))


def wait_until_none(seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while goroutines():
        assert time.monotonic() < deadline, f"{goroutines()} goroutines are left"
        time.sleep(0.005)


@pytest.fixture
def rt():
    with gomp.Runtime(procs=2) as runtime:
        yield runtime


def test_a_script_starts_goroutines_that_ps_run(rt):
    tallies = made(500)
    ids = {gomp.go(Turns, tally=tally, turns=3) for tally in tallies}
    wait_for(tallies, 500)
    assert len(ids) == 500
    assert all(tally.turns == 3 and tally.ended == 1 for tally in tallies)
    wait_until_none()
    assert "verified" in rt.verify()


def test_so_do_compiled_functions_programs_and_steps(rt):
    for begin in (
        lambda tallies: start(tallies, 2),
        lambda tallies: rt.run(start, tallies, 2),
        lambda tallies: gomp.go(Spread, tallies=tallies, end=len(tallies), turns=2),
    ):
        tallies = made(3000)  # more than a ring holds
        begin(tallies)
        wait_for(tallies, 3000)
        assert all(tally.turns == 2 for tally in tallies)
    wait_until_none()
    assert "verified" in rt.verify()


@gomp.frame
class Where:
    """Notes each P that it runs on."""

    tally: Tally
    until: Tally

    def step(f) -> gomp.Action:
        f.tally.turns += 1
        if f.until.ended != 0:
            f.tally.ended = 1
            return f.ret()
        return f.yield_()


def occupied(until: Tally) -> int:
    """Keep this P from running any."""
    while not until.ended:
        pass
    return os.getpid()


def test_a_p_in_a_program_leaves_its_goroutines_to_others(rt):
    tallies, until = made(300), gomp.new(Tally)
    busy = rt.go(occupied, until)
    start(tallies, 5)
    wait_for(tallies, 300)
    until.ended = 1
    busy.wait()


@gomp.compiled
def busy_until(until: Tally) -> int:
    n = 0
    while until.ended == 0:
        n += gomp.new(Tally, turns=1).turns
    return n


def test_programs_that_go_on_and_on_leave_goroutines_their_turn(rt):
    tallies, until = made(2000), gomp.new(Tally)
    start(tallies, 1)
    wait_for(tallies, 2000)  # each P knows the frames
    programs = [rt.go(busy_until, until) for _ in range(2)]
    while not all(p_record(i).programs >= 0 and p_record(i).xstatus for i in range(2)):
        time.sleep(0.01)
    tallies = made(2000)
    start(tallies, 3)
    wait_for(tallies, 2000)
    until.ended = 1
    assert all(program.wait(20) > 0 for program in programs)
    assert "verified" in rt.verify()


def p_record(idx: int):
    return view(p_dtype, layout.p_addr(idx))[0]


def test_those_that_never_end_leave_others_their_turn_and_programs_too(rt):
    until, endless, tallies = gomp.new(Tally), made(4), made(100)
    for tally in endless:
        gomp.go(Where, tally=tally, until=until)
    start(tallies, 5)
    wait_for(tallies, 100)
    assert rt.run(os.getpid)
    before = [tally.turns for tally in endless]
    time.sleep(0.1)
    assert all(tally.turns > turns for tally, turns in zip(endless, before, strict=True))
    until.ended = 1
    wait_for(endless, 4)
    wait_until_none()


@gomp.frame
class Fails:
    after: int

    def step(f) -> gomp.Action:
        if f.after == 0:
            raise ValueError("no more turns")
        f.after -= 1
        return f.yield_()


@gomp.frame
class Confuses:
    n: int

    def step(f) -> gomp.Action:
        done = f.ret()
        f.n += 1
        if f.n < 3:
            return f.yield_()
        f.yield_()
        return done


def test_one_that_fails_is_told_of_and_the_others_go_on():
    script = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=60)
    assert script.stdout == "verified\n"
    lines, first = inspect.getsourcelines(Fails.step)
    line = first + next(i for i, text in enumerate(lines) if "raise" in text)
    assert script.stderr.count(f"(frame Fails) has ended at {__file__}:{line}: ValueError: no more turns") == 50
    assert script.stderr.count("(frame Confuses) has ended: RuntimeError: a step made one action and returned an") == 1
    assert len(script.stderr.splitlines()) == 51


def fail_beside_others() -> None:
    with gomp.Runtime(procs=2) as rt:
        tallies = made(50)
        for tally in tallies:
            gomp.go(Fails, after=2)
            gomp.go(Turns, tally=tally, turns=4)
        gomp.go(Confuses)
        wait_for(tallies, 50)
        wait_until_none()
        print(rt.verify().split()[0])


def test_how_many_there_are_in_which_state(rt):
    until, endless = gomp.new(Tally), made(30)
    before = rt.stats().goroutines
    for tally in endless:
        gomp.go(Where, tally=tally, until=until)
    deadline = time.monotonic() + 30
    while not all(tally.turns for tally in endless):
        assert time.monotonic() < deadline
    now = rt.stats().goroutines
    assert (before.count, now.count, gomp.num_goroutine()) == (0, 30, 30)
    assert now.running + now.runnable + now.waiting == 30
    assert now.created - before.created == 30
    until.ended = 1
    wait_until_none()
    assert rt.stats().goroutines.count == 0


@gomp.frame
class Parent:
    tallies: Tallies
    until: Tally
    started: int

    def step(f) -> gomp.Action:
        if f.started < len(f.tallies):
            f.started += 1
            gomp.go(Where, tally=f.tallies[f.started - 1], until=f.until)
        return f.ret() if f.until.ended != 0 else f.yield_()


def test_who_started_whom(rt):
    tallies, until = made(5), gomp.new(Tally)
    parent = gomp.go(Parent, tallies=tallies, until=until)
    deadline = time.monotonic() + 30
    while not all(tally.turns for tally in tallies):
        assert time.monotonic() < deadline
    records = view(g_dtype, layout.g_addr(1), int(view(sched_dtype, SCHED)[0].ngs))
    living = records[records["xstatus"] != G_DEAD]
    ids, parents = living["id"], living["parent"]
    assert sorted(parents[ids != parent]) == [parent] * 5
    assert parents[ids == parent] == [0]
    assert len(set(ids)) == 6
    until.ended = 1
    wait_until_none()


@gomp.frame
class Nothing:
    is_done: bool

    def step(f) -> gomp.Action:
        return f.ret()


@gomp.frame
class Slow:
    """A step of some milliseconds, again and again, that offers nobody a turn."""

    tally: Tally
    until: Tally
    total: int

    def step(f) -> gomp.Action:
        for i in range(5_000_000):
            f.total += i & 3
        f.tally.turns += 1
        return f.ret() if f.until.ended != 0 else f.call(Nothing)


@gomp.frame
class Endless:
    """One step that goes on until somebody ends it."""

    until: Tally
    rounds: int

    def step(f) -> gomp.Action:
        while f.until.ended == 0:
            f.rounds += 1
        f.until.turns += 1
        return f.ret()


@pytest.mark.parametrize("endless", [1, 5])
def test_a_step_without_an_end_leaves_others_their_turn_on_the_only_p(endless):
    with gomp.Runtime(procs=1, gogc=20) as rt:
        until, tallies = gomp.new(Tally), made(300)
        start(tallies, 1)
        wait_for(tallies, 300)  # the P knows the frames
        for _ in range(endless):
            gomp.go(Endless, until=until)
        for _ in range(2):
            start(tallies, 20)
            rt.gc()
        wait_for(tallies, 900)
        until.ended = 1
        wait_until_none()
        assert until.turns == endless
        assert all((tally.turns, tally.ended) == (41, 3) for tally in tallies)
        assert "verified" in rt.verify()


def test_slow_steps_leave_others_their_turn(rt):
    until, slow, tallies = gomp.new(Tally), made(4), made(100)
    for tally in slow:
        gomp.go(Slow, tally=tally, until=until)
    start(tallies, 2)
    wait_for(tallies, 100)
    until.ended = 1
    wait_until_none()


@gomp.frame
class Waits(gomp.Frame[None]):
    until: gomp.Chan[int]
    got: int
    is_over: bool

    def step(f) -> gomp.Action:
        if f.is_over:
            return f.ret()
        f.is_over = True
        return f.recv(f.until, into="got")


@gomp.compiled
def start_waiting(until: gomp.Chan[int], n: int) -> None:
    for _ in range(n):
        gomp.go(Waits, until=until)


def test_the_stacks_of_those_that_are_over_go_back_with_a_collection(rt):
    rt.gc()
    pool = view(stackpool_dtype, STACKPOOL)[0]
    before, until = int(pool.xspan_bytes), gomp.Chan[int]()
    start_waiting(until, 10_000)
    until.close()
    wait_until_none()
    grown = int(pool.xspan_bytes)
    rt.gc()
    assert grown >= before + 10_000 * (2 << 10)
    assert int(pool.xspan_bytes) <= before + 3 * 63 * (
        32 << 10
    )  # so many records the three Ps keep, and each may keep a span


@pytest.mark.alone
def test_ps_that_come_and_go_lose_none():
    with gomp.Runtime(procs=2, max_procs=4) as rt:
        tallies = made(4000)
        start(tallies, 20)
        for n in (1, 4, 2, 3, 1, 2):
            gomp.debug.set_max_procs(n)
            time.sleep(0.05)
        wait_for(tallies, 4000)
        assert all(tally.turns == 20 for tally in tallies)
        wait_until_none()
        assert "verified" in rt.verify()


@pytest.mark.alone
def test_a_p_that_is_killed_takes_the_one_it_runs_along(monkeypatch):
    monkeypatch.setenv("GODEBUG", "gccheckmark=1,clobberfree=1")
    rng = random.Random(SEED)
    with gomp.Runtime(procs=2, gogc=50) as rt:
        tallies = made(3000)
        rt.run(start, tallies, 2)
        wait_for(tallies, 3000)
        kills, n = 12, 3000
        tallies = made(n)
        start(tallies, 60)
        for _ in range(kills):
            time.sleep(rng.uniform(0.005, 0.05))
            if (pid := int(view(p_dtype, layout.p_addr(rng.randrange(2)))[0].xpid)) > 0:
                os.kill(pid, signal.SIGKILL)
        wait_for(tallies, n - kills)
        wait_until_none(60.0)
        whole = [tally.turns for tally in tallies if tally.ended]
        assert n - kills <= len(whole) <= n
        assert all(turns == 60 for turns in whole)
        assert all(tally.ended <= 1 for tally in tallies)
        assert "verified" in rt.verify()


if __name__ == "__main__":
    fail_beside_others()
