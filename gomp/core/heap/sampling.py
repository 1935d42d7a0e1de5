"""Which objects the memory profile is about: one for every ``memprofilerate`` bytes on average (malloc.go, nextSample).

Go subtracts each object from a distance that it has drawn from an exponential distribution, and samples the one that takes it below 0. That is work
on the fast path, which there is none of here: of a window, the fast path is given only the free slots before the next object that is to be sampled
(``free``), the rest is *held* back. When it finds none, the slow path gives it more, and looks at the first of them.

Each mcache entry has a distance of its own. The distribution has no memory: what is sampled is the same, whether one distance counts what all
classes allocate or each its own, and a distance may be drawn anew whenever it is known only that it has not been reached.
"""

from __future__ import annotations

import math

from gomp.core.jit import kernel
from gomp.core.shm.atomics import clear_lowest, popcount, store_release
from gomp.core.shm.cheaprand import cheaprand
from gomp.core.shm.records import MCACHE_FREE, MCACHE_HELD, mcache_at, memprofile

UNDRAWN = -1
NEVER = 1 << 62
_MOST_MEAN = 0x7000000  # fastexprand
_RANDOM_BITS = 26
_MINUS_LN2 = -0.6931471805599453


@kernel("int64()")
def next_sample() -> int:
    """Bytes to the next object that is sampled, exponentially distributed around the rate."""
    rate = memprofile().rate
    if rate <= 0:
        return NEVER
    if rate == 1:
        return 0
    log = min(math.log2(float(cheaprand(_RANDOM_BITS) + 1)) - _RANDOM_BITS, 0.0)
    return int(log * (_MINUS_LN2 * min(rate, _MOST_MEAN))) + 1


@kernel("int64(int64, int64)")
def hand_out(entry: int, elem_size: int) -> int:
    """Let the fast path have the held slots before the next that is to be sampled; 1 if the first of them is to be now.

    ``entry`` is one of this P's mcache, with an open window that has none but held slots. Killed in between, some are in both words.
    """
    e = mcache_at(entry)
    until = e.until_sample if e.until_sample != UNDRAWN else next_sample()
    is_first = until < elem_size
    if is_first:
        until = next_sample() + elem_size
    n = popcount(e.held)
    if until < n * elem_size:
        n = until // elem_size
    e.until_sample = until - n * elem_size
    kept = e.held
    for _ in range(n):
        kept = clear_lowest(kept)
    store_release(entry + MCACHE_FREE, e.held & ~kept)
    store_release(entry + MCACHE_HELD, kept)
    return 1 if is_first else 0


@kernel("int64(int64, int64)")
def is_sampled(entry: int, size: int) -> int:
    """1 if an object of ``size`` bytes is to be sampled that comes from no window; ``entry`` counts its class."""
    e = mcache_at(entry)
    until = e.until_sample if e.until_sample != UNDRAWN else next_sample()
    if until >= size:
        e.until_sample = until - size
        return 0
    e.until_sample = next_sample()
    return 1
