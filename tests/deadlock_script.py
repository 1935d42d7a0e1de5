"""A script whose goroutines wait for ever, or only seem to: what becomes of each wait, a line each. Started by test_deadlock, as its only program.

It is its own process: a test's has threads of the test runner, who might act for all that a runtime knows.
"""

from __future__ import annotations

import logging
import random
import signal
import sys
import threading
import time

import gomp
from gomp.runtime import peer


@gomp.frame
class Receives:
    ch: gomp.Chan[int]
    has: bool

    def step(f) -> gomp.Action:
        if f.has:
            return f.ret()
        f.has = True
        return f.recv(f.ch)


@gomp.compiled
def receive(ch: gomp.Chan[int]) -> int:
    return ch.recv()


@gomp.compiled
def lock_twice(m: gomp.Mutex) -> None:
    m.lock()
    m.lock()


def receives_in_python(ch):
    yield ch.receiving()


def send_late(ch, seconds):
    time.sleep(seconds)
    ch.send(1)


def receive_or_close(ch, other):
    try:
        return ch.recv()
    except gomp.Deadlock:
        other.close()
        raise


def be_impatient(seconds):
    """In this process waits are told of soon, and again and again."""
    peer._SOON_S = peer._LATEST_S = seconds


def everywhere(rt, function, *args):
    calls = [rt.go(_slowly, function, args) for _ in range(gomp.num_procs())]
    for call in calls:
        call.wait()


def _slowly(function, args):
    time.sleep(0.1)  # so that each P has one
    function(*args)


def outcome(wait, *args, **kwargs):
    try:
        print("got", wait(*args, **kwargs), flush=True)
    except gomp.GompError as error:
        print(type(error).__name__, str(error).replace("\n", " | "), flush=True)
    except TimeoutError:
        print("TimeoutError", flush=True)


def for_ever(rt):
    be_impatient(0.1)
    ch, m, group = gomp.Chan[int](), gomp.Mutex(), gomp.WaitGroup()
    gomp.go(Receives, ch=ch)
    group.add()
    m.lock()
    outcome(gomp.Chan[int]().recv)
    outcome(ch.send, 1)
    outcome(gomp.Chan[int]().send, 1)
    outcome(m.lock)
    outcome(group.wait)
    outcome(gomp.select)
    outcome(gomp.select, gomp.Chan[int]().receiving())
    outcome(receive, gomp.Chan[int]())
    outcome(Receives.run, ch=gomp.Chan[int]())
    outcome(rt.run, lock_twice, gomp.Mutex())
    outcome(gomp.go(awaits_another).wait)
    print(rt.verify(), flush=True)


async def receives_here():
    await gomp.Chan[int]().receiving()


async def awaits_another():
    await gomp.go(receives_here)


def all_programs(rt):
    """Two that wait for one another, one of them in the middle of the other's wait where there is one P; and who hears of it acts."""
    a, b = gomp.Chan[int](), gomp.Chan[int]()
    calls = [rt.go(receive_or_close, a, b), rt.go(receive_or_close, b, a), rt.go(receive, gomp.Chan[int]())]
    for call in calls:
        outcome(call.wait)
    print(gomp.num_goroutine(), rt.verify(), flush=True)


def somebody_acts(rt):
    be_impatient(0.02)
    ch = gomp.Chan[int]()
    gomp.go(Receives, ch=gomp.Chan[int]())
    outcome(ch.recv, timeout=0.2)
    rt.go(send_late, ch, 0.3)
    outcome(ch.recv)
    thread = threading.Thread(target=send_late, args=(ch, 0.3))
    thread.start()
    outcome(ch.recv)
    thread.join()
    signal.signal(signal.SIGALRM, lambda *_: ch.close())
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    outcome(ch.recv)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    outcome(gomp.Chan[int]().recv)
    outcome(Receives.run, ch=gomp.Chan[int]())
    outcome(gomp.go(receives_in_python, gomp.Chan[int]()).wait)


def unsure(rt):
    """The log says so, once."""
    ch = gomp.Chan[int]()
    threading.Thread(target=send_late, args=(ch, 6), name="late").start()
    outcome(ch.recv)
    outcome(ch.recv, timeout=0.1)


@gomp.frame
class Passes:
    """Hands what it receives to the next, until that is closed."""

    source: gomp.Chan[int]
    to: gomp.Chan[int]
    token: int
    at: int

    def step(f) -> gomp.Action:
        f.at = 1 - f.at
        if f.at == 1:
            return f.recv(f.source, into="token")
        return f.send(f.to, f.token)


def passes(source, to, seed, last):
    """The same in Python, with pauses; it stops at a token of the number ``last``."""
    rng, seen = random.Random(seed), 0
    try:
        while True:
            seen = source.recv()
            if seen == last:
                raise AssertionError("the last token is not handed on")
            time.sleep(rng.choice((0, 0, rng.uniform(0, 0.03))))
            to.send(seen + 1)
    except gomp.Deadlock:
        return seen


def ring(rt, last=600):
    """A token goes round through frames, programs and this script, while it is asked all the time whether that is a deadlock. It is, in the end."""
    everywhere(rt, be_impatient, 0.005)
    be_impatient(0.005)
    rng = random.Random(5)
    channels = [gomp.Chan[int](i % 2) for i in range(7)]
    for i in (1, 3):
        gomp.go(Passes, source=channels[i], to=channels[i + 1])
    programs = [rt.go(passes, channels[i], channels[i + 1], i, -1) for i in (0, 2, 4, 5)]
    token = 0
    while token < last:
        channels[0].send(token)
        token = channels[6].recv()
        time.sleep(rng.choice((0, rng.uniform(0, 0.02))))
    outcome(channels[6].recv)
    print([call.wait() < last for call in programs], rt.verify(), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    what, procs = sys.argv[1], int(sys.argv[2])
    with gomp.Runtime(procs=procs, name="named" if what == "named" else None) as runtime:
        {"named": unsure}.get(what, globals().get(what))(runtime)
