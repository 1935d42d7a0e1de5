"""All metrics, for the live page: what the table of metrics says of each, and its values now.

The page asks for them while somebody looks at them, and works out what a counter grows by from one answer to the next.
"""

from __future__ import annotations

from typing import Any

from gomp.runtime import steady
from gomp.runtime.metrics.samples import rows, sample
from gomp.runtime.metrics.table import TABLE
from gomp.service import metrics


def read() -> dict[str, Any]:
    """A row for each value, and when that was, in ms of Unix time."""
    found = rows(sample(TABLE, metrics.snapshot()), {}, 1.0)
    return {
        "now": steady.unix_ms(),
        "rows": [row.to_json() | {"help": row.metric.help, "plot": row.metric.plot} for row in found],
    }
