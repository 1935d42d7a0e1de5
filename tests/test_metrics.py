"""The table of metrics: Go's names, kinds and buckets, and what adds up in every reading."""

import json
import math
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gomp
from gomp.core.gc.cpuclasses import account_stw
from gomp.core.heap.sizeclass import SIZES
from gomp.core.sched import timehist
from gomp.core.shm import layout, records
from gomp.pressure import Pressure
from gomp.runtime import gcstats
from gomp.runtime.metrics.client import CLIENT_METRICS
from gomp.runtime.metrics.golang import ABSENT, GO_METRICS
from gomp.runtime.metrics.histograms import SIZE_BUCKETS, TIME_BUCKETS, Float64Histogram, coarse_bounds
from gomp.runtime.metrics.own import OWN_METRICS
from gomp.runtime.metrics.snapshot import Snapshot, Sources
from gomp.runtime.metrics.table import BY_NAME, TABLE
from gomp.runtime.residency import CgroupMemory, Residency, completed

DATA = Path(__file__).parent / "data/metrics"
OF_GO = {m["name"]: m for m in json.loads((DATA / "metrics-all.json").read_text())["metrics"]}
OF_CLIENT = {m["name"]: m for m in json.loads((DATA / "prometheus-go-names.json").read_text())}
OF_OLDER_CLIENTS = {"go_memstats_lookups_total"}
BUCKETS = {
    name: tuple(float(b) for b in bounds)
    for name, bounds in json.loads((DATA / "histogram-buckets.json").read_text()).items()
}


def read_all(s=None):
    s = s or Snapshot(Sources(), -1, -1)
    return {metric.name: metric.read(s) for metric in GO_METRICS}


def p_record(idx):
    return records.view(records.p_dtype, layout.p_addr(idx))[0]


class AskedOf:
    """Stands for who reads what the system says of processes: which it was asked of."""

    def read(self, coordinator, others):
        return [coordinator, *others]


# --- the table --------------------------------------------------------------------------------------------------------


def test_each_of_gos_metrics_is_there_or_it_is_said_why_not():
    missing = OF_GO.keys() - {metric.name for metric in GO_METRICS}
    assert {name for name in missing if not any(fnmatch(name, pattern) for pattern in ABSENT)} == set()
    assert all(any(fnmatch(name, pattern) for name in missing) for pattern in ABSENT)


@pytest.mark.parametrize("metric", GO_METRICS, ids=lambda metric: metric.name)
def test_it_has_gos_kind_and_buckets(metric, mapped):
    of_go = OF_GO[metric.name]
    value = metric.read(Snapshot(Sources(), -1, -1))
    assert (metric.kind != "gauge") == of_go["cumulative"]
    kind = {int: "uint64", float: "float64", Float64Histogram: "float64-histogram", type(None): "uint64"}[type(value)]
    assert kind == of_go["kind"]
    if kind == "float64-histogram":
        assert value.buckets == BUCKETS[of_go["buckets"]]
        assert len(value.counts) == len(value.buckets) - 1


def test_go_lists_them_in_the_same_order():
    assert [metric.name for metric in GO_METRICS] == sorted(metric.name for metric in GO_METRICS)


def test_prometheus_has_gos_names_types_and_buckets_of_them():
    for metric in TABLE:
        if metric.prometheus_name.startswith(("go_", "process_")) and metric.name not in OF_OLDER_CLIENTS:
            of_client = OF_CLIENT[metric.prometheus_name]
            assert of_client["type"] == metric.kind, metric.prometheus_name
            if metric.kind == "histogram":
                inclusive = [math.nextafter(bound, -math.inf) for bound in coarse_bounds(metric.unit)[:-1]]
                assert inclusive == of_client["le"], metric.prometheus_name


