"""Histograms of durations, with the buckets of Go's runtime (histogram.go): four of equal width for each power of two of nanoseconds.

Bucket 0 is for what is below 0, the last for what takes 2**47 ns or more; those between begin with four of 64 ns each. A histogram has one writer,
who counts the bucket before the sum: whoever is killed in between leaves out one duration of the sum. Others read it at any time.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.shm.atomics import clz, load64, store64
from gomp.core.shm.records import TIME_BUCKETS, offset_of, timehist_dtype

_SUM = offset_of(timehist_dtype, "sum_ns")
_LEAST_BITS = 9  # shorter ones share the first four buckets
_OVERFLOW = TIME_BUCKETS - 1


@inline
def bucket_of(ns: int) -> int:
    """Number of the bucket that counts a duration."""
    if ns < 0:
        return 0
    bits = max(64 - clz(ns), _LEAST_BITS)
    block = bits - _LEAST_BITS + (1 if ns >> (_LEAST_BITS - 1) != 0 else 0)
    return min(1 + 4 * block + (ns >> (bits - 3) & 3), _OVERFLOW)


@kernel("void(int64, int64)")
def add(histogram: int, ns: int) -> None:
    """Count a duration in the histogram at that address, which is this process's own."""
    count = histogram + 8 * bucket_of(ns)
    store64(count, load64(count) + 1)
    store64(histogram + _SUM, load64(histogram + _SUM) + max(ns, 0))
