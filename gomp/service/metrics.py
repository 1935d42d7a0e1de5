"""What Prometheus sees: the table of metrics, and one collector that reads shared memory when it is scraped.

What Go's own client gives has its names, so dashboards and alerts for Go programs work as they are; what Go has no word for begins with ``gomp_``.
No counter ever goes back while the runtime lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, UnknownMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gomp.core.shm import layout, records
from gomp.runtime.metrics.description import Metric, Summary
from gomp.runtime.metrics.histograms import Float64Histogram, coarse_bounds
from gomp.runtime.metrics.snapshot import Snapshot, Sources, is_ready
from gomp.runtime.metrics.table import TABLE

_SOURCES = Sources()
_FAMILIES: dict[str, Any] = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily, "unknown": UnknownMetricFamily}
_NAMES = {metric.prometheus_name for metric in TABLE}
_NAP_S = 0.02
_BOUNDS = {unit: coarse_bounds(unit) for unit in ("bytes", "seconds")}


def snapshot() -> Snapshot:
    """The state of the runtime whose segments are mapped here, and open as the coordinator's descriptors, which this process has inherited."""
    coordinator = records.view(records.p_dtype, layout.p_addr(layout.COORDINATOR_P))[0]
    return Snapshot(_SOURCES, int(coordinator.heap_fd), int(coordinator.meta_fd))


async def look_early() -> None:
    """Once the runtime is ready, find what is kept from one scrape to the next and takes long to find, so that the first need not.

    Not in a thread: one that reads long files gives up the interpreter at each piece, and waits for it again.
    """
    while not is_ready():
        await asyncio.sleep(_NAP_S)
    snapshot().processes  # noqa: B018  # a property that looks


def families(s: Snapshot, everything: bool = False, is_open: bool = False) -> Iterator[Family]:
    """The metrics of ``s`` in Prometheus's terms, or OpenMetrics's if it ``is_open``: those it gets by default, or ``everything``."""
    for metric in TABLE:
        if everything or metric.by_default:
            kind = _open_kind(metric) if is_open else metric.kind
            family = _family(metric, kind, metric.read(s))
            if family is not None:
                yield family


def _open_kind(metric: Metric) -> str:
    """OpenMetrics calls a counter by its name without _total, which one of Go's gauges has: only as of unknown kind it may keep its own."""
    is_taken = metric.kind == "counter" and metric.prometheus_name.removesuffix("_total") in _NAMES
    return "unknown" if is_taken else metric.kind


def _family(metric: Metric, kind: str, value: Any) -> Family | None:
    name = metric.prometheus_name
    if value is None:
        return None
    if isinstance(value, Float64Histogram):
        buckets = [(_bound(le), count) for le, count in value.cumulative(_BOUNDS[metric.unit])]
        return HistogramMetricFamily(name, metric.help, buckets, value.sum)
    if isinstance(value, Summary):
        return _summary(name, metric.help, value)
    if isinstance(value, int | float):
        return _FAMILIES[kind](name, metric.help, value=value)  # type: ignore[no-any-return]
    family: Family = _FAMILIES[kind](name, metric.help, labels=[metric.label])
    for label, number in value:
        family.add_metric([label], number)  # type: ignore[attr-defined]
    return family


def _bound(le: float) -> str:
    return str(floatToGoString(le))  # type: ignore[no-untyped-call]


def _summary(name: str, text: str, value: Summary) -> Family:
    """With quantiles, which the library's own kind of summary has not."""
    summary = Family(name, text, "summary")
    for share, number in value.quantiles:
        summary.add_sample(name, {"quantile": share}, number)
    summary.add_sample(f"{name}_sum", {}, value.sum)
    summary.add_sample(f"{name}_count", {}, value.count)
    return summary


class RuntimeCollector(Collector):
    """Reads the runtime's shared memory each time it is asked."""

    def __init__(self, everything: bool, is_open: bool) -> None:
        self._everything = everything
        self._is_open = is_open

    def collect(self) -> Iterator[Family]:
        yield from families(snapshot(), self._everything, self._is_open)


def registry(everything: bool = False, is_open: bool = False) -> CollectorRegistry:
    """A registry with the one collector, for an answer in OpenMetrics if it ``is_open``."""
    made = CollectorRegistry(auto_describe=False)
    made.register(RuntimeCollector(everything, is_open))
    return made