def test_what_gos_client_gives_by_default_is_given_by_default():
    ours = {metric.prometheus_name for metric in TABLE if metric.by_default}
    assert {name for name, m in OF_CLIENT.items() if m["in_default_set"]} - ours == set()
    absent = {name for name in OF_CLIENT if name not in {metric.prometheus_name for metric in TABLE}}
    assert absent == {"go_cgo_go_to_c_calls_calls_total"}


def test_every_metric_has_one_description():
    names = [metric.prometheus_name for metric in TABLE]
    assert len(names) == len(set(names)) == len(BY_NAME)
    assert all(metric.help.endswith(".") for metric in TABLE)
    for metric in TABLE:
        assert (metric.kind == "counter") == metric.prometheus_name.endswith("_total"), metric.name


# --- histograms -------------------------------------------------------------------------------------------------------


def test_counts_are_told_by_upper_bounds():
    histogram = Float64Histogram((1, 2, 3, 4), (-math.inf, 0.0, 1.0, 2.0, math.inf), 12.5)
    assert histogram.count == 10
    below_one = math.nextafter(1.0, 0.0)
    assert histogram.cumulative((1.0, math.inf)) == [(below_one, 3), (math.inf, 10)]


def test_stops_and_latencies_are_read_with_their_sums(mapped):
    for ns in (100, 300, 10**6):
        timehist.add(records.STOPPED_GC, ns)
    timehist.add(layout.p_addr(0) + records.P_LATENCIES, 64)
    timehist.add(layout.p_addr(1) + records.P_LATENCIES, 65)
    read = read_all()
    pauses = read["/sched/pauses/total/gc:seconds"]
    assert (pauses.count, pauses.sum) == (3, 0.0010004)
    assert read["/gc/pauses:seconds"] == pauses
    assert read["/sched/latencies:seconds"].counts[2] == 2
    assert read["/sched/latencies:seconds"].sum == 129e-9
    assert read["/sched/pauses/total/other:seconds"].count == 0


def test_large_objects_are_in_the_last_bucket(mapped):
    p = p_record(0)
    p.small_alloc[1], p.small_alloc[67], p.large_alloc_count, p.large_alloc = 5, 3, 2, 1 << 20
    by_size = read_all()["/gc/heap/allocs-by-size:bytes"]
    assert (by_size.counts[0], by_size.counts[66], by_size.counts[67], by_size.count) == (5, 3, 2, 10)
    assert by_size.sum == 5 * 8 + 3 * 32768 + (1 << 20) == read_all()["/gc/heap/allocs:bytes"]
    assert SIZE_BUCKETS[:3] == (1.0, 9.0, 17.0)
    assert TIME_BUCKETS[1] == 0.0


# --- what adds up -----------------------------------------------------------------------------------------------------

