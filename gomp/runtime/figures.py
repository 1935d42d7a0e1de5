"""Go's runtime.ReadMemStats and debug.ReadGCStats, for whoever has a runtime open."""

from __future__ import annotations

from gomp.runtime import current, gcstats
from gomp.runtime.gcstats import GCStats
from gomp.runtime.memstats import MemStats


def mem_stats() -> MemStats:
    """Go's MemStats, exactly: as Go's ReadMemStats this stops the world and empties the Ps' caches. ``gomp.metrics.read`` does neither."""
    return MemStats.from_json(current.peer().ask("stats").fields)


def gc_stats(quantiles: int = 5) -> GCStats:
    """When collections were and how long they stopped the world, with so many quantiles of that, from the minimum to the maximum. Stops nothing."""
    current.peer()
    return gcstats.read(quantiles)
