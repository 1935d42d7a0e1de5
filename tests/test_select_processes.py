"""Selects and groups where there is one P, and where Ps are killed."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

import gomp
from gomp.core.shm import layout
from gomp.core.shm.records import p_dtype, view
from tests.chan_load import Item, litter, wait_until_none

SEED = 8


@gomp.frame
class Exchange:
    """Sends its item to either of two channels, or receives one from them, until a third is closed."""

    a: gomp.Chan[Item]
    b: gomp.Chan[Item]
    end: gomp.Chan[int]
    item: Item
    place: int
    is_over: bool

    def step(f) -> gomp.Action:
        if f.item.check != -f.item.number - 1:
            raise ValueError("an item that nobody has sent")
        if f.place == 4:
            return f.ret()
        return f.select(
            f.a.sending(f.item),
            f.b.sending(f.item),
            f.a.receiving(into="item"),
            f.b.receiving(into="item"),
            f.end.receiving(),
            into="place",
        )


@gomp.compiled
def exchange(a: gomp.Chan[Item], b: gomp.Chan[Item], end: gomp.Chan[Item], n: int) -> int:
    item = gomp.new(Item, number=n, check=-n - 1)
    times = 0
    while True:
        place, received, _ = gomp.select(a.receiving(), b.sending(item), end.receiving())
        if place == 2:
            return times
        if place == 0:
            item = received
        if item.check != -item.number - 1:
            return -1
        times += 1


def relay_on_one_p() -> int:
    a, b, end = gomp.Chan[Item](), gomp.Chan[Item](1), gomp.Chan[int]()
    gomp.go(Exchange, a=a, b=b, end=end, item=gomp.new(Item, number=1, check=-2))
    got = sum(gomp.select(a.receiving(), b.receiving(), timeout=30)[1].number for _ in range(1))
    end.close()
    return got


def test_on_one_p():
    with gomp.Runtime(procs=1) as rt:
        assert relay_on_one_p() == 1
        assert rt.run(relay_on_one_p) == 1
        wait_until_none()
        assert "verified" in rt.verify()


@pytest.mark.alone
def test_who_waits_in_a_select_outlives_a_p(monkeypatch):
    monkeypatch.setenv("GODEBUG", "gccheckmark=1,clobberfree=1")
    rng = random.Random(SEED)
    with gomp.Runtime(procs=2, gogc=50) as rt:
        a, b, end = gomp.Chan[Item](), gomp.Chan[Item](2), gomp.Chan[int]()
        for i in range(40):
            gomp.go(Exchange, a=a, b=b, end=end, item=gomp.new(Item, number=i, check=-i - 1))
        killed = 0
        for _ in range(12):
            time.sleep(rng.uniform(0, 0.05))
            if (pid := int(view(p_dtype, layout.p_addr(rng.randrange(2)))[0].xpid)) > 0:
                os.kill(pid, signal.SIGKILL)
                killed += 1
            for _ in range(20):
                place, item, _ = gomp.select(
                    a.receiving(), b.receiving(), a.sending(gomp.new(Item, number=99, check=-100)), timeout=30
                )
                assert place == 2 or item.check == -item.number - 1
            assert "verified" in rt.verify()
        rt.run(litter, 50_000)
        assert 40 - killed <= gomp.num_goroutine() <= 41
        end.close()
        wait_until_none()
        assert "verified" in rt.verify()


@pytest.mark.alone
def test_a_program_that_waits_in_a_select_is_killed():
    with gomp.Runtime(procs=2) as rt:
        a, b, end = gomp.Chan[Item](), gomp.Chan[Item](), gomp.Chan[Item]()
        program = rt.go(exchange, a, b, end, 7)
        assert b.recv(timeout=30).number == 7
        deadline = time.monotonic() + 30
        while gomp.num_goroutine() != 1:  # it waits again
            assert time.monotonic() < deadline
            time.sleep(0.005)
        for p in range(2):
            os.kill(int(view(p_dtype, layout.p_addr(p))[0].xpid), signal.SIGKILL)
        with pytest.raises(gomp.WorkerDied):
            program.wait(30)
        wait_until_none()
        with pytest.raises(TimeoutError):
            gomp.select(a.sending(None), b.receiving(), timeout=0.05)
        assert "verified" in rt.verify()
