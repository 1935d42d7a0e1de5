"""The landing page: one self-contained document that renews itself, without scripts."""

from __future__ import annotations

from html import escape
from importlib import resources
from string import Template

from gomp.config import NO_LIMIT
from gomp.runtime.memstats import PStats
from gomp.runtime.metrics.own import p_label
from gomp.runtime.metrics.snapshot import Snapshot

_TEMPLATE = Template(resources.files("gomp.service").joinpath("page.html").read_text(encoding="utf-8"))


def render(s: Snapshot, name: str) -> str:
    """The page for the state ``s`` of the runtime called ``name``."""
    stats = s.stats
    scale = max(stats.heap_live, min(stats.next_gc, s.heap_max), 1) * 1.1
    return _TEMPLATE.substitute(
        title=escape(f"gomp · {name}"),
        state="ready" if s.ready else "not ready",
        uptime=format_time(stats.uptime_s),
        gogc="off" if stats.gogc < 0 else stats.gogc,
        limit="off" if stats.memory_limit == NO_LIMIT else format_bytes(stats.memory_limit),
        live=format_bytes(stats.heap_live),
        goal="no size" if stats.next_gc > s.heap_max else format_bytes(stats.next_gc),
        live_width=f"{100 * stats.heap_live / scale:.2f}",
        goal_at=f"{min(100 * stats.next_gc / scale, 100):.2f}",
        inuse=format_bytes(stats.heap_inuse),
        free=format_bytes(stats.heap_free),
        released=format_bytes(stats.heap_released),
        objects=f"{stats.heap_objects:,}",
        cycles=f"{stats.num_gc:,}",
        pause_p50=format_time(stats.pause_p50_s),
        pause_max=format_time(stats.pause_max_s),
        gc_cpu=f"{100 * stats.gc_cpu_fraction:.1f}%",
        rows="\n".join(_row(p) for p in stats.ps if p.pid),
    )


def _row(p: PStats) -> str:
    times = (format_time(seconds) for seconds in (p.mark_cpu_s, p.sweep_cpu_s, p.stopped_s))
    cells = (p_label(p), str(p.pid), *times, f"{p.refills:,}", f"{p.programs:,}")
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def format_bytes(n: float) -> str:
    """``n`` with the unit in which it has three digits or fewer."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1024
    return f"{n:.4g} TiB"


def format_time(seconds: float) -> str:
    """``seconds`` in the unit that fits."""
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds // 60 % 60)} min"
    if seconds >= 60:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs" if seconds else "0"
