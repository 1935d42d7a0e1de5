"""The heap and the memory as bars, with the figures that they are drawn from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.text import Text

from gomp.runtime.units import format_bytes
from gomp.top.figures import format_mib

_BETWEEN = " · "
# Of the classes of memory: what a bar is drawn with, and in which colour.
_MEMORY = {
    "objects": ("█", "green"),
    "unused": ("▓", "cyan"),
    "stacks": ("▒", "magenta"),
    "free": ("░", ""),
    "metadata": ("▚", "red"),
}


def heap_bar(heap: dict[str, Any], width: int) -> list[Text]:
    """What is live against where the next cycle begins, and where it is to end."""
    parts = [f"{format_bytes(heap['live'])} live", f"{format_bytes(heap['marked'])} marked"]
    parts += [f"{name} {format_bytes(heap[name]) if heap[name] else 'none'}" for name in ("trigger", "goal")]
    most = max(heap["live"], heap["goal"] or 0, heap["trigger"] or 0, 1)
    marked = min(heap["marked"], heap["live"])
    cells = max(width - 1, 1)
    bar = _bar([(marked, "█", "green"), (heap["live"] - marked, "▒", "cyan")], most, cells)
    for name, mark in (("trigger", "T"), ("goal", "G")):
        if heap[name]:
            at = min(cells * heap[name] // most, cells - 1)
            bar = Text.assemble(bar[:at], (mark, "bold"), bar[at + 1 :])
    return [titled("heap", parts), bar]


def memory_bar(figures: dict[str, Any], width: int) -> list[Text]:
    """What the memory limit counts, by class, against the limit."""
    memory, limit, container = figures["memory"], figures["settings"]["memory_limit"], figures["container"]
    of_limit = f" of {format_bytes(limit)}" if limit else ""
    returned = memory["released"] - memory["lingering"]
    parts = [f"{format_bytes(memory['mapped'])} mapped{of_limit}", f"{format_bytes(returned)} returned"]
    if memory["lingering"]:
        parts.append(f"{format_bytes(memory['lingering'])} lingering")
    if container and container["usage"] is not None:
        parts.append(f"container {format_bytes(container['usage'])} of {format_bytes(container['limit'])}")
    most = max(memory["mapped"], limit or 0, 1)
    bar = _bar([(memory[name], *drawn) for name, drawn in _MEMORY.items()], most, width - 1)
    meanings = [(*drawn, f"{name} {format_mib(memory[name])}") for name, drawn in _MEMORY.items()]
    return [titled("memory", parts), bar, key_of(meanings).append(" MiB")]


def _bar(parts: Sequence[tuple[int, str, str]], most: int, cells: int) -> Text:
    """``cells`` of them for ``most``: so many of each part as its share is, and the rest empty."""
    bar, sum_ = Text(), 0
    for size, mark, style in parts:
        sum_ += max(size, 0)
        bar.append(mark * (min(round(cells * sum_ / most), cells) - len(bar)), style)
    return bar.append("·" * (cells - len(bar)))


def titled(title: str, parts: Sequence[str]) -> Text:
    """A line with a name and figures."""
    return Text(f"{title:<7}", style="bold").append(_BETWEEN.join(parts), "not bold")


def key_of(meanings: Iterable[tuple[str, str, str]]) -> Text:
    """What marks stand for: a mark, its colour, its meaning."""
    return Text(" ").join(Text(mark, style).append(f" {meaning}", "default") for mark, style, meaning in meanings)
