"""A pool of several processes: what one puts another finds, nobody gets what another has, and the figures say so."""

from __future__ import annotations

import time

import pytest

import gomp
from gomp.core import COMPILED

pytestmark = pytest.mark.skipif(not COMPILED, reason="programs exist only in machine code")


@gomp.struct
class Token:
    holder: int
    uses: int


POOL = gomp.Pool(Token, name="tokens")


@gomp.compiled
def use_tokens(owner: int, rounds: int) -> int:
    """Hold some tokens of the pool at a time, marked as ours; how often somebody else had one meanwhile."""
    wrong = 0
    for _ in range(rounds):
        a, b, c = POOL.get(), POOL.get(), POOL.get()
        a.holder = b.holder = c.holder = owner
        for _ in range(20):
            wrong += (a.holder != owner) + (b.holder != owner) + (c.holder != owner)
        wrong += (a is b) + (b is c) + (a is c)
        POOL.put(b)
        POOL.put(c)
        POOL.put(a)
    return wrong


def keep_using(owner: int, seconds: float) -> int:
    use_tokens(owner, 1)  # compiled before the clock runs
    until, wrong = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        wrong += use_tokens(owner, 2000)
        mine = POOL.get()
        assert mine is not None
        for _ in range(30):
            POOL.put(gomp.new(Token, owner))
        gomp.array(int, 20_000)
    return wrong


def put_some(n: int) -> None:
    for i in range(n):
        POOL.put(gomp.new(Token, 100 + i))


def take_all() -> list[int]:
    taken = []
    while True:
        token = POOL.get()
        assert token is not None
        if token.holder == 0:  # a new one
            return taken
        taken.append(token.holder)


def test_nobody_gets_what_another_has() -> None:
    with gomp.Runtime(procs=3, gogc=20, max_heap="256MiB") as rt:
        running = [rt.go(keep_using, owner + 1, 1.5) for owner in range(3)]
        for _ in range(20):
            gomp.gc()
            time.sleep(0.1)
        assert [each.wait(100) for each in running] == [0, 0, 0]
        stats = rt.stats()
        assert stats.num_gc > 0
        (pool,) = stats.pools
        assert pool.name == "tokens"
        assert pool.hits > 10_000
        assert pool.misses > 0
        rt.verify(3)


def test_what_one_puts_another_steals() -> None:
    with gomp.Runtime(procs=1) as rt:
        rt.run(put_some, 9)
        assert take_all() == [101 + i for i in range(8)]  # the oldest first; the private one is its own P's
        assert POOL.stats().steals == 8
        assert rt.run(take_all) == [100]
