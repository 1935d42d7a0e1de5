"""The pacer's arithmetic against numbers worked out from Go's source."""

from __future__ import annotations

import pytest
from heap_world import heap_world

from gomp.core import kernel
from gomp.core.gc import goal as goal_of
from gomp.core.gc import pacer
from gomp.core.shm.records import GC_TRIGGER_HEAP, GC_TRIGGER_TIME

MIB = 1 << 20


@kernel("int64(int64)")
def dedicated(procs):
    return pacer.dedicated_workers(procs)


@kernel("float64(int64)")
def share(procs):
    return pacer.fractional_share(procs)


@kernel("int64(int64, int64)")
def idle(procs, kind):
    return pacer.max_idle_workers(procs, kind)


@kernel("int64(int64, int64, int64, int64)")
def trigger(goal, lowest, marked, runway):
    return goal_of.trigger_for(goal, lowest, marked, runway)


@kernel("int64(int64, int64, int64, int64, int64)")
def by_limit(limit, mapped, free, allocated, marked):
    return goal_of.limit_goal(limit, mapped, free, allocated, marked)


@pytest.mark.parametrize(
    ("procs", "workers", "fraction"),
    [
        (1, 0, 0.25),
        (2, 0, 0.25),
        (3, 0, 0.25),
        (4, 1, 0),
        (5, 1, 0),
        (6, 1, 1 / 12),
        (7, 2, 0),
        (9, 2, 0),
        (10, 3, 0),
        (14, 4, 0),
        (18, 5, 0),
        (32, 8, 0),
    ],
)
def test_a_quarter_of_the_processors_marks(procs, workers, fraction):
    assert dedicated(procs) == workers
    assert share(procs) == pytest.approx(fraction)


def test_a_cycle_that_the_clock_asked_for_takes_at_most_one_idle_p():
    assert [idle(procs, GC_TRIGGER_HEAP) for procs in (2, 4, 8)] == [2, 3, 6]
    assert [idle(procs, GC_TRIGGER_TIME) for procs in (2, 4, 8)] == [1, 0, 0]


@pytest.mark.parametrize(
    ("goal", "lowest", "marked", "runway", "expected"),
    [
        (4194304, 0, 0, 0, 3997696),
        (8075994, 5003440, 3954864, 0, 7882776),
        (8075994, 5003440, 3954864, 600_000, 7475994),
        (100 * MIB, 51 * MIB, 50 * MIB, 12 * MIB, 92274688),
        (100 * MIB, 51 * MIB, 50 * MIB, 40 * MIB, 89292800),
        (100 * MIB, 51 * MIB, 50 * MIB, 0, 102400000),
    ],
)
def test_the_trigger_is_a_runway_before_the_goal(goal, lowest, marked, runway, expected):
    assert trigger(goal, lowest, marked, runway) == expected


@pytest.mark.parametrize(
    ("limit", "mapped", "free", "allocated", "marked", "expected"),
    [(64, 20, 2, 8, 4, 54924411), (64, 70, 1, 50, 40, 41943040), (64, 130, 0, 100, 90, 94371840)],
)
def test_the_limit_leaves_what_the_heap_may_take(limit, mapped, free, allocated, marked, expected):
    assert by_limit(*(n * MIB for n in (limit, mapped, free, allocated, marked))) == expected


def set_cycle(pc, **fields):
    for name, value in fields.items():
        pc[name] = value


@pytest.mark.parametrize(
    ("live", "scan", "work", "per_byte", "per_work"),
    [
        (6_500_000, 3_000_000, 1_000_000, 1.3133333333333332, 0.7614213197969543),
        (6_500_000, 5_000_000, 3_500_000, 0.5692251132555393, 1.7567742123687282),
        (9_500_000, 5_000_000, 1_000_000, 4214000.0, 2.3730422401518747e-07),
    ],
)
def test_what_a_byte_costs_is_revised(live, scan, work, per_byte, per_work):
    with heap_world() as world:
        set_cycle(
            world.pacer, gc_percent=100, xheap_live=live, xheap_scan=scan, xheap_scan_work=work, gc_percent_goal=8_000_000, triggered=6_000_000,
            last_heap_scan=2_800_000, last_stack_scan=20_000, globals_scan=150_000, max_stack_scan=64_000,
        )  # fmt: skip
        pacer.revise()
        assert (world.pacer.assist_work_per_byte, world.pacer.assist_bytes_per_work) == pytest.approx(
            (per_byte, per_work), rel=1e-12
        )


def test_the_end_of_a_cycle_measures_what_was_allocated_for_what_was_marked():
    with heap_world() as world:
        pc = world.pacer
        set_cycle(
            pc,
            mark_start_ns=0,
            xassist_ns=2_000_000,
            xidle_ns=4_000_000,
            xheap_live=8_000_000,
            triggered=7_000_000,
            xheap_scan_work=4_000_000,
        )
        pacer.end_cycle(10_000_000, 4)
        assert pc.cons_mark == pytest.approx(0.14285714285714285, rel=1e-12)
        assert list(pc.last_cons_mark) == [0, 0, 0, pytest.approx(0.14285714285714285)]
        set_cycle(pc, gc_percent=100, last_heap_scan=2_800_000, last_stack_scan=170_000, triggered=0)
        pacer.commit(1)
        assert pc.runway == 1272857


def test_the_slowest_of_five_cycles_sets_the_runway():
    with heap_world() as world:
        pc = world.pacer
        for live in (9_000_000, 7_500_000, 7_200_000, 7_100_000, 7_100_000):
            set_cycle(pc, mark_start_ns=0, xheap_live=live, triggered=7_000_000, xheap_scan_work=4_000_000)
            pacer.end_cycle(10_000_000, 4)
            assert pc.cons_mark == pytest.approx(2_000_000 * 0.25 / (4_000_000 * 0.75))
        set_cycle(pc, xheap_live=7_100_000)
        pacer.end_cycle(10_000_000, 4)
        assert pc.cons_mark == pytest.approx(500_000 * 0.25 / (4_000_000 * 0.75))


def test_a_cycle_during_which_nothing_was_allocated_measures_nothing():
    with heap_world() as world:
        set_cycle(world.pacer, cons_mark=0.5, xheap_live=5, triggered=5, xheap_scan_work=1)
        pacer.end_cycle(1000, 2)
        assert world.pacer.cons_mark == 0.5
        assert list(world.pacer.last_cons_mark) == [0] * 4
