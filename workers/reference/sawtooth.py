"""Rounds that each drop a table of ``n`` entries, make a new one, and replace half of its entries at random."""

from __future__ import annotations

import gomp
from workers.reference.entries import TABLE, Entry, new_entry, outcome
from workers.reference.process import DATA, bring_data
from workers.xorshift import advance, draw

_SEED = 42424242


@gomp.compiled
def _round(n: int, state: int) -> int:
    TABLE.set(None)
    table = gomp.array(Entry, n)
    TABLE.set(table)
    for i in range(n):
        first = advance(state)
        state = advance(first)
        table[i] = new_entry(first, state)
    for _ in range(n // 2):
        drawn = advance(state)
        first = advance(drawn)
        state = advance(first)
        table[draw(drawn, n)] = new_entry(first, state)
    return state


def main(rounds: int = 8, n: int = 60000, data: int = DATA) -> dict[str, int]:
    """What it ended with. ``data``: bytes of globals beside its own."""
    if rounds < 0 or n < 1:
        raise gomp.ConfigError(f"rounds={rounds} n={n}: give n of 1 or more, and rounds of 0 or more")
    bring_data(data)
    state = _SEED
    for _ in range(rounds):
        state = _round(n, state)
    return outcome(0, state)
