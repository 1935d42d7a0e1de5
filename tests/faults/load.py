"""What runs on the Ps that are killed: trade in sealed objects, litter, and all else that a heap is for (:mod:`tests.faults.script`)."""

from __future__ import annotations

import contextlib
import logging
import random
import time

import gomp
from tests.faults import parcels
from tests.faults.script import Shift
from workers import stress_trade


@gomp.struct
class Link:
    next: Link
    number: int


@gomp.compiled
def make_garbage(rounds: int, number: int) -> int:
    """Chains, tables and blocks of many sizes, all of which die."""
    kept = 0
    for i in range(rounds):
        head = None
        for _ in range(50):
            head = gomp.new(Link, head, number)
        table = gomp.array(Link, 10 + (i * 37) % 3000)
        table[3] = head
        block = gomp.array(int, 1 + (i * 101) % 20000)
        block[0] = number
        kept += table[3].number - block[0]
    return kept


LINKS = [gomp.Global(f"faults.link{i}", Link) for i in range(8)]


def work_a_shift(seconds: float, idx: int, seed: int) -> tuple[int, list[int]]:
    """What runs on a P until it is killed or its time is over: how many trades, and how far it came with the map."""
    trader, shift = stress_trade.Trader(idx, seed), Shift(idx, random.Random(seed))
    number = seed % 10_000
    call = gomp.go(parcels.answer, parcels.make_parcel(number))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        trader.work(0.02)
        if make_garbage(20, idx) != 0:
            raise AssertionError("an object does not hold what was stored in it")
        LINKS[idx % len(LINKS)].set(gomp.new(Link, None, idx))
        shift.step()
    with contextlib.suppress(*parcels.GONE):
        parcels.accept(number, call.wait(60))
    return trader.trades, shift.end()


def do_all_once(idx: int) -> list[int]:
    """How far it came with the map."""
    shift = Shift(idx, random.Random(idx))
    shift.do_all_errands()
    return shift.end()


def chatter(share: int, shares: int) -> None:
    """Allocate, keep a little, and say so twenty times a second, for ever."""
    log = logging.getLogger("chatter")
    kept = [gomp.array(int, 100) for _ in range(100)]
    n = 0
    while True:
        n += 1
        make_garbage(20, n)
        kept[n % len(kept)] = gomp.array(int, n % 5000 + 1)
        log.info("share %d of %d says %d", share, shares, n)
        time.sleep(0.05)
