"""What an object costs to mark, a reference to store, and what programs keep of their speed while the heap is marked."""

from __future__ import annotations

import time

import gomp
from gomp.core.shm.records import GC_OFF, RUNTIME, runtime_dtype, view
from workers.churn import Entry, churn
from workers.xorshift import seed

LIVE = 1 << 20
OPS = 6_000_000
COLLECTIONS = 5
RING = 1024
STORES = 50_000_000
SLICE = 10_000  # operations between looks at the phase
_PAUSE_S = 0.01


@gomp.compiled
def store(n: int) -> None:
    kept = gomp.array(Entry, RING)
    values = gomp.array(Entry, 2)
    values[0], values[1] = gomp.new(Entry), gomp.new(Entry)
    for i in range(n):
        kept[i & (RING - 1)] = values[i & 1]


def ns_per_store(n: int) -> float:
    """On this P, warm."""
    store(1000)
    began = time.perf_counter_ns()
    store(n)
    return (time.perf_counter_ns() - began) / n


def collect_for(seconds: float) -> None:
    """One collection after another."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        gomp.gc()


def figures(rt: gomp.Runtime) -> dict[str, float]:
    """As benchmarks/go/marking.go prints them, on a runtime with two Ps."""
    rt.run("churn", live=LIVE, ops=OPS)
    rt.gc()
    before = rt.stats()
    for _ in range(COLLECTIONS):
        rt.gc()
    after = rt.stats()
    cpu = (after.mark_cpu_s - before.mark_cpu_s) / COLLECTIONS
    alone = rt.run(ns_per_store, STORES)
    collecting = rt.go(collect_for, 3 * alone * STORES / 1e9 + 1)
    time.sleep(_PAUSE_S)
    beside = rt.run(ns_per_store, STORES)
    collecting.wait()
    return {
        "mark_ns_per_object": cpu * 1e9 / after.heap_objects,
        "mark_ms_per_mib": cpu * 1e3 / (after.heap_marked / (1 << 20)),
        "store_ns": alone,
        "store_collecting_ns": beside,
    }


def churn_by_phase(first: int, end: int, g: int, seconds: float) -> tuple[float, float]:
    """Operations a second in the slots [first, end) while nothing is marked, and while the heap is."""
    runtime = view(runtime_dtype, RUNTIME)[0]
    state, done, took = seed(g), [0, 0], [0.0, 0.0]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        marking, cycle, began = int(runtime.xgcphase != GC_OFF), int(runtime.xcycles), time.perf_counter()
        state = churn(first, end, SLICE, state)
        elapsed = time.perf_counter() - began
        if int(runtime.xgcphase != GC_OFF) == marking and runtime.xcycles == cycle:
            done[marking] += SLICE
            took[marking] += elapsed
    return done[0] / took[0], done[1] / took[1]


def kept_while_marking(rt: gomp.Runtime, seconds: float = 5.0) -> float:
    """Share of their speed that two goroutines of churn, on two Ps, keep while a cycle is on."""
    rt.run("churn", live=LIVE, ops=OPS)
    half = LIVE // 2
    goroutines = [rt.go(churn_by_phase, g * half, (g + 1) * half, g + 1, seconds) for g in range(2)]
    speeds = [goroutine.wait() for goroutine in goroutines]
    return sum(marking for _, marking in speeds) / sum(alone for alone, _ in speeds)
