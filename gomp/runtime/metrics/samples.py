"""Metrics as rows: each value of the table of metrics under its name, for a counter with what it has grown by in a second.

Which figures there are, and what they are called, is in :mod:`gomp.runtime.metrics.table` alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any

from gomp.errors import ConfigError
from gomp.runtime.metrics.description import Metric, Number, Summary
from gomp.runtime.metrics.histograms import Float64Histogram
from gomp.runtime.metrics.snapshot import Snapshot
from gomp.runtime.metrics.table import TABLE

Sampled = Number | Float64Histogram | Summary
Samples = dict[tuple[Metric, str], Sampled]  # with what the label says, "" without one


def matching(patterns: Sequence[str]) -> list[Metric]:
    """The metrics one of whose names, Go's and Prometheus's, fits one of the shell patterns. ConfigError if one fits none."""
    for pattern in patterns:
        if not any(_fits(metric, pattern) for metric in TABLE):
            raise ConfigError(f"no metric is called {pattern[:80]!r}: --metric '*' shows all there are")
    return [metric for metric in TABLE if any(_fits(metric, pattern) for pattern in patterns)]


def _fits(metric: Metric, pattern: str) -> bool:
    return fnmatchcase(metric.name, pattern) or fnmatchcase(metric.prometheus_name, pattern)


def sample(metrics: Sequence[Metric], snapshot: Snapshot) -> Samples:
    """What those metrics say now; what this system has not is left out."""
    found: Samples = {}
    for metric in metrics:
        value = metric.read(snapshot)
        if value is None:
            continue
        if isinstance(value, int | float | Float64Histogram | Summary):
            found[metric, ""] = value
        else:
            found |= {(metric, label): number for label, number in value}
    return found


@dataclass(frozen=True)
class Row:
    """One value. ``rate``: what a counter grows by in a second, or how often something is counted in a histogram; None for the others."""

    metric: Metric
    label: str
    value: Sampled
    rate: float | None

    def quantiles(self) -> dict[str, float]:
        """Of a histogram the bounds below which half and 99% of it are; of a summary what it has, by the share; of a number none."""
        if isinstance(self.value, Float64Histogram):
            return {"0.5": quantile(self.value, 0.5), "0.99": quantile(self.value, 0.99)}
        return dict(self.value.quantiles) if isinstance(self.value, Summary) else {}

    def to_json(self) -> dict[str, Any]:
        """All of it in what JSON can hold."""
        of, metric = self.value, self.metric
        return {
            "name": metric.name,
            "labels": {metric.label: self.label} if metric.label else {},
            "kind": metric.kind,
            "unit": metric.unit,
            "value": of
            if isinstance(of, int | float)
            else {"count": of.count, "sum": of.sum, "quantiles": self.quantiles()},
            "rate": self.rate,
        }


def rows(now: Samples, before: Samples, seconds: float) -> list[Row]:
    """A row for each sample, with the rate since the one ``before``, so many seconds ago."""
    return [Row(*key, value, _rate(key[0], value, before.get(key), seconds)) for key, value in now.items()]


def _rate(metric: Metric, now: Sampled, before: Sampled | None, seconds: float) -> float | None:
    if metric.plot == "value" or before is None:
        return None
    return (_total(now) - _total(before)) / max(seconds, 1e-9)


def _total(value: Sampled) -> Number:
    return value if isinstance(value, int | float) else value.count


def quantile(histogram: Float64Histogram, share: float) -> float:
    """The upper bound of the bucket in which so much of it has been counted; of the last one the lower. 0 if nothing is counted."""
    wanted = max(math.ceil(share * histogram.count), 1)
    for bucket, up_to in enumerate(accumulate(histogram.counts)):
        if up_to >= wanted:
            upper = histogram.buckets[bucket + 1]
            return upper if math.isfinite(upper) else histogram.buckets[bucket]
    return 0.0