COUNTS = st.integers(0, 1 << 40)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.lists(st.integers(0, 1 << 20), min_size=6, max_size=6))
def test_classes_add_up_to_their_totals(mapped, inuse, committed, released, stacks, metadata, tables, counts):
    heap = records.view(records.mheap_dtype, records.MHEAP)[0]
    heap.xheap_inuse, heap.xheap_committed, heap.xheap_released = inuse, max(committed, inuse), released
    heap.xmetadata_bytes, heap.xwbuf_bytes, heap.xtable_bytes = metadata, metadata // 2, tables
    records.view(records.stackpool_dtype, records.STACKPOOL)[0].xspan_bytes = min(stacks, inuse)
    p = p_record(0)
    p.small_alloc[2], p.small_free[2] = counts[0] + counts[1], counts[1]
    p.large_alloc, p.large_free, p.large_alloc_count, p.large_free_count = counts[2] + 5, counts[2], 2, 1
    p.tiny_alloc_count = counts[3]
    gc = records.view(records.gcstats_dtype, records.GCSTATS)[0]
    gc.pause_cpu_ns, gc.dedicated_ns, gc.assist_ns, gc.idle_ns = counts[4], counts[5], counts[0], counts[1]
    p.xidle_ns = counts[2]
    account_stw(records.view(records.runtime_dtype, records.RUNTIME)[0].resized_ns + 10**7)
    read = read_all()

    allocated = read["/gc/heap/allocs:bytes"] - read["/gc/heap/frees:bytes"]
    assert allocated == read["/memory/classes/heap/objects:bytes"], "however few pages there are by then"
    memory = {name: value for name, value in read.items() if name.startswith("/memory/")}
    assert memory.pop("/memory/classes/total:bytes") == sum(memory.values())
    assert memory["/memory/classes/heap/objects:bytes"] >= 0
    assert memory["/memory/classes/heap/unused:bytes"] >= 0

    cpu = {name: value for name, value in read.items() if name.startswith("/cpu/")}
    parts = [value for name, value in cpu.items() if "total" not in name]
    assert cpu["/cpu/classes/total:cpu-seconds"] == pytest.approx(sum(parts), abs=1e-12)
    assert min(parts) >= 0

    assert read["/gc/heap/allocs:bytes"] - read["/gc/heap/frees:bytes"] == memory["/memory/classes/heap/objects:bytes"]
    assert read["/gc/heap/allocs:objects"] - read["/gc/heap/frees:objects"] == read["/gc/heap/objects:objects"]
    assert read["/gc/heap/allocs-by-size:bytes"].count == read["/gc/heap/allocs:objects"]
    assert read["/gc/heap/frees-by-size:bytes"].sum == read["/gc/heap/frees:bytes"]
    cycles = [read[f"/gc/cycles/{which}:gc-cycles"] for which in ("automatic", "forced", "total")]
    assert cycles[0] + cycles[1] == cycles[2]
    scan = [read[f"/gc/scan/{what}:bytes"] for what in ("globals", "heap", "stack", "total")]
    assert sum(scan[:3]) == scan[3]


def test_processes_are_those_of_ps_that_are_to_leave_too_and_not_scripts(mapped):
    runtime = records.view(records.runtime_dtype, records.RUNTIME)[0]
    runtime.coordinator_pid, runtime.service_pid, runtime.nprocs, runtime.slots, runtime.nrecords = 10, 14, 1, 2, 3
    for idx in range(3):
        p_record(idx).xpid, p_record(idx).epoch = 11 + idx, 2
    assert Snapshot(Sources(usage=AskedOf()), -1, -1).usage == [10, 11, 12, 14]


def test_what_the_cgroup_cannot_be_asked_is_as_it_was():
    before = Residency(1, 1, 0, CgroupMemory(100, 200, {"max": 3}), {"some": Pressure(0.5, 2.0)})
    unread = Residency(2, 2, 0, CgroupMemory(None, None, {}), {})
    assert completed(unread, before) == replace(unread, cgroup=before.cgroup, pressure=before.pressure)
    unlimited = Residency(2, 2, 0, CgroupMemory(100, None, {}), {"some": Pressure(0.0, 2.0)})
    assert completed(unlimited, before) == unlimited


def test_goroutines_add_up(mapped):
    sched = records.view(records.sched_dtype, records.SCHED)[0]
    sched.ngs, sched.xrunq_size = 10, 3
    p_record(0).curg = p_record(1).curg = layout.g_addr(1)
    p_record(1).xnative_kept = 5  # its program waits for Python
    read = read_all()
    kinds = ("not-in-go", "runnable", "running", "waiting")
    assert [read[f"/sched/goroutines/{kind}:goroutines"] for kind in kinds] == [1, 3, 1, 5]
    assert read["/sched/goroutines:goroutines"] == 10


def test_goroutines_created_are_never_fewer_while_a_p_is_given_more_ids(mapped):
    sched, sources = records.view(records.sched_dtype, records.SCHED)[0], Sources()

    def created():
        return BY_NAME["/sched/goroutines-created:goroutines"].read(Snapshot(sources, -1, -1))

    sched.xgoids = 10_000
    p_record(0).goid_next = p_record(0).goid_end = 17  # all of its first block is given
    assert created() == 10_000
    sched.xgoids, p_record(0).goid_next = 10_016, 10_001
    assert created() == 10_016, "not as many more as there are ids between its blocks"
    p_record(0).goid_end = 10_017
    assert created() == 10_016, "not 16 less"


