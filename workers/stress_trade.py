"""Traders exchange pointers: a stress test of the whole heap, on every P at once.

The traders share a market, an array of mailboxes. A trader looks at what lies in two mailboxes, checks it, makes something new out of it, and leaves
that in a mailbox; what lay there becomes garbage, unless somebody else refers to it. Nobody takes turns.

Goods form random graphs. What an object says about itself is sealed, so that one that was freed too early, or whose memory was given out
twice, is noticed by whoever looks at it next:

- ``seal`` is a hash of the object's number. It is looked at first: a freed object fails here, before its links are followed.
- ``cookie`` is a hash of the numbers of all that the object was made with: links that never change, and payloads.
- ``loose`` is a link that any trader moves or cuts at any time: not in the cookie, but what it leads to must be sound.

An object's ``rank`` is above that of everything it refers to, its twin excepted; so what one mailbox holds is bounded.

A letter carries goods from one trader to another. It is made when the goods are complete, and ``gomp.new`` orders what was written before it; so
who finds goods in a letter finds them complete, on every architecture. (A letter may be found empty for a moment.)

The result says how much was done; the last of it is a verification of the heap at level 3. Run it with ``GODEBUG=clobberfree=1``, so that
what is freed too early is noticed at once.
"""

from __future__ import annotations

import random
import time

import numpy as np

import gomp
from gomp.runtime.current import peer
from workers.xorshift import advance, draw, seed

MAILBOXES = 256
MAX_RANK = 3
STEPS = 8  # objects that one look at a mailbox checks
FRAMES = 40  # objects that nothing but the frames of a recursion holds
SHELF = 16  # objects that nothing but Python references hold
TRADES_PER_SLICE = 1000
NUMBERS_PER_TRADER = 1 << 40
_SEAL, _SPECK = 0x5EA1, 0x59EC
_K1, _K2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_S29, _S32 = np.uint64(29), np.uint64(32)

OK, BAD_SEAL, BAD_COOKIE, BAD_DATA, BAD_SPECK, BAD_RANK = range(6)
WRONG = {
    BAD_SEAL: "is not sealed",
    BAD_COOKIE: "has a wrong cookie",
    BAD_DATA: "has other data",
    BAD_SPECK: "has another speck",
    BAD_RANK: "has a loose link that nobody made",
}


@gomp.struct
class Speck:
    """An object for the tiny allocator: it shares its 16 bytes with another."""

    value: int


@gomp.struct
class Goods:
    number: int
    seal: int
    cookie: int
    rank: int
    first: "Goods"
    second: "Goods"
    twin: "Goods"
    loose: "Goods"
    speck: Speck
    data: gomp.Array[int]
    crowd: "gomp.Array[Goods]"


@gomp.struct
class Letter:
    goods: Goods
    posted: int


MARKET = gomp.Global("stress.market", gomp.Array[Letter])


# --- hashes -----------------------------------------------------------------------------------------------------------


@gomp.compiled
def mix(a: int, b: int) -> int:
    x = np.uint64(a) * _K1 + np.uint64(b)
    x ^= x >> _S29
    x *= _K2
    return np.int64(x ^ (x >> _S32))


@gomp.compiled
def number_of(goods: Goods) -> int:
    return 0 if goods is None else goods.number


@gomp.compiled
def cookie_of(goods: Goods) -> int:
    cookie = mix(goods.number, goods.rank)
    cookie = mix(cookie, number_of(goods.first))
    cookie = mix(cookie, number_of(goods.second))
    cookie = mix(cookie, number_of(goods.twin))
    data, crowd = goods.data, goods.crowd
    if data is not None:
        cookie = mix(cookie, len(data))
    if crowd is not None:
        cookie = mix(cookie, len(crowd))
        cookie = mix(cookie, number_of(crowd[0]))
        cookie = mix(cookie, number_of(crowd[len(crowd) - 1]))
    return cookie


# --- checking ---------------------------------------------------------------------------------------------------------


@gomp.compiled
def check(goods: Goods, state: int) -> int:
    """What is wrong with one object. ``state`` chooses the element of its data that is looked at beside the first and the last."""
    if goods.seal != mix(goods.number, _SEAL):
        return BAD_SEAL
    if goods.cookie != cookie_of(goods):
        return BAD_COOKIE
    speck, data, loose = goods.speck, goods.data, goods.loose
    if speck is not None and speck.value != mix(goods.number, _SPECK):
        return BAD_SPECK
    if data is not None:
        n = len(data)
        for i in (0, n - 1, draw(state, n)):
            if data[i] != mix(goods.number, i):
                return BAD_DATA
    if loose is not None and loose.rank >= goods.rank:
        return BAD_RANK
    return OK


