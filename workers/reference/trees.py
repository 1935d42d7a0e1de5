"""Perfect binary trees: one that is dropped, one that stays, and many of every depth between, built, counted and dropped."""

from __future__ import annotations

import gomp
from workers.binary_trees import build, build_and_count, count
from workers.reference.entries import outcome
from workers.reference.process import DATA, bring_data


def main(depth: int = 16, data: int = DATA) -> dict[str, int]:
    """What it ended with; ``check`` is the number of nodes counted. ``data``: bytes of globals beside its own."""
    if not 1 <= depth <= 40:
        raise gomp.ConfigError(f"depth={depth}: give 1 to 40")
    bring_data(data)
    check = build_and_count(depth + 1, 1)
    kept = build(depth)
    for d in range(4, depth + 1, 4):
        check += build_and_count(d, 1 << (depth - d + 4))
    return outcome(check + count(kept), 0)
