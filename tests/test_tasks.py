"""Which P runs which goroutine."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import gomp
from gomp.config import ProgramSettings
from gomp.core.sched.tickets import GONE, TAKEN, issue_ticket, reissue_ticket, take_ticket
from gomp.core.shm import layout, records, segments
from gomp.core.shm.commit import ENDLESS
from gomp.runtime.dispatcher import Dispatcher
from gomp.runtime.ps import Ps
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


def test_a_p_that_is_to_be_there_again_gets_nothing_until_it_has_a_process(tasks: Tasks) -> None:
    family = SimpleNamespace(ps={}, channel=lambda idx: None)
    ps = Ps.__new__(Ps)
    ps._leaving, ps._dead, ps._absent, ps._family = set(), {}, {}, family
    ps._dispatcher = Dispatcher(tasks, family.channel)
    tasks.procs = 3
    ps.have_stay(2)
    assert set(ps._absent) == {2}
    assert {tasks.create("sleep", None, 0, b"").p for _ in range(6)} == {0, 1}


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


# --- programs of the configuration ------------------------------------------------------------------------------------


EVERYWHERE = ProgramSettings(program="sleep", everywhere=True)
SOMEWHERE = ProgramSettings(program="sleep")


@pytest.fixture
def dispatcher(tasks: Tasks) -> Dispatcher:
    """With a program on each of its three Ps, and one more. Nobody has a process."""
    made = Dispatcher(tasks, lambda p: None)
    resize(made, 3)
    made.supervise_all([EVERYWHERE, SOMEWHERE], 0, 3)
    return made


def resize(dispatcher: Dispatcher, procs: int) -> None:
    dispatcher.tasks.procs = procs


def of_its_own(dispatcher: Dispatcher) -> list[int]:
    """How many programs each P has that run on no other."""
    return [sum(task.pinned for task in dispatcher.tasks.of(p)) for p in range(3)]


def test_a_p_that_comes_back_before_it_has_left_has_its_program_once(dispatcher: Dispatcher) -> None:
    (program,) = (task for task in dispatcher.tasks.of(2) if task.pinned)
    dispatcher.tasks.started(2, program.g)
    resize(dispatcher, 1)
    dispatcher.move(dispatcher.tasks.of(1), is_dead=True)
    dispatcher.move(dispatcher.tasks.of(2), is_dead=False)
    assert of_its_own(dispatcher) == [1, 0, 1], "what has started goes on until its process ends"
    resize(dispatcher, 3)
    dispatcher.supervise_all([EVERYWHERE, SOMEWHERE], 1, 3)
    assert of_its_own(dispatcher) == [1, 1, 1]
    dispatcher.has_died(2, "P2 was killed")
    assert of_its_own(dispatcher) == [1, 1, 1]
    assert sum(len(dispatcher.tasks.of(p)) for p in range(3)) == 4


def test_a_p_may_have_several_programs_of_its_own(tasks: Tasks) -> None:
    made = Dispatcher(tasks, lambda p: None)
    resize(made, 1)
    made.supervise_all([EVERYWHERE, EVERYWHERE], 0, 1)
    resize(made, 3)
    made.supervise_all([EVERYWHERE, EVERYWHERE], 1, 3)
    assert of_its_own(made) == [2, 2, 2]