@gomp.compiled
def follow(goods: Goods, state: int) -> Goods:
    """One of the objects that this one refers to, or None."""
    way = draw(state, 6)
    crowd = goods.crowd
    if way == 0:
        return goods.first
    if way == 1:
        return goods.second
    if way == 2:
        return goods.twin
    if way == 3 and crowd is not None:
        return crowd[draw(advance(state), len(crowd))]
    return goods.loose


@gomp.compiled
def inspect(goods: Goods, state: int, report: gomp.Array[int]) -> int:
    """Check objects along a random walk; what is wrong, which is written to ``report`` too."""
    for _ in range(STEPS):
        wrong = check(goods, state)
        if wrong != OK:
            report[0], report[1], report[2], report[3] = wrong, goods.number, goods.cookie, goods.seal
            return wrong
        state = advance(state)
        goods = follow(goods, state)
        if goods is None:
            break
    return OK


# --- making -----------------------------------------------------------------------------------------------------------


@gomp.compiled
def payload_length(state: int) -> int:
    """Ints: mostly none, often a few, rarely more than a page, and sometimes so many that the array is scanned and zeroed in pieces."""
    luck = draw(state, 1000)
    if luck < 700:
        return 0
    if luck < 900:
        return 1 + draw(advance(state), 70)
    if luck < 980:
        return 100 + draw(advance(state), 900)
    return 9_000 if luck < 999 else 60_000


@gomp.compiled
def make_data(number: int, n: int) -> gomp.Array[int]:
    data = gomp.array(int, n)
    for i in range(n):
        data[i] = mix(number, i)
    return data


@gomp.compiled
def lower(goods: Goods) -> Goods:
    """The object itself, or one that it refers to, whose rank lets others refer to it; or None."""
    while goods is not None and goods.rank >= MAX_RANK:
        goods = goods.first
    return goods


@gomp.compiled
def rank_above(goods: Goods) -> int:
    return 0 if goods is None else goods.rank + 1


@gomp.compiled
def make_crowd(first: Goods, second: Goods, n: int) -> gomp.Array[Goods]:
    crowd = gomp.array(Goods, n)
    for i in range(n):
        crowd[i] = first if i % 3 else second
    return crowd


@gomp.compiled
def close(goods: Goods) -> None:
    goods.cookie = cookie_of(goods)
    goods.seal = mix(goods.number, _SEAL)


@gomp.compiled
def make(number: int, first: Goods, second: Goods, state: int) -> Goods:
    """Something new that refers to others. Uses up two numbers."""
    first, second = lower(first), lower(second)
    goods = gomp.new(Goods, number=number, first=first, second=second)
    goods.rank = max(rank_above(first), rank_above(second))
    state = advance(state)
    n = payload_length(state)
    if n > 0:
        goods.data = make_data(number, n)
        goods.speck = gomp.new(Speck, mix(number, _SPECK))
    elif draw(state, 5) == 0:
        goods.crowd = make_crowd(first, second, 1 + payload_length(advance(state)))
    if draw(state, 3) == 0:
        twin = gomp.new(Goods, number=number + 1, rank=goods.rank, twin=goods)
        goods.twin = twin
        close(twin)
    close(goods)
    return goods


# --- trading ----------------------------------------------------------------------------------------------------------


@gomp.compiled
def look(market: gomp.Array[Letter], slot: int) -> Goods:
    letter = market[slot]
    if letter is None:
        return None
    return letter.goods


@gomp.compiled
def rearrange(giver: Goods, taker: Goods) -> None:
    """Move a loose link from one object to another, or make one; while others do the same."""
    if giver is None or taker is None:
        return
    moved = giver.loose
    giver.loose = None
    if moved is None:
        moved = giver
    if moved.rank < taker.rank:
        taker.loose = moved


@gomp.compiled
def hold_in_frames(number: int, below: Goods, frames: int, state: int, report: gomp.Array[int]) -> int:
    """Objects that only native frames refer to, while others are made; each is checked when its frame ends."""
    mine = make(number, below, None, state)
    if frames > 0:
        wrong = hold_in_frames(number + 2, mine if frames % 4 else None, frames - 1, advance(state), report)
        if wrong != OK:
            return wrong
    return inspect(mine, state, report)


