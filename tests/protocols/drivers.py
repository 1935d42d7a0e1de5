"""What the drivers share: random delays inside kernels, and a place where only one may be."""

from __future__ import annotations

from gomp.core import inline
from gomp.core.shm.atomics import add_relaxed, cpu_pause, load_relaxed, lsl, lsr, store_relaxed
from gomp.core.shm.libc import sched_yield
from tests.protocols.processes import LINE, SCRATCH

OCCUPANT = SCRATCH
VIOLATIONS = SCRATCH + LINE
VISITS = SCRATCH + 2 * LINE  # one word for each number that visits
OVER = SCRATCH + 16 * LINE  # not 0: the children end
OWN = SCRATCH + 4096  # the words of a single test


@inline
def dawdle(seed: int) -> int:
    """Take no time, a little, or a scheduler's slice; returns the next seed."""
    seed ^= lsl(seed, 13)
    seed ^= lsr(seed, 7)
    seed ^= lsl(seed, 17)
    draw = seed & 1023
    if draw < 8:
        sched_yield()
    elif draw < 200:
        for _ in range(draw & 63):
            cpu_pause()
    return seed


@inline
def visit(number: int, seed: int) -> int:
    """Be where only one may be, as ``number``; whoever finds another's number there has seen two."""
    store_relaxed(OCCUPANT, number)
    seed = dawdle(seed)
    if load_relaxed(OCCUPANT) != number:
        add_relaxed(VIOLATIONS, 1)
    add_relaxed(VISITS + LINE * number, 1)
    return seed


@inline
def is_over() -> bool:
    return load_relaxed(OVER) != 0 or load_relaxed(VIOLATIONS) != 0
