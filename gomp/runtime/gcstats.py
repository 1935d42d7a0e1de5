"""Go's debug.GCStats: when collections were, and how long they stopped the world."""

from __future__ import annotations

from dataclasses import dataclass, field

from gomp.runtime import memstats
from gomp.runtime.memstats import MemStats

_KEPT = 256


@dataclass(frozen=True)
class GCStats:
    """Of the cycles so far. A cycle's pauses count as one; times in ns, points in time since 1970."""

    last_gc: int  # when the last cycle ended; 0: there was none
    num_gc: int
    pause_total: int
    pause: tuple[int, ...] = field(repr=False)  # of the last 256 cycles, the latest first
    pause_end: tuple[int, ...] = field(repr=False)  # when each ended
    pause_quantiles: tuple[int, ...]  # of those: minimum, quarter, half, three quarters, maximum; 0 without any


def read(quantiles: int = 5) -> GCStats:
    """The figures of the runtime whose segments are mapped here, as :func:`of` has them. Nothing is stopped."""
    return of(memstats.read(), quantiles)


def of(stats: MemStats, quantiles: int = 5) -> GCStats:
    """What ``stats`` say of it, with so many quantiles, from the minimum to the maximum.

    A quantile is a pause that there was: of n sorted ones, number n * i // (quantiles - 1), and the longest for the last (ReadGCStats).
    """
    order = [(stats.num_gc - 1 - i) % _KEPT for i in range(min(stats.num_gc, _KEPT))]
    pause = tuple(stats.pause_ns[i] for i in order)
    return GCStats(
        last_gc=stats.last_gc,
        num_gc=stats.num_gc,
        pause_total=stats.pause_total_ns,
        pause=pause,
        pause_end=tuple(stats.pause_end[i] for i in order),
        pause_quantiles=_quantiles(sorted(pause), quantiles),
    )


def _quantiles(ordered: list[int], n: int) -> tuple[int, ...]:
    if not ordered or n < 2:
        return tuple(ordered[-1:] or (0,)) * n
    return (*(ordered[len(ordered) * i // (n - 1)] for i in range(n - 1)), ordered[-1])
