"""Goroutines beside Go's: what a million that wait cost, and a switch from one to another, in one P and between two."""

from __future__ import annotations

import statistics
from pathlib import Path

import gomp
from benchmarks.go_twin import build_go, run_go
from benchmarks.page import put_section
from workers import million_idle, ping_pong

TITLE = "Goroutines"
PAIRS = 5
IDLE, COLLECTIONS = 1_000_000, 5
ROUNDS, ROUNDS_ACROSS = 1_000_000, 50_000
IDLE_MODE, SWITCH_MODE, LOCKED_MODE = 0, 1, 2  # of benchmarks/go/goroutines.go

Figures = dict[str, tuple[str, float]]  # by what was measured: unit and value


def go_figures(binary: Path) -> Figures:
    idle = run_go(binary, IDLE_MODE, IDLE)["figures"]
    one = run_go(binary, SWITCH_MODE, ROUNDS, procs=1)["figures"]
    two = run_go(binary, LOCKED_MODE, ROUNDS_ACROSS)["figures"]
    return _named(
        idle["created_s"], idle["bytes"], idle["gc_ms"], idle["pause_us"], one["switch_ns"], two["switch_ns"] / 1e3, two["parked_us"]
    )  # fmt: skip


def our_figures() -> Figures:
    with gomp.Runtime(procs=2, max_heap="4GiB") as rt:
        idle = rt.run(million_idle.measure, IDLE, COLLECTIONS)
        busy, parked = ping_pong.across(ROUNDS_ACROSS)
    with gomp.Runtime(procs=1) as rt:
        rt.run(ping_pong.play, 1)
        switch = rt.run(ping_pong.play, ROUNDS) / ROUNDS / 2
    return _named(
        idle.began_s, idle.bytes_each, idle.gc_ms, idle.pause_us, 1e9 * switch, 1e6 * busy, 1e6 * parked
    )  # fmt: skip


def _named(*values: float) -> Figures:
    names = (
        (f"{IDLE:,} goroutines that wait: until all do", "s"),
        ("... each of them", "bytes"),
        ("... a collection", "ms"),
        ("... how long that stops the world", "µs"),
        ("a switch by ping-pong, in one P", "ns"),
        ("... between two Ps (Go: threads)", "µs"),
        ("... to one that sleeps", "µs"),
    )
    return {name: (unit, value) for (name, unit), value in zip(names, values, strict=True)}


def measure(pairs: int = PAIRS) -> str:
    """The table: medians of pairs of runs."""
    binary = build_go("goroutines")
    runs = [(go_figures(binary), our_figures()) for _ in range(pairs)]
    lines = ["| | Go | gomp | gomp / Go |", "|---|---|---|---|"]
    for name, (unit, _) in runs[0][0].items():
        go, ours = (statistics.median(pair[side][name][1] for pair in runs) for side in (0, 1))
        lines.append(f"| {name} | {_shown(go)} {unit} | {_shown(ours)} {unit} | {ours / go:.2f} |")
    return "\n".join(lines)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    table = measure()
    print(table)
    put_section("goroutines", TITLE, table)
