"""``n`` slots, of which ``m`` times a random one gets a block of 1 to 64 times 4 KiB."""

from __future__ import annotations

import gomp
from workers.reference.entries import TABLE, Entry, outcome
from workers.reference.process import DATA, bring_data
from workers.xorshift import advance, draw

_SEED = 1234567890123456789
_UNIT = 4096


@gomp.compiled
def _make_slots(n: int) -> None:
    table = TABLE.get()
    for i in range(n):
        table[i] = gomp.new(Entry)


@gomp.compiled
def _replace(n: int, times: int, state: int) -> int:
    table = TABLE.get()
    for _ in range(times):
        drawn = advance(state)
        state = advance(drawn)
        size = _UNIT * (1 + draw(state, 64))
        block = gomp.array(int, size // 8 - 1)
        for word in range(0, size // 8 - 1, _UNIT // 8):
            block[word] = 1
        table[draw(drawn, n)].data = block
    return state


def main(n: int = 200, m: int = 20000, data: int = DATA) -> dict[str, int]:
    """What it ended with. ``data``: bytes of globals beside its own."""
    if n < 1 or m < 0:
        raise gomp.ConfigError(f"n={n} m={m}: give n of 1 or more, and m of 0 or more")
    bring_data(data)
    TABLE.set(gomp.array(Entry, n))
    _make_slots(n)
    return outcome(0, _replace(n, m, _SEED))
