"""Perfect binary trees: one that is dropped, one that stays, and many of every depth between, built, counted and dropped."""

from __future__ import annotations

import gomp
from workers.binary_trees import build, build_and_count, count
from workers.reference.entries import outcome


def main(depth: int = 16) -> dict[str, int]:
    """What it ended with; ``check`` is the number of nodes counted."""
    if not 1 <= depth <= 40:
        raise gomp.ConfigError(f"depth={depth}: give 1 to 40")
    check = build_and_count(depth + 1, 1)
    kept = build(depth)
    for d in range(4, depth + 1, 4):
        check += build_and_count(d, 1 << (depth - d + 4))
    return outcome(check + count(kept), 0)
