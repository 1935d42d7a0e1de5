"""How long others stand still when a P is killed: ``python -m benchmarks.deaths``.

A table of small objects, half a GiB live in a heap of one, is churned by two Ps. One of them looks at the clock every few hundred objects; the
other is killed again and again, at random times. A stall is the longest time between two looks that reaches into the 50 ms after a kill;
beside it stands the longest in a second without one, as assists, marking and other processes hold a P up too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import time
from typing import Any

import gomp
from gomp.core.shm import layout
from gomp.core.shm.records import p_dtype, view
from workers.xorshift import advance, draw, seed

LIVE = 5_000_000  # objects of 64 bytes, and the table: half a GiB
PER_LOOK = 300
WINDOW_S = 0.05


@gomp.struct
class Entry:
    next: "Entry"
    a: int
    b: int
    c: int
    d: int
    e: int
    f: int
    g: int


TABLE = gomp.Global("deaths.table", gomp.Array[Entry])


@gomp.compiled
def fill(table: gomp.Array[Entry]) -> int:
    for i in range(len(table)):
        table[i] = gomp.new(Entry)
    return len(table)


@gomp.compiled
def churn(table: gomp.Array[Entry], objects: int, state: int) -> int:
    for _ in range(objects):
        state = advance(state)
        table[draw(state, len(table))] = gomp.new(Entry)
    return state


def make_table() -> None:
    table = gomp.array(Entry, LIVE)
    fill(table)
    TABLE.set(table)


def watch(seconds: float) -> list[tuple[float, float]]:
    """Churn, and say when more than a millisecond went by between two looks at the clock, and how much."""
    table = TABLE.get()
    state = churn(table, PER_LOOK, seed(1))  # compiled before it is timed
    gaps = []
    last = time.monotonic()
    end = last + seconds
    while last < end:
        state = churn(table, PER_LOOK, state)
        now = time.monotonic()
        if now - last > 0.001:
            gaps.append((now, now - last))
        last = now
    return gaps


def litter() -> None:
    table, state = TABLE.get(), seed(2)
    while True:
        state = churn(table, 100_000, state)


def p_record(idx: int) -> Any:
    return view(p_dtype, layout.p_addr(idx))[0]


def measure(kills: int, run_seed: int) -> dict[str, float]:
    """Kill one P so often; stalls of the other in milliseconds."""
    rng = random.Random(run_seed)
    with gomp.Runtime(procs=2, max_heap="4GiB") as rt:
        rt.run(make_table)
        rt.gc()
        seconds = 2.5 * kills
        watcher = rt.go(watch, seconds + 5)
        while all(p_record(i).xidle for i in range(2)):
            time.sleep(0.001)
        victim = next(i for i in range(2) if p_record(i).xidle)
        strikes, repairs = [], []
        for _ in range(kills):
            goroutine = rt.go(litter)
            time.sleep(1.0 + rng.random())
            strikes.append(time.monotonic())
            os.kill(int(p_record(victim).xpid), signal.SIGKILL)
            try:
                goroutine.wait(10)
            except gomp.WorkerDied:
                repairs.append(1000 * rt.stats().repairs.last_s)
        gaps = watcher.wait(seconds + 60)
        heap = rt.stats().heap_sys
    stalls = [longest(gaps, t, WINDOW_S) for t in strikes]
    quiet = [longest(gaps, t - 1.0, 0.95) for t in strikes]
    return {
        "kills": kills,
        "heap_mib": heap >> 20,
        "stall_ms_median": statistics.median(stalls),
        "stall_ms_max": max(stalls),
        "repair_ms_median": statistics.median(repairs),
        "repair_ms_max": max(repairs),
        "longest_gap_ms_of_the_second_before": statistics.median(quiet),
    }


def longest(gaps: list[tuple[float, float]], begin: float, length: float) -> float:
    """Milliseconds of the longest gap that reaches into ``length`` seconds from ``begin`` on. A gap is its end and how long it was."""
    return 1000 * max((gap for end, gap in gaps if end >= begin and end - gap <= begin + length), default=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description="stalls of the survivors when a P is killed")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.kills, arguments.seed), indent=1))


if __name__ == "__main__":
    from benchmarks import deaths  # what runs on the Ps is found by that name

    deaths.main()
