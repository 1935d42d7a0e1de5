"""The rings that a trace is read from: what is told is read in its order, what was overwritten or left out is counted."""

from __future__ import annotations

import pytest
from heap_world import heap_world
from waiting_world import Waiting

from gomp.core import COMPILED
from gomp.core.heap.gs import take_g
from gomp.core.mutator.goroutine import YIELDED, execute
from gomp.core.sched.runq import put_global
from gomp.core.sched.status import OK, enter, leave
from gomp.core.shm import atomics, layout, records, tracing
from gomp.core.shm.records import DETAIL_RUNS, DETAIL_SWEEPS, POLL_SCHED, TRACE_DETAIL_SHIFT, TRACE_LEFT_OUT
from gomp.runtime import goroutineprofile
from gomp.runtime.traces import Rings

WHAT = 77


@pytest.fixture
def world():
    with heap_world(2) as made:
        yield made


@pytest.fixture
def ring(world):
    """The ring of P 0, which this process is, while it tells."""
    assert tracing.begin_tracing(layout.p_addr(0)) == tracing.OK
    return Rings({0: 0})


def told(ring, p=0):
    lost, events = ring.take(p)
    return lost, [(int(e["at_ns"]), int(e["what"]), int(e["a"]), int(e["b"])) for e in events]


def test_nothing_is_told_unless_somebody_wants_it(world):
    tracing.tell_if_tracing(WHAT, 1, 2)
    assert world.ps[0].trace_committed == 0
    tracing.begin_tracing(layout.p_addr(0))
    tracing.tell_if_tracing(WHAT, 3, 4)
    tracing.end_tracing(layout.p_addr(0))
    tracing.tell_if_tracing(WHAT, 5, 6)
    assert tracing.count_events(0) == 1


def test_events_are_read_once_and_in_their_order(ring):
    for i in range(5):
        tracing.tell_at(100 + i, WHAT, i, -i)
    assert told(ring) == (0, [(100 + i, WHAT, i, -i) for i in range(5)])
    assert told(ring) == (0, [])
    tracing.tell_at(200, WHAT, 9, 9)
    assert told(ring) == (0, [(200, WHAT, 9, 9)])


def test_none_has_an_earlier_time_than_the_one_before_it(ring):
    """Whatever is told when it is over has the time at which it began."""
    for at in (100, 90, 110):
        tracing.tell_at(at, WHAT, at, 0)
    assert [at for at, *_ in told(ring)[1]] == [100, 100, 110]
    tracing.tell_at(95, WHAT, 0, 0)
    assert [at for at, *_ in told(ring)[1]] == [110]


def test_who_reads_them_leaves_no_trace_in_the_list_of_what_is_mapped(ring):
    before = atomics._mapped
    told(Rings({0: 0}))
    goroutineprofile.read()
    goroutineprofile.frames_of_running(layout.g_addr(take_g()))
    assert atomics._mapped == before


def test_of_a_p_that_has_come_since_the_trace_began_all_is_read(ring):
    tracing.tell_at(100, WHAT, 0, 0)
    tracing.tell_at(101, WHAT, 1, 0)
    assert told(Rings({1: 5})) == (0, [(100, WHAT, 0, 0), (101, WHAT, 1, 0)])


@pytest.mark.parametrize("too_many", [0, 1, 5])
def test_what_was_overwritten_is_counted(ring, too_many):
    """The place that comes next may be half written: so a full ring has one event less to read."""
    n = layout.TRACE_EVENTS - 1 + too_many
    for i in range(n):
        tracing.tell_at(i, WHAT, i, 0)
    lost, events = told(ring)
    assert lost == too_many
    assert [a for _, _, a, _ in events] == list(range(too_many, n))


def test_a_ring_that_stays_is_accounted_for_and_taken_again(world):
    before = int(world.mheap.xtable_bytes)
    for _ in range(2):
        tracing.begin_tracing(layout.p_addr(0))
        tracing.end_tracing(layout.p_addr(0))
        assert int(world.mheap.xtable_bytes) - before == layout.TRACE_RING
    world.verify()


def test_of_many_in_a_short_time_the_first_are_told_and_the_others_counted(ring):
    second = 1_000_000_000
    shown = [tracing.begin_detail(DETAIL_SWEEPS, second + i) for i in range(tracing.MOST_DETAILS + 7)]
    assert shown == [1] * tracing.MOST_DETAILS + [0] * 7
    for _ in range(7):
        tracing.leave_out(DETAIL_SWEEPS, 30)
    later = second + tracing.WINDOW_NS + 1000
    assert tracing.begin_detail(DETAIL_SWEEPS, later) == 1
    assert told(ring)[1] == [(later, TRACE_LEFT_OUT | DETAIL_SWEEPS << TRACE_DETAIL_SHIFT, 7, 210)]
    assert tracing.begin_detail(DETAIL_RUNS, second) == 1, "each kind has a share of its own"


@pytest.mark.skipif(COMPILED, reason="inlined where it is compiled")
def test_for_most_of_those_left_out_nobody_looks_at_the_clock(ring):
    second, looks, n = 1_000_000_000, 0, 1000

    def happens(at):
        nonlocal looks
        if tracing.is_too_much(DETAIL_RUNS):
            return 0
        looks += 1
        return tracing.begin_detail(DETAIL_RUNS, at)

    shown = sum(happens(second + i) for i in range(n))
    assert shown == tracing.MOST_DETAILS
    assert looks < shown + n / 50
    tracing.skip_no_more()  # it has slept
    assert happens(second + 2 * tracing.WINDOW_NS) == 1
    assert [count for _, _, count, _ in told(ring)[1]] == [n - shown]


def test_whoever_ran_when_the_trace_began_is_known(world):
    g = take_g()
    records.view(records.g_dtype, layout.g_addr(g))[0].id = 17
    world.ps[0].curg = layout.g_addr(g)
    tracing.begin_tracing(layout.p_addr(0))
    world.ps[0].curg = 0
    assert world.ps[0].trace_running == 17


def test_when_others_have_their_turn_the_clock_is_looked_at_again(world, ring):
    """Who is left out then may run for long."""
    for i in range(tracing.MOST_DETAILS + 1):
        tracing.begin_detail(DETAIL_RUNS, 1_000_000_000 + i)
    assert world.ps[0].trace_skips[DETAIL_RUNS] > 1
    g = Waiting(world).running(0)
    world.ps[0].xpoll |= POLL_SCHED
    put_global(take_g())
    assert enter() == OK
    assert execute(g) == YIELDED
    leave()
    assert world.ps[0].trace_skips[DETAIL_RUNS] == 0
