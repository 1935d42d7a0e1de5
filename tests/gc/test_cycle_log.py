"""The ring of the last cycles: what it says of each, and what a reader believes who is slow."""

import pytest
from kernel_heap import collect_now, kernel_heap

from gomp.core.shm.records import CYCLES_KEPT, GC_TRIGGER_HEAP, GCSTATS, gcstats_dtype, view
from gomp.runtime import cyclelog


@pytest.fixture
def heap():
    with kernel_heap():
        yield


def numbers(cycles):
    return [cycle.number for cycle in cycles]


def test_each_cycle_is_written_down(heap):
    assert cyclelog.read() == []
    collect_now()
    collect_now(GC_TRIGGER_HEAP)
    first, second = cyclelog.read()
    gc = view(gcstats_dtype, GCSTATS)[0]
    assert numbers([first, second]) == [1, 2]
    assert (first.forced, second.forced) == (1, 0)
    assert (second.heap_start, second.heap_end, second.heap_marked) == (gc.heap0, gc.heap1, gc.heap2)
    assert (second.start_ns, second.end_ns, second.goal) == (gc.last_start_ns, gc.last_end_ns, gc.last_goal)
    assert second.pause_ns == gc.pause_ns[1] > 0
    assert first.end_ns < second.start_ns < second.mark_ns < second.term_ns < second.end_ns
    assert numbers(cyclelog.read(1)) == [2]
    assert cyclelog.read(2) == []


def test_the_oldest_are_overwritten(heap):
    for _ in range(CYCLES_KEPT + 3):
        collect_now()
    last = CYCLES_KEPT + 3
    assert numbers(cyclelog.read()) == list(range(last + 2 - CYCLES_KEPT, last + 1))
    assert numbers(cyclelog.read(last - 2)) == [last - 1, last]


def test_what_may_have_been_overwritten_meanwhile_is_not_believed(heap, monkeypatch):
    for _ in range(CYCLES_KEPT):
        collect_now()
    counts = iter(
        [CYCLES_KEPT, CYCLES_KEPT + 4]
    )  # four more ended while the ring was copied, and a fifth may be in the middle of it
    for load in ("load_acquire", "load_after_reads"):
        monkeypatch.setattr(cyclelog, load, lambda addr: next(counts))
    assert numbers(cyclelog.read()) == list(range(6, CYCLES_KEPT + 1))
