"""A reading as lines of text: what an operator asks for first stands first, in 80 columns and 24 rows or in more.

head · heap · memory · CPU time of collection · cycles and pauses · allocation · each P · the last cycles · what the letters mean

Colours are the terminal's own eight, so that they are right on dark and light; whatever has one can be told without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from gomp.runtime import doing
from gomp.runtime.units import format_bytes, format_time
from gomp.top.bars import heap_bar, key_of, memory_bar, titled
from gomp.top.figures import format_count, format_mib, format_share
from gomp.top.readings import Reading

LEAST_WIDTH = 80
FEWEST_CYCLES = 3
_PLAIN_CYCLES = 10
_STATE_STYLES = {"running": "green", "marking": "cyan"}
_CPU = {"assists": "assist", "background": "work", "idle": "idle", "pauses": "pause", "sweeping": "sweep", "returning": "return"}  # fmt: skip
_COLLECTION = ("assists", "background", "idle", "pauses")  # as Go's /cpu/classes/gc/total
# What a P does, as :mod:`gomp.runtime.doing` has it: what is shown, in which colour, what it means.
_DOES = {
    doing.PROGRAM: ("r", "green", "runs"),
    doing.PYTHON: ("p", "green", "Python"),
    doing.MARKS: ("m", "cyan", "marks"),
    doing.ASSISTS: ("A", "magenta", "assists"),
    doing.OWES: ("O", "magenta", "owes"),
    doing.SWEEPS: ("w", "cyan", "sweeps"),
    doing.STOPPED: ("S", "red", "stopped"),
    doing.IDLE: ("·", "", "idle"),
    doing.GONE: ("x", "red", "gone"),
}


def of_reading(reading: Reading, width: int, height: int | None) -> list[Text]:
    """The lines. Without a ``height`` there are as many as there is to say."""
    figures, rates = reading.figures, reading.rates
    lines = [
        head(reading),
        *heap_bar(figures["heap"], width),
        *memory_bar(figures, width),
        _cpu(rates["cpu"]),
        _cycles(figures, rates),
        _allocation(figures, rates),
        Text(),
    ]
    n_ps = len(figures["ps"])
    if height is not None:  # less what is there, the last line, two heads, and a blank line between the tables
        n_ps = min(n_ps, max(height - len(lines) - FEWEST_CYCLES - 4, 1))
    lines += _ps(reading, n_ps, width)
    n_cycles = _PLAIN_CYCLES if height is None else max(height - len(lines) - 3, 0)
    if n_cycles and reading.cycles:
        lines += [Text(), *_last_cycles(reading.cycles[-n_cycles:], figures["now"])]
    if height is not None:
        lines = lines[: height - 1]
        lines += [Text()] * (height - 1 - len(lines))
    return [*lines, key_of(_DOES.values())]


def head(reading: Reading) -> Text:
    """Which runtime it is, what it does and what it was told."""
    figures = reading.figures
    settings = figures["settings"]
    line = Text(reading.name, style="bold")
    line.append("  ")
    line.append(figures["state"], _STATE_STYLES.get(figures["state"], "red"))
    if figures["cycles"]["is_limited"]:
        line.append("  CPU LIMITER ON", "red")
    auto = {name: " (auto)" if settings[name] else "" for name in ("procs_are_auto", "memory_limit_is_auto")}
    gogc = "off" if settings["gogc"] is None else settings["gogc"]
    limit = "off" if settings["memory_limit"] is None else format_bytes(settings["memory_limit"])
    line.append(f"  up {format_time(figures['uptime_s'])}  ", "not bold")
    line.append(
        f"{settings['procs']} Ps{auto['procs_are_auto']}  GOGC {gogc}  limit {limit}{auto['memory_limit_is_auto']}",
        "not bold",
    )
    return line


# --- figures ----------------------------------------------------------------------------------------------------------


def _cpu(shares: dict[str, float]) -> Text:
    parts = [f"{word} {format_share(shares[name])}" for name, word in _CPU.items()]
    total = format_share(sum(shares[name] for name in _COLLECTION))
    return Text("GC CPU ", style="bold").append(f"{total}: {' '.join(parts)}", "not bold")


def _cycles(figures: dict[str, Any], rates: dict[str, Any]) -> Text:
    cycles, pauses = figures["cycles"], figures["pauses"]
    p50, p99, longest = (format_time(pauses[f"{name}_s"]) for name in ("p50", "p99", "max"))
    return titled(
        "cycles",
        [
            f"{rates['cycles']:.1f}/s",
            format_count(cycles["count"]) + (f" ({format_count(cycles['forced'])} forced)" if cycles["forced"] else ""),
            f"pauses p50 {p50} p99 {p99} max {longest}",
        ],
    )


def _allocation(figures: dict[str, Any], rates: dict[str, Any]) -> Text:
    return titled(
        "alloc",
        [
            f"{format_bytes(rates['allocated'])}/s",
            f"{format_count(rates['mallocs'])} objects/s",
            f"{format_count(figures['heap']['objects'])} objects",
            f"{format_count(figures['goroutines'])} goroutines",
        ],
    )


# --- tables -----------------------------------------------------------------------------------------------------------


def _ps(reading: Reading, n: int, width: int) -> list[Text]:
    """At most ``n`` of them, with what each has done lately, the latest on the right."""
    ps = reading.figures["ps"]
    lines = [
        Text(
            f"{'P':<11} {'PID':>7}  {'MARK':>4} {'ASSIST':>6} {'SWEEP':>5}  {'STOP':>4} {'RAN':>6} {'DIED':>4} ", "bold"
        )
    ]
    room = max(width - lines[0].cell_len - 1, 1)
    lines[0].append("LATELY")
    for p in ps if len(ps) <= n else ps[: n - 1]:
        rates = reading.rates["ps"][p["name"]]
        mark, assist, sweep, stop = (format_share(rates[name]) for name in ("mark", "assist", "sweep", "stopped"))
        line = Text(
            f"{p['name']:<11} {p['pid']:>7}  {mark:>4} {assist:>6} {sweep:>5}  {stop:>4} {format_count(p['programs']):>6} "
            f"{p['deaths']:>4} "
        )
        for did in reading.lately.get(p["name"], "")[-room:]:
            line.append(*_DOES[did][:2])
        lines.append(line)
    if len(ps) > n:
        lines.append(Text(f"… and {len(ps) - n + 1} more"))
    return lines


def _last_cycles(cycles: Sequence[dict[str, Any]], now_ms: float) -> list[Text]:
    """The latest first."""
    lines = [
        Text(f"{'CYCLE':>7} {'AGO':>10} {'PAUSES':>8} {'MARKED':>8} {'CPU':>8}  {'HEAP → LIVE, MIB':<20} {'GOAL':>5}", "bold")
    ]  # fmt: skip
    for cycle in reversed(cycles):
        ago = format_time(max(now_ms - cycle["end"], 0) / 1e3)
        marked_s = (cycle["term"] - cycle["mark"]) / 1e3
        cpu_s = (cycle["assist_ns"] + cycle["background_ns"] + cycle["idle_ns"]) / 1e9
        heap = " → ".join(format_mib(cycle[f"heap_{name}"]) for name in ("start", "end", "marked"))
        forced = " forced" if cycle["forced"] else ""
        lines.append(
            Text(
                f"{cycle['number']:>7} {ago:>10} {format_time(cycle['pause_ns'] / 1e9):>8} {format_time(marked_s):>8} "
                f"{format_time(cpu_s):>8}  {heap:<20} {format_mib(cycle['goal']):>5}{forced}"
            )
        )
    return lines
