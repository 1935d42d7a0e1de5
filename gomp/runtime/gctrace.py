"""The line that ``GODEBUG=gctrace=1`` prints for each cycle, exactly as Go formats it.

::

    gc 2 @0.019s 3%: 0.081+1.0+0.005 ms clock, 0.16+0/0.49/1.0+0.011 ms cpu, 2->2->2 MB, 5 MB goal, 0 MB stacks, 0 MB globals, 2 P (forced)

gc, @, %      number of the cycle, time since the start of the runtime, share of all CPU time since then
ms clock      first pause (with the wait for the stop) + marking + last pause
ms cpu        first pause on all Ps + assists / dedicated and fractional workers / idle workers + last pause on all Ps
MB            heap when the cycle began -> when marking ended -> marked; then the goal in force when marking ended
(forced)      somebody asked for this cycle

A record says what happened, this module how it is written; nothing is rounded up.
"""

from __future__ import annotations

from dataclasses import dataclass

GC_FORCED = "GC forced"  # stands on a line of its own before a cycle that the two-minute timer began


@dataclass(frozen=True)
class Cycle:
    """One finished cycle. Times in ns, sizes in bytes."""

    number: int
    since_start_ns: int  # from the start of the runtime to the beginning of the cycle
    cpu_fraction: float  # share of all CPU time since the start that collection took, idle marking left out
    first_pause_ns: int  # wall time: request of the stop, stop, until marking may begin
    mark_ns: int
    last_pause_ns: int
    first_pause_cpu_ns: int  # that pause times the Ps it stopped
    assist_cpu_ns: int
    dedicated_cpu_ns: int  # and fractional workers
    idle_cpu_ns: int
    last_pause_cpu_ns: int
    heap_start: int
    heap_end: int
    heap_marked: int
    goal: int
    stack_scan: int
    globals_scan: int
    procs: int
    forced: bool = False
    looked_for_leaks: bool = False


def format_cycle(cycle: Cycle) -> str:
    """The line, without its newline."""
    clock = "+".join(format_ms(ns) for ns in (cycle.first_pause_ns, cycle.mark_ns, cycle.last_pause_ns))
    marking = "/".join(format_ms(ns) for ns in (cycle.assist_cpu_ns, cycle.dedicated_cpu_ns, cycle.idle_cpu_ns))
    cpu = f"{format_ms(cycle.first_pause_cpu_ns)}+{marking}+{format_ms(cycle.last_pause_cpu_ns)}"
    heap = "->".join(str(size >> 20) for size in (cycle.heap_start, cycle.heap_end, cycle.heap_marked))
    return (
        f"gc {cycle.number} @{format_seconds(cycle.since_start_ns)}s {int(cycle.cpu_fraction * 100)}%"
        f"{' (checking for goroutine leaks)' if cycle.looked_for_leaks else ''}: "
        f"{clock} ms clock, {cpu} ms cpu, {heap} MB, {cycle.goal >> 20} MB goal, "
        f"{cycle.stack_scan >> 20} MB stacks, {cycle.globals_scan >> 20} MB globals, {cycle.procs} P"
        f"{' (forced)' if cycle.forced else ''}"
    )


def format_seconds(ns: int) -> str:
    """``ns`` in seconds with three decimals, cut off."""
    return _decimal(ns // 1_000_000, 3)


def format_ms(ns: int) -> str:
    """``ns`` in milliseconds: whole ones from 10 ms, two significant digits below, ``0`` below 1 µs; cut off."""
    if ns >= 10_000_000:
        return str(ns // 1_000_000)
    value, places = ns // 1000, 3
    if value == 0:
        return "0"
    while value >= 100:
        value, places = value // 10, places - 1
    return _decimal(value, places)


def _decimal(value: int, places: int) -> str:
    if places == 0:
        return str(value)
    digits = str(value).rjust(places + 1, "0")
    return f"{digits[:-places]}.{digits[-places:]}"
