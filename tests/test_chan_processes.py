"""Channels where there is one P, and where Ps are killed."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

import gomp
from gomp.core.shm import layout
from gomp.core.shm.records import p_dtype, view
from tests.chan_load import Item, Produce, Relay, wait_until_none

SEED = 22


@gomp.frame
class Ask(gomp.Frame[int]):
    questions: gomp.Chan[int]
    answers: gomp.Chan[int]
    got: int
    at: int

    def step(f) -> gomp.Action:
        f.at += 1
        if f.at == 1:
            return f.send(f.questions, 20)
        if f.at == 2:
            return f.recv(f.answers, into="got")
        return f.ret(f.got)


@gomp.frame
class Answer:
    questions: gomp.Chan[int]
    answers: gomp.Chan[int]
    got: int
    at: int

    def step(f) -> gomp.Action:
        f.at += 1
        if f.at == 1:
            return f.recv(f.questions, into="got")
        if f.at == 2:
            return f.send(f.answers, f.got + 1)
        return f.ret()


def ask() -> int:
    questions, answers = gomp.Chan[int](), gomp.Chan[int]()
    gomp.go(Answer, questions=questions, answers=answers)
    return Ask.run(questions=questions, answers=answers)


def test_run_waits_for_others_in_a_script_and_in_a_program_on_one_p():
    with gomp.Runtime(procs=1) as rt:
        assert ask() == 21
        assert rt.run(ask) == 21
        wait_until_none()
        assert "verified" in rt.verify()


@pytest.mark.alone
def test_channels_and_who_waits_at_them_outlive_a_p(monkeypatch):
    monkeypatch.setenv("GODEBUG", "gccheckmark=1,clobberfree=1")
    rng = random.Random(SEED)
    with gomp.Runtime(procs=2, gogc=50) as rt:
        first, middle, last = (gomp.Chan[Item](n) for n in (0, 5, 0))
        for _ in range(50):
            gomp.go(Relay, source=first, to=middle)
            gomp.go(Relay, source=middle, to=last)
        received: set[int] = set()
        kills, n = 12, 40
        for round_ in range(kills):
            gomp.go(Produce, to=first, first=n * round_, end=n * (round_ + 1))
            time.sleep(rng.uniform(0, 0.03))
            if (pid := int(view(p_dtype, layout.p_addr(rng.randrange(2)))[0].xpid)) > 0:
                os.kill(pid, signal.SIGKILL)
            try:
                while True:
                    item = last.recv(timeout=1.0)
                    assert item.check == -item.number - 1
                    assert item.number not in received
                    received.add(item.number)
            except TimeoutError:
                pass
        # A P that dies takes along the goroutine that it runs: a relay with an item, or a producer with the rest of its own.
        dead_relays = dead_producers = 0
        for round_ in range(kills):
            missing = set(range(n * round_, n * (round_ + 1))) - received
            rest = n * (round_ + 1)
            while rest - 1 in missing:
                rest -= 1
            dead_producers += rest < n * (round_ + 1)
            dead_relays += sum(1 for number in missing if number < rest)
        assert dead_relays + dead_producers <= kills
        assert "verified" in rt.verify()
        for ch in (first, middle, last):
            ch.close()
        wait_until_none()
        assert "verified" in rt.verify()
