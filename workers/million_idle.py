"""A million goroutines that wait: what each costs, how long they take to begin and to end, and what they are to the collector.

Each waits to receive at one channel, which is closed in the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import gomp
from gomp.core.heap.gs import num_goroutines
from gomp.core.sched.runq import num_queued
from gomp.runtime import current, memstats

_PATIENCE_S, _NAP_S = 60.0, 0.01


@gomp.frame
class Idle(gomp.Frame[None]):
    gate: gomp.Chan[int]
    has_waited: bool

    def step(f) -> gomp.Action:
        if f.has_waited:
            return f.ret()
        f.has_waited = True
        return f.recv(f.gate)


@gomp.compiled
def start(gate: gomp.Chan[int], n: int) -> None:
    for _ in range(n):
        gomp.go(Idle, gate=gate)


class Costs(NamedTuple):
    """Of n goroutines: seconds until all waited and, in the end, until none was left; of each, bytes; of a collection, milliseconds, and microseconds
    for which the world stood still."""

    began_s: float
    ended_s: float
    bytes_each: float
    gc_ms: float
    pause_us: float


def measure(n: int, collections: int) -> Costs:
    gate: gomp.Chan[int] = gomp.Chan[int]()
    start(gate, 1)  # from here on all is compiled
    before, began = memstats.read(), time.perf_counter()
    start(gate, n - 1)
    _wait_for(lambda: num_queued() == 0)
    began_s = time.perf_counter() - began
    after = memstats.read()
    each = (after.sys - before.sys) / n
    began, cycles = time.perf_counter(), after.num_gc
    for _ in range(collections):
        gomp.gc()
    collected = memstats.read()
    gc_s = (time.perf_counter() - began) / max(collections, 1)
    pause_us = (collected.pause_total_ns - after.pause_total_ns) / max(collected.num_gc - cycles, 1) / 1e3
    began = time.perf_counter()
    gate.close()
    _wait_for(lambda: num_goroutines() == 0)
    return Costs(began_s, time.perf_counter() - began, each, 1e3 * gc_s, pause_us)


def main(n: int = 1_000_000, collections: int = 5) -> None:
    """Prints two lines; ``n`` goroutines, and so many collections while they wait."""
    costs = measure(n, collections)
    print(
        f"{n:,} goroutines began in {costs.began_s:.2f} s, {1e9 * costs.began_s / n:.0f} ns and {costs.bytes_each:,.0f} bytes each, "
        f"and ended in {costs.ended_s:.2f} s"
    )
    print(f"a collection took {costs.gc_ms:.0f} ms and stopped the world for {costs.pause_us:.0f} us")


def _wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not is_so():
        if time.monotonic() > deadline:
            left = f"{num_goroutines():,} goroutines, {num_queued():,} of them ready"
            raise TimeoutError(f"after {_PATIENCE_S:.0f} s there are {left}")
        current.peer().wait_until(is_so, _NAP_S)
