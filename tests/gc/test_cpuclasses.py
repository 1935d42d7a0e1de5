"""The CPU time of the Ps by what it was spent on adds up to all there was, and no class ever goes back."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gomp.core.gc.cpuclasses import account_stw
from gomp.core.shm import layout, records
from gomp.core.shm.atomics import zero_range
from gomp.core.shm.records import (
    CPU_ASSIST,
    CPU_CLASSES,
    CPU_DEDICATED,
    CPU_IDLE,
    CPU_MARK_IDLE,
    CPU_PAUSE,
    CPU_SCAVENGE_ASSIST,
    CPU_SCAVENGE_BACKGROUND,
    CPU_USER,
)

SECOND = 1_000_000_000


class Measured:
    """The records from which the account is made; ``add`` adds to what was measured of a class."""

    def __init__(self):
        self.gc = records.view(records.gcstats_dtype, records.GCSTATS)[0]
        self.pace = records.view(records.scavpace_dtype, records.SCAVPACE)[0]
        self.p = records.view(records.p_dtype, layout.p_addr(0))[0]

    def add(self, which, ns):
        record, field = {
            CPU_PAUSE: (self.gc, "pause_cpu_ns"),
            CPU_DEDICATED: (self.gc, "dedicated_ns"),
            CPU_SCAVENGE_BACKGROUND: (self.pace, "xbackground_ns"),
            CPU_SCAVENGE_ASSIST: (self.pace, "xeager_ns"),
            CPU_MARK_IDLE: (self.gc, "idle_ns"),
            CPU_ASSIST: (self.gc, "assist_ns"),
            CPU_IDLE: (self.p, "xidle_ns"),
        }[which]
        record[field] += ns


def account():
    head = records.view(records.cpu_head_dtype, records.CPU_HEAD)[0]
    last = records.view(records.cpu_dtype, records.CPU_STATS, 2)[int(head.xpublished) % 2]
    return last.ns.tolist(), int(last.total_ns)


@pytest.fixture
def measured(mapped):
    return Measured()


def test_programs_have_what_nobody_else_had(measured):
    for which in range(CPU_USER):
        measured.add(which, (which + 1) * SECOND)
    account_stw(100 * SECOND)
    classes, total = account()
    assert classes[:CPU_USER] == [(which + 1) * SECOND for which in range(CPU_USER)]
    assert (classes[CPU_USER], total) == ((200 - 28) * SECOND, 200 * SECOND)


def test_who_takes_more_time_than_there_is_had_that_of_idle_ps(measured):
    """A script that is no P of its own spends seconds in assists while both Ps are idle: the rest counts once there is time."""
    measured.add(CPU_IDLE, 20 * SECOND)
    measured.add(CPU_ASSIST, 5 * SECOND)
    account_stw(10 * SECOND)
    classes, total = account()
    assert (classes[CPU_ASSIST], classes[CPU_IDLE], classes[CPU_USER], total) == (
        5 * SECOND,
        15 * SECOND,
        0,
        20 * SECOND,
    )


def test_a_p_s_own_account(measured):
    p = measured.p
    p.mark_ns, p.assist_ns, p.sweep_ns, p.stopped_ns, p.xidle_ns = (
        SECOND,
        2 * SECOND,
        3 * SECOND,
        4 * SECOND,
        5 * SECOND,
    )
    p.available_ns = 10 * SECOND
    account_stw(20 * SECOND)
    assert (p.idle_ns, p.mutator_ns) == (5 * SECOND, 15 * SECOND)
    p.xidle_ns -= SECOND  # the coordinator has marked in its place
    account_stw(20 * SECOND)
    assert (p.idle_ns, p.mutator_ns) == (5 * SECOND, 16 * SECOND)


STEPS = st.lists(
    st.tuples(st.integers(0, 10), st.lists(st.tuples(st.integers(0, CPU_IDLE), st.integers(-3, 12)), max_size=7)),
    max_size=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_whatever_was_measured_the_classes_add_up_and_only_grow(mapped, steps):
    measured, now, before = Measured(), 0, [0] * CPU_CLASSES
    for at, dtype in (
        (records.GCSTATS, records.gcstats_dtype),
        (records.SCAVPACE, records.scavpace_dtype),
        (layout.p_addr(0), records.p_dtype),
        (records.CPU_STATS, records.cpu_dtype),
        (records.CPU_STATS + records.cpu_dtype.itemsize, records.cpu_dtype),
    ):
        zero_range(at, dtype.itemsize)
    for passed, additions in steps:
        for which, ns in additions:
            measured.add(which, ns if which == CPU_IDLE else max(ns, 0))
        now += passed
        account_stw(now)
        classes, total = account()
        assert sum(classes) == total == 2 * now
        assert all(new >= old for new, old in zip(classes, before, strict=True))
        before = classes
