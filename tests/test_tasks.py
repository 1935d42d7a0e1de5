"""Which P runs which goroutine."""

from __future__ import annotations

import pytest

import gomp
from gomp.core.sched.tickets import GONE, TAKEN, issue_ticket, reissue_ticket, take_ticket
from gomp.core.shm import layout, records, segments
from gomp.core.shm.commit import ENDLESS
from gomp.runtime.tasks import Tasks


@pytest.fixture
def tasks():
    """Of two Ps, with room for three."""
    made = segments.create(layout.ARENA_SIZE)
    segments.map_segments(made)
    records.view(records.mheap_dtype, records.MHEAP)[0].xcommit_budget = ENDLESS
    yield Tasks(2, 3, made.meta_fd)
    segments.unmap()
    made.close()


def test_a_ticket_is_taken_once_and_by_whom_it_names(tasks: Tasks) -> None:
    issue_ticket(1, 77, 0)
    assert take_ticket(1, 77, 1) == GONE
    assert take_ticket(1, 77, 0) == TAKEN
    assert take_ticket(1, 77, 0) == GONE
    assert reissue_ticket(1, 77, 0, 1) == GONE
    issue_ticket(1, 78, 0)
    assert take_ticket(1, 77, 0) == GONE, "another goroutine has the record"
    assert reissue_ticket(1, 78, 0, 1) == TAKEN
    assert take_ticket(1, 78, 0) == GONE
    assert take_ticket(1, 78, 1) == TAKEN


def test_nothing_goes_to_a_p_beyond_gomaxprocs(tasks: Tasks) -> None:
    assert {tasks.create("sleep", None, 0, b"").p for _ in range(4)} == {0, 1}
    tasks.set_absent(0, True)
    tasks.set_absent(1, True)
    assert {tasks.create("sleep", None, 0, b"").p for _ in range(4)} == {0, 1}, "they wait for its process"
    tasks.procs = 3
    assert tasks.create("sleep", None, 0, b"").p == 2


def test_one_that_its_p_has_started_is_not_withdrawn(tasks: Tasks) -> None:
    started, waiting = tasks.create("a", None, 0, b"", pinned=1), tasks.create("b", None, 0, b"", pinned=1)
    assert take_ticket(started.g, started.id, 1) == TAKEN
    tasks.procs = 1
    assert not tasks.withdraw(started, is_dead=False)
    assert tasks.withdraw(waiting, is_dead=False)
    tasks.move(waiting)
    assert (waiting.p, take_ticket(waiting.g, waiting.id, 0)) == (0, TAKEN)
    assert tasks.withdraw(started, is_dead=True)


def test_more_goroutines_than_there_are_records_are_refused_one_by_one() -> None:
    made = segments.create(layout.ARENA_SIZE)
    segments.map_segments(made)
    try:
        records.view(records.mheap_dtype, records.MHEAP)[0].xcommit_budget = ENDLESS
        tasks = Tasks(2, 2, made.meta_fd)
        for n in range(layout.MAX_TASKS - 1):
            tasks.create("sleep", None, n, b"")
        with pytest.raises(gomp.OutOfMemory, match="65535 goroutines"):
            tasks.create("sleep", None, 0, b"")
        ended = tasks.ended(0, tasks.of(0)[0].g)
        assert ended
        assert tasks.create("sleep", None, 0, b"").g == ended.g
        assert records.view(records.task_dtype, layout.TASKS_BASE, 2)[1].status == records.TASK_RUNNABLE
    finally:
        segments.unmap()
        made.close()
