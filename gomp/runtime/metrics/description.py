"""What is said of a metric, once: ``/metrics``, :func:`gomp.metrics.read`, the live page, ``gomp top`` and the documentation are made from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from gomp.runtime.metrics.histograms import Float64Histogram
from gomp.runtime.metrics.snapshot import Snapshot

Kind = Literal["gauge", "counter", "histogram", "summary"]
Number = int | float
Labelled = Iterable[tuple[str, Number]]


@dataclass(frozen=True)
class Summary:
    """What some share of a sample did not exceed, by the share; and the sum and the number of all there ever was."""

    quantiles: tuple[tuple[str, float], ...]
    sum: float
    count: int


Value = Number | Float64Histogram | Summary | Labelled
_BASE_UNITS = ("bytes", "seconds", "ratio", "percent", "threads")


@dataclass(frozen=True)
class Metric:
    """One metric. ``name`` is Go's, as ``/gc/heap/live:bytes``, or else Prometheus's, which begins with ``go_``, ``process_`` or ``gomp_``.

    ``read`` gives its value; None where this system has none; or, for one with a label, the values with what the label says. ``by_default``:
    Prometheus gets it unless told otherwise.
    """

    name: str
    kind: Kind
    help: str
    read: Callable[[Snapshot], Value | None]
    label: str = ""
    by_default: bool = True

    @property
    def is_go(self) -> bool:
        """Whether it is one of Go's runtime/metrics."""
        return self.name.startswith("/")

    @property
    def plot(self) -> Literal["value", "rate", "quantiles"]:
        """What of it is worth drawing over time."""
        return "value" if self.kind == "gauge" else "rate" if self.kind == "counter" else "quantiles"

    @property
    def unit(self) -> str:
        """What it counts; "" if only its name says that."""
        if self.is_go:
            return self.name.partition(":")[2]
        words = self.name.removesuffix("_total").split("_")
        return words[-1] if words[-1] in _BASE_UNITS else ""

    @cached_property
    def prometheus_name(self) -> str:
        """What Prometheus calls it: of Go's, what Go's own client makes of the name (client_golang, RuntimeMetricsToProm)."""
        if not self.is_go:
            return self.name
        path, _, unit = self.name.partition(":")
        name = f"go_{re.sub('[/-]', '_', path.removeprefix('/'))}_{re.sub('[-*]', '_', unit).replace('/', '_per_')}"
        return f"{name}_total" if self.kind == "counter" else name
