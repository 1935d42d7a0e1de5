"""MemStats computed from records that the test has filled in."""

import json
import time

import pytest

from gomp.core.heap.sizeclass import SIZES
from gomp.core.shm import layout, records
from gomp.runtime import memstats


def p_record(idx):
    return records.view(records.p_dtype, layout.PS_BASE + idx * layout.P_STRIDE)[0]


@pytest.fixture
def heap(mapped):
    """Two Ps and the coordinator, each of which has allocated and freed something."""
    for idx in (0, 1, layout.COORDINATOR_P):
        p = p_record(idx)
        p.idx, p.xpid = idx, 1000 + idx
        p.small_alloc[2], p.small_free[2] = 100, 40
        p.small_alloc[67], p.small_free[67] = 3, 1
        p.large_alloc, p.large_alloc_count, p.large_free, p.large_free_count = 3 << 20, 3, 1 << 20, 1
        p.tiny_alloc_count, p.mark_ns, p.assist_ns, p.refills, p.programs = 7, 2_000_000_000, 500_000_000, 5, 1
    h = records.view(records.mheap_dtype, records.MHEAP)[0]
    h.xheap_inuse, h.xheap_committed, h.xheap_released = 9 << 20, 11 << 20, 53 << 20
    h.metadata_pages, h.pages_in_use, h.xmetadata_bytes, h.xwbuf_bytes = 8192, 640, 4 << 20, 2 << 20
    h.xtable_bytes = 1 << 20
    records.view(records.stackpool_dtype, records.STACKPOOL)[0].xspan_bytes = 1 << 20
    records.view(records.runtime_dtype, records.RUNTIME)[0].committed_ps = 3
    pacer = records.view(records.pacer_dtype, records.PACER)[0]
    pacer.gc_percent_goal, pacer.xheap_live, pacer.heap_marked, pacer.gc_percent, pacer.memory_limit = (
        4 << 20,
        3 << 20,
        2 << 20,
        100,
        1 << 30,
    )
    return mapped


def test_object_counts_follow_the_formulas_of_go(heap):
    stats = memstats.read()
    assert stats.total_alloc == 3 * (100 * 16 + 3 * 32768 + (3 << 20))
    assert stats.alloc == stats.heap_alloc == 3 * (60 * 16 + 2 * 32768 + (2 << 20))
    assert stats.mallocs == 3 * (100 + 3 + 3 + 7)
    assert stats.frees == 3 * (40 + 1 + 1 + 7)
    assert stats.heap_objects == 3 * (60 + 2 + 2)
    assert stats.tiny_allocs == 21


def test_by_size_has_the_61_rows_of_go(heap):
    rows = memstats.read().by_size
    assert [row.size for row in rows] == list(SIZES[:61])
    assert (rows[2].mallocs, rows[2].frees) == (300, 120)
    assert sum(row.mallocs for row in rows) == 300


def test_memory_adds_up(heap):
    stats = memstats.read()
    assert stats.heap_sys == stats.heap_inuse + stats.heap_idle == 63 << 20
    assert stats.stack_inuse == stats.stack_sys == 1 << 20
    assert stats.heap_idle == stats.heap_free + stats.heap_released
    parts = ("heap_sys", "stack_sys", "mspan_sys", "mcache_sys", "buck_hash_sys", "gc_sys", "other_sys")
    assert stats.sys == sum(getattr(stats, part) for part in parts)
    assert stats.heap_sys + stats.stack_sys + stats.mspan_sys + stats.gc_sys == (64 << 20) + (4 << 20) + (2 << 20)
    assert stats.mcache_sys + stats.buck_hash_sys + stats.other_sys == 1 << 20
    assert stats.sys - stats.heap_released == (11 << 20) + (4 << 20) + (2 << 20) + (
        1 << 20
    )  # what the memory limit counts
    assert stats.mspan_inuse == 640 * 256 <= stats.mspan_sys == 8192 * 256
    assert (stats.next_gc, stats.heap_live, stats.heap_marked) == (4 << 20, 3 << 20, 2 << 20)
    assert (stats.gogc, stats.memory_limit, stats.procs) == (100, 1 << 30, 2)


def test_each_p_is_listed_and_the_coordinator_comes_last(heap):
    stats = memstats.read()
    assert [(p.idx, p.pid) for p in stats.ps] == [
        (0, 1000),
        (1, 1001),
        (layout.COORDINATOR_P, 1000 + layout.COORDINATOR_P),
    ]
    assert stats.mark_cpu_s_per_p == (2.0, 2.0)
    assert sum(p.assist_cpu_s for p in stats.ps) == 1.5
    assert sum(p.refills for p in stats.ps) == 15


def test_pauses_come_from_the_ring(heap):
    gc = records.view(records.gcstats_dtype, records.GCSTATS)[0]
    assert memstats.read().pause_quantile(0.5) == 0
    for n in range(600):
        gc.stop_ns[n % 512] = (n + 1) * 1000
    gc.stops, gc.num_forced, gc.num_automatic, gc.pause_max_ns, gc.pause_total_ns = 600, 4, 296, 600_000, 180_300_000
    stats = memstats.read()
    assert stats.stop_ns[(stats.stops - 1) % 512] == 600_000  # the latest
    assert stats.pause_quantile(0) == pytest.approx(89e-6)  # the oldest 88 have left the ring
    assert stats.pause_p50_s == pytest.approx(344e-6)
    assert stats.pause_p99_s == pytest.approx(595e-6)
    assert stats.pause_max_s == pytest.approx(600e-6)
    assert (stats.num_gc, stats.num_forced_gc, stats.pause_total_ns) == (300, 4, 180_300_000)


def test_the_share_of_the_collector_is_of_all_ps_since_the_start(heap):
    runtime = records.view(records.runtime_dtype, records.RUNTIME)[0]
    gc = records.view(records.gcstats_dtype, records.GCSTATS)[0]
    runtime.start_ns = runtime.resized_ns = time.monotonic_ns() - 10_000_000_000
    gc.assist_ns, gc.fractional_ns, gc.idle_ns, gc.pause_cpu_ns = 10**9, 2 * 10**9, 5 * 10**9, 10**9
    stats = memstats.read()
    assert (stats.gc_cpu_s, stats.mark_cpu_s, stats.assist_cpu_s) == (9.0, 8.0, 1.0)
    assert 0.15 < stats.gc_cpu_fraction <= 0.2
    assert stats.uptime_s >= 10
    runtime.cpu_before_ns = 20_000_000_000  # and before that there were other Ps, for twenty seconds of CPU time in all
    assert 0.075 < memstats.read().gc_cpu_fraction <= 0.1


def test_a_record_is_not_changed_by_what_comes_after(heap):
    stats = memstats.read()
    before = stats.pause_ns, stats.mallocs
    records.view(records.gcstats_dtype, records.GCSTATS)[0].pause_ns[0] = 99
    assert (stats.pause_ns, stats.mallocs) == before


def test_a_record_survives_json(heap):
    stats = memstats.read()
    assert memstats.MemStats.from_json(json.loads(json.dumps(stats.to_json()))) == stats
