"""Settings of the collector that change while it runs, and the limit on what it takes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import gomp
from gomp.core.shm.atomics import store64
from gomp.core.shm.commit import ENDLESS
from gomp.core.shm.records import MHEAP_XBUDGET, PACER, pacer_dtype, view

MIB = 1 << 20
DATA = Path(__file__).parent / "data" / "semantics" / "debug.json"
PROBES = {probe["probe"]: probe["observed"] for probe in json.loads(DATA.read_text())["probes"]}


@gomp.struct
class Block:
    next: Block
    a: int
    b: int
    c: int
    d: int
    e: int
    f: int
    g: int


@gomp.struct
class Crumb:
    """As dear to mark as a block, and four times as cheap to sweep."""

    next: Crumb
    a: int


LIVE = gomp.Global("debug.live", gomp.Array[Crumb])


@gomp.compiled
def keep(n: int) -> int:
    table = gomp.array(Crumb, n)
    for i in range(n):
        table[i] = gomp.new(Crumb)
    LIVE.set(table)
    return n


@gomp.compiled
def litter(objects: int) -> int:
    kept = 0
    for i in range(objects):
        block = gomp.new(Block)
        block.a = i
        kept += block.a
    return kept


def set_to(percent: int) -> int:
    return gomp.debug.set_gc_percent(percent)


@pytest.fixture
def rt():
    with gomp.Runtime(procs=2, gogc=100, max_heap="1GiB") as runtime:
        yield runtime


def pacer():
    return view(pacer_dtype, PACER)[0]


def test_gogc_changes_at_once_and_returns_what_it_was(rt):
    rt.run(keep, 200_000)
    rt.gc()
    assert gomp.debug.set_gc_percent(50) == 100
    small = rt.stats().next_gc
    assert gomp.debug.set_gc_percent(400) == 50
    assert rt.stats().next_gc > 2.5 * small
    assert rt.run(set_to, -5) == 400
    assert gomp.debug.set_gc_percent(100) == -1


def test_what_the_calls_return_and_which_of_them_are_cycles(rt):
    """Probes api_returns and forced_counts."""
    debug = gomp.debug
    assert {
        "SetGCPercent_initial_prev": debug.set_gc_percent(50),
        "SetGCPercent_prev_50": debug.set_gc_percent(0),
        "SetGCPercent_prev_0": debug.set_gc_percent(-5),
        "SetGCPercent_prev_after_minus5": debug.set_gc_percent(100),
        "SetMemoryLimit_query": debug.set_memory_limit(-1),
        "SetMemoryLimit_prev": debug.set_memory_limit(1 << 30),
        "SetMemoryLimit_query2": debug.set_memory_limit(-1),
    } == PROBES["api_returns"]

    def cycles_of(call):
        before = rt.stats()
        call()
        after = rt.stats()
        return [after.num_gc - before.num_gc, after.num_forced_gc - before.num_forced_gc]

    assert {
        "GC": cycles_of(gomp.gc),
        "FreeOSMemory": cycles_of(debug.free_os_memory),
        "SetGCPercent": cycles_of(lambda: debug.set_gc_percent(50)),
    } == PROBES["forced_counts"]


def test_without_gogc_and_limit_nothing_is_collected(rt):
    gomp.debug.set_gc_percent(-1)
    before = rt.stats().num_gc
    rt.run(litter, 2_000_000)
    assert rt.stats().num_gc == before


def test_the_limit_alone_starts_cycles_when_it_is_near(rt):
    rt.run(keep, 100_000)
    gomp.debug.set_gc_percent(-1)
    assert gomp.debug.set_memory_limit(-1) == (1 << 63) - 1
    assert gomp.debug.set_memory_limit(64 * MIB) == (1 << 63) - 1
    before = rt.stats()
    rt.run(litter, 100_000)
    assert rt.stats().num_gc == before.num_gc
    rt.run(litter, 5_000_000)
    after = rt.stats()
    assert after.num_gc > before.num_gc
    assert after.heap_inuse + after.heap_free < 64 * MIB


def test_a_wrong_percentage_is_refused(rt):
    for percent in ("100", 1.5, 1 << 40, True):
        with pytest.raises(gomp.ConfigError, match="give an integer up to 2147483647"):
            gomp.debug.set_gc_percent(percent)


def test_wrong_settings_are_refused_in_words_of_python_s(rt):
    with pytest.raises(gomp.ConfigError, match="GOMAXPROCS=True: give an integer up to 128"):
        gomp.debug.set_max_procs(True)
    with pytest.raises(gomp.ConfigError, match="memory limit True: give bytes"):
        gomp.debug.set_memory_limit(True)
    assert gomp.debug.free_os_memory(now=1) >= 0


def test_settings_change_a_thousand_times_under_load(rt):
    goroutine = rt.go(litter, 60_000_000)
    for n in range(1000):
        gomp.debug.set_gc_percent((50, 100, 400, 200)[n % 4])
        if n % 10 == 0:
            gomp.debug.set_memory_limit((64 + n % 7) * MIB)
    goroutine.wait(60)
    assert "verified" in rt.verify()


@pytest.mark.alone
def test_a_heap_that_cannot_fit_leaves_programs_half_of_the_time(rt):
    """Live data near the limit: without the limiter, cycles and assists would take everything."""
    gomp.debug.set_gc_percent(-1)
    rt.run(keep, 2_000_000)
    gomp.debug.set_memory_limit(rt.stats().heap_live + 2 * MIB)
    before, began = rt.stats(), time.monotonic()
    for program in [
        rt.go(litter_for, 6.0) for _ in range(2)
    ]:  # beside an idle P that marks, one alone would not be limited
        assert program.wait(60) > 100_000
    took = time.monotonic() - began
    after = rt.stats()
    assert after.limiter.times > 0
    assert 0.2 < (after.gc_cpu_s - before.gc_cpu_s) / (2 * took) < 0.65  # of two processors, which others may want too


def litter_for(seconds: float) -> int:
    until, n = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        litter(1000)
        n += 1000
    return n


def test_where_a_walk_through_the_heap_has_no_room_a_collection_is_to_make_some():
    with gomp.Runtime(procs=1, max_heap="128MiB") as rt:
        store64(MHEAP_XBUDGET, 0)
        with pytest.raises(
            gomp.GompError, match="there is no room for the 65,536 bytes that looking through the heap takes"
        ):
            rt.verify(3)
        assert rt.stats().num_forced_gc == 1
        store64(MHEAP_XBUDGET, ENDLESS)
        rt.verify(3)
