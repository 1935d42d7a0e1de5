"""Rows of metrics as lines of text: names come last, as they are what may be cut off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from gomp.runtime.metrics.histograms import Float64Histogram
from gomp.runtime.metrics.samples import Row
from gomp.top.figures import format_count, format_rate, format_value

_Cells = tuple[str, str, str]
_HEAD = ("VALUE", "RATE", "METRIC")


def of_rows(rows: Sequence[Row], height: int | None) -> list[Text]:
    """A table; without a ``height`` it has all of them."""
    cells = [line for row in rows for line in _cells(row)]
    shown = cells if height is None or len(cells) < height else cells[: max(height - 2, 0)]
    value, rate = (max(len(line[i]) for line in (_HEAD, *shown)) for i in range(2))
    lines = [
        Text(f"{line[0]:>{value}}  {line[1]:>{rate}}  {line[2]}", style)
        for line, style in ((_HEAD, "bold"), *((line, "") for line in shown))
    ]
    if len(shown) < len(cells):
        lines.append(Text(f"… and {len(cells) - len(shown)} more: a narrower pattern, or --once, shows them"))
    return lines


def _cells(row: Row) -> Iterator[_Cells]:
    """One line, or one for each quantile and one for the count."""
    metric = row.metric
    name = f"{metric.name}{{{metric.label}={row.label}}}" if metric.label else metric.name
    if isinstance(row.value, int | float):
        rate = "" if row.rate is None else format_rate(row.rate, metric.unit)
        yield format_value(row.value, metric.unit, name), rate, name
        return
    below = "<" if isinstance(row.value, Float64Histogram) else ""  # only the bucket is known
    for share, value in row.quantiles().items() if row.value.count else ():
        yield f"{below}{format_value(value, metric.unit)}", "", f"{name} p{100 * float(share):.0f}"
    rate = "" if row.rate is None else format_rate(row.rate, "")
    yield format_count(row.value.count), rate, f"{name} count"