@gomp.compiled
def trade(market: gomp.Array[Letter], number: int, trades: int, state: int, report: gomp.Array[int]) -> int:
    """So many trades with numbers from ``number``; the next state. Ends early if something is wrong."""
    for i in range(trades):
        state = advance(state)
        one = look(market, draw(state, len(market)))
        state = advance(state)
        slot = draw(state, len(market))
        other = look(market, slot)
        if one is not None and inspect(one, state, report) != OK:
            return state
        if other is not None and inspect(other, state, report) != OK:
            return state
        state = advance(state)
        if draw(state, 4) == 0:
            rearrange(one, other)
        goods = make(number + 2 * i, one, other, state)
        market[slot] = gomp.new(Letter, goods, i) if draw(state, 16) else None
    hold_in_frames(number + 2 * trades, None, FRAMES, state, report)
    return state


class Trader:
    """One goroutine: slices of compiled trades, and between them ordinary Python that holds goods of its own."""

    def __init__(self, idx: int, run_seed: int) -> None:
        self.run_seed = run_seed
        self.random = random.Random(f"{run_seed}.{idx}")
        self.state = seed(run_seed * 1000 + idx)
        self.number = idx * NUMBERS_PER_TRADER
        self.market = MARKET.get()
        self.report = gomp.array(int, 4)
        self.shelf: list[Goods | None] = [None] * SHELF
        self.trades = 0

    def work(self, seconds: float) -> int:
        """Trade for so long once everything is compiled; how many trades there were."""
        self._slice(1)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._slice(TRADES_PER_SLICE)
            if self.random.random() < 0.2:
                gomp.gc()
        return self.trades

    def _slice(self, trades: int) -> None:
        self.state = trade(self.market, self._numbers(trades + FRAMES + 1), trades, self.state, self.report)
        self._require(self.report[0])
        self.trades += trades
        self._trade_in_python()

    def _numbers(self, n: int) -> int:
        first = self.number + 1
        self.number += 2 * n
        return first

    def _trade_in_python(self) -> None:
        for goods in self.shelf:
            if goods is not None:
                self._require(inspect(goods, self.state, self.report))
        place = self.random.randrange(SHELF)
        letter = self.market[self.random.randrange(MAILBOXES)]
        found = letter.goods if letter else None
        self.shelf[place] = made = make(self._numbers(1), found, self.shelf[place - 1], advance(self.state))
        self.market[self.random.randrange(MAILBOXES)] = gomp.new(Letter, made)

    def _require(self, wrong: int) -> None:
        if wrong != OK:
            _, number, cookie, seal = self.report
            raise gomp.HeapCorrupt(
                f"seed {self.run_seed}: after {self.trades} trades the object with number {number:#x}, cookie {cookie:#x} and "
                f"seal {seal:#x} {WRONG[wrong]}"
            )


def trade_for(seconds: float, idx: int, run_seed: int) -> int:
    return Trader(idx, run_seed).work(seconds)


def verify_heap(run_seed: int) -> str:
    """Collect and verify at level 3. Raises HeapCorrupt."""
    gomp.gc()
    answer = peer().ask("verify", level=3)
    if answer["problems"]:
        raise gomp.HeapCorrupt(f"seed {run_seed}: {'; '.join(answer['problems'])}")
    return f"verified at level 3: {answer['spans']:,} spans, {answer['objects']:,} objects, {answer['bytes']:,} bytes"


def main(seconds: float = 10.0, seed: int = 0) -> dict[str, object]:
    """Trade on every P for so long. ``seed`` 0 takes one from the clock; the result names it."""
    if not 0 <= seconds <= 1e6:
        raise gomp.ConfigError(f"seconds={seconds}: give 0 to 1000000")
    run_seed = seed or time.time_ns() % 1_000_000 + 1
    MARKET.set(gomp.array(Letter, MAILBOXES))
    traders = [gomp.go(trade_for, seconds, idx, run_seed) for idx in range(1, gomp.num_procs() + 1)]
    trades = [trader.wait() for trader in traders]
    return {"seed": run_seed, "trades": sum(trades), "heap": verify_heap(run_seed)}
