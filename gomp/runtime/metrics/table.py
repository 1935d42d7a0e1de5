"""All metrics, in the order in which they are shown."""

from __future__ import annotations

from gomp.runtime.metrics.client import CLIENT_METRICS
from gomp.runtime.metrics.golang import GO_METRICS
from gomp.runtime.metrics.own import OWN_METRICS

TABLE = (*CLIENT_METRICS, *GO_METRICS, *OWN_METRICS)
BY_NAME = {metric.name: metric for metric in TABLE}
