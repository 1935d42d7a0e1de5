"""Histograms as Go's runtime/metrics gives them, and with the few buckets that are enough for Prometheus.

A duration's buckets are those of :mod:`gomp.core.sched.timehist`, an object's size those of the size classes. Unlike Go's these have an exact sum.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from gomp.core.heap.sizeclass import SIZES
from gomp.core.shm import records


@dataclass(frozen=True)
class Float64Histogram:
    """Go's metrics.Float64Histogram: ``counts[i]`` is of what lies from ``buckets[i]`` on and below ``buckets[i + 1]``; ``sum`` of all of it."""

    counts: tuple[int, ...]
    buckets: tuple[float, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many there are of it in all."""
        return sum(self.counts)

    def cumulative(self, bounds: Sequence[float]) -> list[tuple[float, int]]:
        """For each of ``bounds``, some of ``buckets``, the last infinite: the greatest number below it, and how many are not above that."""
        up_to = [0, *accumulate(self.counts)]
        return [
            (math.nextafter(bound, -math.inf), up_to[bisect_left(self.buckets, bound)]) for bound in bounds[:-1]
        ] + [(math.inf, up_to[-1])]


def _time_buckets() -> tuple[float, ...]:
    """In seconds: below 0, four of 64 ns, then four for each power of two up to 2**47 ns (histogram.go, timeHistogramMetricsBuckets)."""
    linear = [64 * i for i in range(4)]
    powers = [(1 << bits) + (i << bits - 2) for bits in range(8, 47) for i in range(4)]
    return (-math.inf, *(ns / 1e9 for ns in (*linear, *powers, 1 << 47)), math.inf)


TIME_BUCKETS = _time_buckets()
# In bytes. A size class has what is larger than the class before it has; large objects come after all of them.
SIZE_BUCKETS = (1.0, *(float(size + 1) for size in SIZES[1:]), math.inf)


def read_times(addresses: Iterable[int]) -> Float64Histogram:
    """Of the histograms at these addresses together, in seconds. Whoever counts while it is read may be in one of its figures and not in another."""
    counts, sum_ns = [0] * records.TIME_BUCKETS, 0
    for at in addresses:
        record: Any = records.view(records.timehist_dtype, at)[0]
        counts = [a + b for a, b in zip(counts, record.counts.tolist(), strict=True)]
        sum_ns += int(record.sum_ns)
    return Float64Histogram(tuple(counts), TIME_BUCKETS, sum_ns / 1e9)


def coarse_bounds(unit: str) -> tuple[float, ...]:
    """The buckets that Go's Prometheus client keeps of a histogram (client_golang, RuntimeMetricsBucketsForUnit): upper bounds, exclusive.

    Of sizes those that are a factor of two apart; of times a factor of ten, up to a second.
    """
    if unit == "bytes":
        return _apart(SIZE_BUCKETS, 2.0)
    return (*(bound for bound in _apart(TIME_BUCKETS[1:], 10.0) if bound <= 1.0), math.inf)


def _apart(buckets: Sequence[float], factor: float) -> tuple[float, ...]:
    """Of the bounds after the first those that are so far from the last one kept."""
    kept = [buckets[0]]
    for bucket in buckets[1:]:
        if bucket >= kept[-1] * factor:
            kept.append(bucket)
    return tuple(kept[1:])
