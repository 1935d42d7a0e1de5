"""``gomp.metrics``: Go's runtime/metrics, under Go's names, and this runtime's own beside them.

Nothing is stopped. What adds up does so in each reading: the memory classes to their total, the CPU classes to theirs, allocations less frees to the
objects there are. An object that a P has taken from its cache counts after the P's next refill, as in Go.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from fnmatch import fnmatch

from gomp.core.shm import layout
from gomp.core.shm.records import p_dtype, view
from gomp.runtime import current
from gomp.runtime.kinds import brief
from gomp.runtime.metrics.description import Metric, Number, Summary
from gomp.runtime.metrics.golang import ABSENT
from gomp.runtime.metrics.histograms import Float64Histogram
from gomp.runtime.metrics.snapshot import Snapshot, Sources
from gomp.runtime.metrics.table import BY_NAME, TABLE
from gomp.runtime.processes import ProcessMemories

__all__ = ["ABSENT", "Float64Histogram", "Metric", "Summary", "all", "read"]

Reading = Number | Float64Histogram | Summary | dict[str, Number]


def all() -> tuple[Metric, ...]:
    """The descriptions of all metrics: Go's, those of its Prometheus client, and our own. What Go has and this runtime has not: ``ABSENT``."""
    return TABLE


def read(*names: str) -> dict[str, Reading]:
    """What these metrics say now, by name; without names, all of Go's runtime/metrics.

    A number, a Float64Histogram, a Summary, or numbers by what the label says. What this system does not have is left out.
    Raises ValueError for a name that no metric has, TypeError for what is no name, RuntimeLost without a runtime.
    """
    current.peer()
    wanted = [_find(name) for name in names] if names else [metric for metric in TABLE if metric.is_go]
    me = view(p_dtype, layout.SELF_BASE)[0]
    snapshot = Snapshot(_sources(), int(me.heap_fd), int(me.meta_fd))
    found: dict[str, Reading] = {}
    for metric in wanted:
        value = metric.read(snapshot)
        if isinstance(value, int | float | Float64Histogram | Summary):
            found[metric.name] = value
        elif value is not None:
            found[metric.name] = dict(value)
    return found


def _find(name: str) -> Metric:
    if not isinstance(name, str):
        raise TypeError(f"give names of metrics one by one, as '/gc/heap/live:bytes', not {brief(name)}")
    metric = BY_NAME.get(name)
    if metric is None:
        raise ValueError(f"there is no metric {brief(name)}: {_why_absent(ABSENT, name)}")
    return metric


def _why_absent(absent: Mapping[str, str], name: str) -> str:
    return next((why for pattern, why in absent.items() if fnmatch(name, pattern)), "gomp.metrics.all() has them all")


@functools.cache
def _sources() -> Sources:
    return Sources(memories=ProcessMemories(beside=False))
