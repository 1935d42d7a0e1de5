"""``m`` blocks, each dropped at once: everything is garbage."""

from __future__ import annotations

import gomp
from workers.reference.entries import drop_block, outcome
from workers.xorshift import advance

_SEED = 777


@gomp.compiled
def _drop(times: int, state: int) -> int:
    for _ in range(times):
        state = advance(state)
        drop_block(state)
    return state


def main(m: int = 1000000) -> dict[str, int]:
    """What it ended with."""
    if m < 0:
        raise gomp.ConfigError(f"m={m}: give 0 or more")
    return outcome(0, _drop(m, _SEED))
