"""How many goroutines there are by the place at which they were started: the sign of a leak is one that only grows.

Counted anew from the table of goroutines, a million in some tens of milliseconds: if that takes long, no oftener than that it takes a twentieth of a
processor.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gomp.core.mutator.sites import NO_SITE
from gomp.core.shm import records
from gomp.core.shm.records import G_CASE, G_DEAD, G_IDLE, G_STATUS_MASK
from gomp.runtime.recordaddr import g_addr
from gomp.runtime.sitetable import site_of

OTHER, UNKNOWN = "other", "unknown"
_MOST = 20
_SHARE, _SHORT_S = 20, 0.01


@dataclass
class SiteCounts:
    """The last count, and when the next may be."""

    counts: list[tuple[str, int]] = field(default_factory=list)
    again_at: float = 0.0

    def read(self) -> list[tuple[str, int]]:
        """The places of the most goroutines, as file:line, with how many there are; OTHER for the rest."""
        if time.monotonic() >= self.again_at:
            began = time.thread_time()  # the clock's would make it rarer on a busy machine
            by_site = count()
            took = time.thread_time() - began
            self.counts = named(by_site)  # it takes long once, when what reads the table of sites is loaded
            self.again_at = time.monotonic() + max(took - _SHORT_S, 0.0) * _SHARE
        return self.counts


def count() -> Any:
    """How many there are now, by the number of the site."""
    n = int(records.view(records.sched_dtype, records.SCHED)[0].ngs)
    gs: Any = records.view(records.g_dtype, g_addr(1), n)
    statuses = gs["xstatus"] & G_STATUS_MASK
    return np.bincount(gs["site"][~np.isin(statuses, (G_CASE, G_DEAD, G_IDLE))], minlength=1)


def named(by_site: Any) -> list[tuple[str, int]]:
    """As :meth:`SiteCounts.read`, of these."""
    largest = [int(site) for site in np.argsort(-by_site, kind="stable")[:_MOST] if by_site[site]]
    counts: dict[str, int] = {}
    for site in largest:  # one line may be of several functions
        name = UNKNOWN if site == NO_SITE else str(site_of(site))
        counts[name] = counts.get(name, 0) + int(by_site[site])
    if rest := int(by_site.sum()) - sum(counts.values()):
        counts[OTHER] = rest
    return list(counts.items())
