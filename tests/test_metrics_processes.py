"""The metrics of a runtime that runs: what kernels count where it happens, and what holds in every reading meanwhile."""

import threading
import time

import pytest

import gomp
from gomp.metrics import Float64Histogram
from gomp.runtime.metrics.description import Summary

PROCS = 2
FIGURES = [metric for metric in gomp.metrics.all() if metric.kind in ("counter", "histogram", "summary")]


@gomp.frame
class Turns:
    """Takes a lock so many times, and lets others run while it has it."""

    m: gomp.Mutex
    group: gomp.WaitGroup
    n: int
    phase: int

    def step(f) -> gomp.Action:
        if f.phase == 0:
            f.phase = 1
            return f.lock(f.m)
        if f.phase == 1:
            f.phase = 2
            return f.yield_()
        f.m.unlock()
        f.phase = 0
        f.n -= 1
        if f.n > 0:
            return f.yield_()
        f.group.done()
        return f.ret()


def test_what_goroutines_wait_for_a_p_and_a_lock_is_measured(rt):
    m, group = gomp.Mutex(), gomp.WaitGroup()
    group.add(8)
    before = gomp.metrics.read()
    began = time.monotonic()
    for _ in range(8):
        gomp.go(Turns, m=m, group=group, n=50, phase=0)
    group.wait()
    took = time.monotonic() - began
    now = gomp.metrics.read()
    latencies, old = now["/sched/latencies:seconds"], before["/sched/latencies:seconds"]
    runs = 8 * (
        1 + 50 * 3
    )  # each begins, has a turn twice for each time it has the lock, and waits for that at most once
    assert 0.5 * runs / 8 < latencies.count - old.count < 2 * runs / 8
    assert 0 < latencies.sum - old.sum < took * 8
    waited = now["/sync/mutex/wait/total:seconds"] - before["/sync/mutex/wait/total:seconds"]
    assert 0 < waited < took * 8
    assert now["/sched/goroutines-created:goroutines"] - before["/sched/goroutines-created:goroutines"] >= 8


def test_pauses_are_counted_by_who_wanted_them(rt):
    before = gomp.metrics.read()
    rt.gc()
    gomp.mem_stats()
    now = gomp.metrics.read()
    new = {
        name: now[name].count - before[name].count
        for name in now
        if name.startswith("/sched/pauses/") and name.endswith(":seconds")
    }
    assert new["/sched/pauses/total/gc:seconds"] == new["/sched/pauses/stopping/gc:seconds"] >= 2
    assert new["/sched/pauses/total/other:seconds"] == new["/sched/pauses/stopping/other:seconds"] >= 1


IDLE, ALL = "/cpu/classes/idle:cpu-seconds", "/cpu/classes/total:cpu-seconds"


def test_the_cpu_classes_are_of_all_the_time_of_all_ps(rt):
    rt.gc()
    before = gomp.metrics.read(IDLE)[IDLE]
    time.sleep(0.3)
    rt.gc()
    read = gomp.metrics.read(IDLE, ALL, "gomp_uptime_seconds")
    assert PROCS * read["gomp_uptime_seconds"] - 0.5 < read[ALL] <= PROCS * read["gomp_uptime_seconds"]
    assert 0.3 < read[IDLE] - before < read[ALL], "both Ps have waited"


def test_exact_statistics_agree_with_the_metrics_of_a_runtime_at_rest(rt):
    rt.gc()
    exact, now = gomp.mem_stats(), gomp.metrics.read()
    assert exact.heap_objects == now["/gc/heap/objects:objects"]
    assert exact.total_alloc == now["/gc/heap/allocs:bytes"]
    assert (exact.enable_gc, exact.debug_gc, exact.lookups) == (True, False, 0)
    stats = gomp.gc_stats()
    assert (stats.num_gc, stats.pause_total) == (exact.num_gc, exact.pause_total_ns)
    assert stats.pause[0] == exact.pause_ns[(exact.num_gc + 255) % 256]
    assert stats.pause_quantiles[0] <= stats.pause_quantiles[2] <= stats.pause_quantiles[4]


def totals(read):
    """All that may only grow, as numbers by name."""
    for name, value in read.items():
        if isinstance(value, Float64Histogram):
            yield from ((f"{name}[{i}]", count) for i, count in enumerate(value.counts))
            yield f"{name} sum", value.sum
        elif isinstance(value, Summary):
            yield f"{name} count", value.count
            yield f"{name} sum", value.sum
        elif isinstance(value, dict):
            yield from ((f"{name}{{{label}}}", number) for label, number in value.items())
        else:
            yield name, value


def is_over(goroutine):
    try:
        goroutine.wait(0.001)
    except TimeoutError:
        return False
    return True


def test_totals_only_grow_and_classes_add_up_while_programs_run(rt):
    running = rt.go("churn", live=10_000, ops=3_000_000)
    before, readings, names = {}, 0, [metric.name for metric in FIGURES]
    while not is_over(running):
        now = dict(totals(gomp.metrics.read(*names)))
        assert {name: (before[name], value) for name, value in now.items() if value < before.get(name, 0)} == {}
        before, readings = now, readings + 1
        read = gomp.metrics.read()
        memory = {name: value for name, value in read.items() if name.startswith("/memory/classes/")}
        assert memory.pop("/memory/classes/total:bytes") == sum(memory.values())
        assert min(memory.values()) >= 0
        assert (
            read["/gc/heap/allocs:bytes"] - read["/gc/heap/frees:bytes"] == memory["/memory/classes/heap/objects:bytes"]
        )
        cpu = {name: value for name, value in read.items() if name.startswith("/cpu/classes/")}
        parts = sum(value for name, value in cpu.items() if "total" not in name)
        assert cpu["/cpu/classes/total:cpu-seconds"] == pytest.approx(parts, abs=1e-9)
        assert read["/gc/heap/allocs-by-size:bytes"].count == read["/gc/heap/allocs:objects"]
        allocated = read["/gc/heap/allocs:bytes"] - read["/gc/heap/frees:bytes"]
        assert allocated == read["/memory/classes/heap/objects:bytes"]
    assert readings > 5
    assert before["/gc/cycles/total:gc-cycles"] > 1


def test_a_process_that_runs_programs_gets_no_thread_by_reading(rt, monkeypatch):
    """This one does, too."""
    monkeypatch.setattr("gomp.runtime.processes.PERIOD_S", 0.0)
    gomp.metrics._sources.cache_clear()
    before = threading.active_count()
    for _ in range(3):
        assert gomp.metrics.read("gomp_process_private_bytes")["gomp_process_private_bytes"]
        assert threading.active_count() == before
