"""``m`` blocks, each dropped at once: everything is garbage."""

from __future__ import annotations

import gomp
from workers.reference.entries import drop_block, outcome
from workers.reference.process import DATA, bring_data
from workers.xorshift import advance

_SEED = 777


@gomp.compiled
def _drop(times: int, state: int) -> int:
    for _ in range(times):
        state = advance(state)
        drop_block(state)
    return state


def main(m: int = 1000000, data: int = DATA) -> dict[str, int]:
    """What it ended with. ``data``: bytes of globals beside its own."""
    if m < 0:
        raise gomp.ConfigError(f"m={m}: give 0 or more")
    bring_data(data)
    return outcome(0, _drop(m, _SEED))