# --- debug.GCStats ----------------------------------------------------------------------------------------------------


def test_gc_stats_have_the_latest_pause_first_and_gos_quantiles(mapped):
    gc = records.view(records.gcstats_dtype, records.GCSTATS)[0]
    assert gcstats.read().pause_quantiles == (0, 0, 0, 0, 0)
    for n in range(300):
        gc.pause_ns[n % 256], gc.pause_end_ns[n % 256] = n, 1000 + n
    gc.num_forced, gc.num_automatic, gc.pause_total_ns, gc.last_gc_unix_ns = 100, 200, 12345, 1299
    read = gcstats.read()
    assert (read.num_gc, read.pause_total, read.last_gc) == (300, 12345, 1299)
    assert (read.pause[:2], read.pause[-1], len(read.pause)) == ((299, 298), 44, 256)
    assert read.pause_end[:2] == (1299, 1298)
    assert read.pause_quantiles == (44, 44 + 64, 44 + 128, 44 + 192, 299)
    assert gcstats.read(2).pause_quantiles == (44, 299)


def test_pauses_are_those_of_the_cycles_that_the_same_reading_counts(mapped):
    gc = records.view(records.gcstats_dtype, records.GCSTATS)[0]
    gc.num_gc = gc.num_automatic = 3
    snapshot = Snapshot(Sources(), -1, -1)
    cycles = BY_NAME["/gc/cycles/total:gc-cycles"].read(snapshot)
    gc.num_gc = gc.num_automatic = 4  # one has ended meanwhile
    assert BY_NAME["go_gc_duration_seconds"].read(snapshot).count == cycles == 3


# --- gomp.metrics -----------------------------------------------------------------------------------------------------


def test_an_unknown_name_is_told_apart_from_one_that_means_nothing_here():
    from gomp.metrics import _find

    with pytest.raises(ValueError, match=r"^there is no metric '/gc/heap': gomp.metrics.all\(\) has them all$"):
        _find("/gc/heap")
    with pytest.raises(ValueError, match="programs call no C"):
        _find("/cgo/go-to-c-calls:calls")


@pytest.mark.parametrize("name", [3, None, ["/gc/heap/live:bytes"], b"/gc/heap/live:bytes"])
def test_what_is_no_name_is_told_what_is_wanted(name):
    from gomp.metrics import _find

    with pytest.raises(TypeError, match=r"^give names of metrics one by one, as '/gc/heap/live:bytes', not "):
        _find(name)


def test_without_a_runtime_there_is_nothing_to_read():
    for read in (gomp.metrics.read, gomp.gc_stats, gomp.mem_stats):
        with pytest.raises(gomp.RuntimeLost, match="no runtime is open"):
            read()


def test_sizes_are_those_of_the_classes():
    assert SIZE_BUCKETS[1:-1] == tuple(size + 1.0 for size in SIZES[1:])


def test_the_guide_lists_each_with_unit_and_meaning():
    lines = (Path(__file__).parent.parent / "docs/guide/metrics.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    expected = []
    for metric in (m for group in (GO_METRICS, CLIENT_METRICS, OWN_METRICS) for m in group):
        label = f" `{{{metric.label}}}`" if metric.label else ""
        which = "" if metric.by_default else " (all)"
        expected.append(
            f"| `{metric.name}`{label} | {metric.kind} | {metric.unit or 'number'} | {metric.help}{which} |"
        )
    assert rows == expected
    assert [f"- `{name}`: {why}." for name, why in ABSENT.items()] == [
        line for line in lines if line.startswith("- `/")
    ]
