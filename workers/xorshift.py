"""xorshift64*, the random numbers of the programs: the same in Go and here."""

from __future__ import annotations

import numpy as np

import gomp

_GOLDEN = 0x9E3779B97F4A7C15
_STAR = np.uint64(0x2545F4914F6CDD1D)
_12, _25, _27 = np.uint64(12), np.uint64(25), np.uint64(27)


def seed(goroutine: int) -> int:
    """The first state of goroutine number 1, 2, …, as an int64."""
    return int(np.int64(np.uint64((goroutine * _GOLDEN | 1) & 0xFFFFFFFFFFFFFFFF)))


@gomp.compiled
def advance(state: int) -> int:
    """The next state."""
    x = np.uint64(state)
    x ^= x >> _12
    x ^= x << _25
    x ^= x >> _27
    return np.int64(x)


@gomp.compiled
def draw(state: int, n: int) -> int:
    """A number below ``n`` from a state."""
    return np.int64((np.uint64(state) * _STAR) % np.uint64(n))
