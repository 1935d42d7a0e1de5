"""A table of ``n`` entries, of which ``m`` times a random one is replaced and ``garbage`` blocks are dropped.

Every ``force`` replacements it asks for a collection, if ``force`` is not 0.
"""

from __future__ import annotations

import gomp
from workers.reference.entries import TABLE, Entry, drop_block, new_entry, outcome
from workers.reference.process import DATA, bring_data
from workers.xorshift import advance, draw

_SEED = 88172645463325252


@gomp.compiled
def _fill(n: int, state: int) -> int:
    table = TABLE.get()
    for i in range(n):
        first = advance(state)
        state = advance(first)
        table[i] = new_entry(first, state)
    return state


@gomp.compiled
def _replace(n: int, times: int, garbage: int, state: int) -> int:
    table = TABLE.get()
    for _ in range(times):
        drawn = advance(state)
        first = advance(drawn)
        state = advance(first)
        table[draw(drawn, n)] = new_entry(first, state)
        for _ in range(garbage):
            state = advance(state)
            drop_block(state)
    return state


def main(n: int = 20000, m: int = 400000, garbage: int = 2, force: int = 0, data: int = DATA) -> dict[str, int]:
    """What it ended with. ``data``: bytes of globals beside its own."""
    if n < 1 or m < 0 or garbage < 0 or force < 0:
        raise gomp.ConfigError(
            f"n={n} m={m} garbage={garbage} force={force}: give n of 1 or more, and no negative number"
        )
    bring_data(data)
    TABLE.set(gomp.array(Entry, n))
    state = _fill(n, _SEED)
    if not force:
        return outcome(0, _replace(n, m, garbage, state))
    for _ in range(m // force):
        state = _replace(n, force, garbage, state)
        gomp.gc()
    return outcome(0, _replace(n, m % force, garbage, state))
