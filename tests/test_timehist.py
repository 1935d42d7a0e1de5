"""Histograms of durations have the buckets of Go's runtime; goroutines and stops are counted in them where it happens."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from gomp.core.sched import timehist
from gomp.core.sched.latency import TRACKED_EVERY, note_ready, note_run, since_waiting
from gomp.core.sched.status import start_world, stop_world
from gomp.core.shm import layout, records, segments
from gomp.core.shm.libc import nanotime

EXAMPLES = json.loads((Path(__file__).parent / "data/metrics/time-histogram-examples.json").read_text())["examples"]


def histogram(at):
    return records.view(records.timehist_dtype, at)[0]


def test_a_duration_is_counted_where_go_counts_it(mapped):
    counted = histogram(records.STOPPED_GC)
    for ns, bucket in EXAMPLES:
        before = counted.counts.copy()
        timehist.add(records.STOPPED_GC, ns)
        assert np.flatnonzero(counted.counts - before).tolist() == [bucket], ns
    assert counted.sum_ns == sum(ns for ns, _ in EXAMPLES if ns > 0)


def deadline():
    return nanotime() + 10**10


@pytest.fixture
def coordinator(mapped):
    """This process stops the world, and nothing is urgent."""
    segments.map_self(mapped, layout.COORDINATOR_P)
    records.view(records.p_dtype, layout.SELF_BASE)[0].urgent_fd = -1


def test_a_stop_is_counted_under_who_wanted_it(coordinator):
    runtime = records.view(records.runtime_dtype, records.RUNTIME)[0]
    for is_gc in (0, 1, 1):
        runtime.stop_is_gc = is_gc
        assert stop_world(deadline()) == 0
        start_world()
    start_world()  # the world runs
    counts = {at: int(histogram(at).counts.sum()) for at in (records.STOPPING_OTHER, records.STOPPED_OTHER)}
    assert set(counts.values()) == {1}
    assert histogram(records.STOPPING_GC).counts.sum() == histogram(records.STOPPED_GC).counts.sum() == 2
    assert 0 < histogram(records.STOPPING_GC).sum_ns <= histogram(records.STOPPED_GC).sum_ns


def test_a_stop_that_is_given_up_counts_with_the_time_until_then(coordinator):
    p = records.view(records.p_dtype, layout.p_addr(1))[0]
    p.xstatus = records.STATUS_KERNEL
    assert stop_world(nanotime() + 20_000_000) == -1 - 1
    start_world()
    assert histogram(records.STOPPING_OTHER).sum_ns == histogram(records.STOPPED_OTHER).sum_ns > 20_000_000
    p.xstatus = records.STATUS_SAFE


def test_ps_that_stand_wait_for_the_last(coordinator):
    """What they lose is a part of the pause's CPU time."""
    runtime = records.view(records.runtime_dtype, records.RUNTIME)[0]
    assert stop_world(deadline()) == 0
    stood = runtime.stop_stood_ns - runtime.stop_began_ns
    start_world()
    assert runtime.stopping_cpu_ns == 2 * stood  # both stood from the beginning


@pytest.fixture
def g(mapped):
    """Address of a goroutine's record; this process is P 0."""
    segments.map_self(mapped, 0)
    return layout.g_addr(TRACKED_EVERY)


def test_one_in_eight_times_that_a_goroutine_waits_for_a_p_is_measured(g):
    record = records.view(records.g_dtype, g)[0]
    latencies = histogram(layout.p_addr(0) + records.P_LATENCIES)
    began = nanotime()
    for _ in range(5 * TRACKED_EVERY):
        note_ready(g)
        note_run(g)
        record.runs += 1
    assert latencies.counts.sum() == 5
    assert 0 < latencies.sum_ns < nanotime() - began


def test_what_a_marker_has_noted_of_a_wait_is_no_latency(g):
    record = records.view(records.g_dtype, g)[0]
    note_ready(g)
    record.since_ns = nanotime() & ~records.SINCE_MASK
    note_run(g)
    assert histogram(layout.p_addr(0) + records.P_LATENCIES).counts.sum() == 0


def test_a_wait_for_a_lock_is_measured_to_its_end(g):
    record = records.view(records.g_dtype, g)[0]
    assert since_waiting(records.WAITS_TO_SEND) == 0
    record.since_ns = since_waiting(records.WAITS_FOR_LOCK)
    time.sleep(0.002)
    note_ready(g)
    assert 2_000_000 <= records.view(records.p_dtype, layout.p_addr(0))[0].lock_wait_ns < 10**9
