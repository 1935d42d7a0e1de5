"""Where a trace begins: what the coordinator says that each P does then, and what it tells of that later."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from heap_world import heap_world

from gomp.core.sched.tickets import TAKEN, take_ticket
from gomp.core.shm import layout
from gomp.core.shm import tracing as kernels
from gomp.core.shm.records import DETAIL_READIES, DETAIL_SWEEPS, TRACE_PROGRAM, TRACE_PROGRAM_END
from gomp.errors import MessageTooLarge
from gomp.runtime import tracing
from gomp.runtime.dispatcher import Dispatcher
from gomp.runtime.stopping import p_record
from gomp.runtime.tasks import Tasks
from gomp.runtime.traced import TEXT_WORDS
from gomp.runtime.traces import Rings
from gomp.runtime.tracing import Tracing

PROCS = 2


@pytest.fixture
def world():
    with heap_world(PROCS) as made, made.as_coordinator():
        made.tasks = Tasks(PROCS, PROCS, made.segments.meta_fd)
        made.tracing = Tracing(PROCS, Dispatcher(made.tasks, lambda p: None), nullcontext)
        yield made


class Asker:
    """Who asks for a trace of a second."""

    def __init__(self):
        self.channel, self.request, self.answers = object(), {"ms": 1000}, []

    def answer(self, **fields):
        self.answers.append(fields)


def begun(world):
    asker = Asker()
    world.tracing.begin(asker)
    return asker.answers[0]


def states(world):
    return {state["p"]: state for state in begun(world)["ps"]}


def start(world, p, name):
    """P ``p`` has taken the program, and nobody has heard of it yet."""
    task = world.tasks.create(name, None, 0, b"", pinned=p)
    assert take_ticket(task.g, task.id, p) == TAKEN
    return task


def told_by_the_coordinator(world, began):
    _, events = Rings({layout.COORDINATOR_P: began["first"]}).take(layout.COORDINATOR_P)
    return [(int(event["what"]), int(event["a"]), int(event["b"])) for event in events]


def test_a_program_that_a_p_has_begun_and_told_nobody_of_is_there(world):
    task = start(world, 1, "begun")
    world.tasks.create("queued", None, 0, b"", pinned=1)
    found = states(world)
    assert (found[0]["programs"], found[1]["programs"]) == ([], [(task.id, "begun")])


def test_one_that_was_over_and_its_p_had_told_nobody_is_told_as_soon_as_it_has(world):
    over, other = start(world, 0, "over"), start(world, 0, "other")
    began = begun(world)
    world.tracing.step()
    assert told_by_the_coordinator(world, began) == []
    world.tasks.started(0, over.g)
    world.tasks.ended(0, over.g)
    for _ in range(2):
        world.tracing.step()
        assert told_by_the_coordinator(world, began) == [(TRACE_PROGRAM_END, over.id, 0)]
    assert world.tasks.taken(0) == [other]


def test_what_one_runs_that_has_come_since_is_told(world):
    world.runtime.nprocs, world.ps[1].xpid = 1, 0
    began = begun(world)
    world.runtime.nprocs, world.ps[1].xpid = 2, 77
    task = start(world, 1, "eight by")
    for _ in range(2):
        world.tracing.step()
        text, program = told_by_the_coordinator(world, began)
        assert TEXT_WORDS.pack(*text[1:]).rstrip(b"\0") == b"eight by"
        assert program == (TRACE_PROGRAM, task.id, 1)


def test_a_beginning_that_is_too_long_for_an_answer_is_refused_and_leaves_nothing_behind(world):
    start(world, 0, "long")
    refusals = []
    asker = SimpleNamespace(channel=object(), request={"ms": 1000}, answer=too_large, refuse=refusals.append)
    world.tracing.begin(asker)
    assert refusals == ["the names of 1 programs that run are more than one answer holds: trace again when fewer run"]
    assert not any(int(p.xtracing) for p in world.ps)
    assert 0 in states(world), "another may begin"


def too_large(**fields):
    raise MessageTooLarge("the header of a message has more bytes than it may")


def test_of_one_that_has_died_and_has_no_successor_yet_nothing_is_said(world):
    start(world, 0, "dead")
    world.ps[0].xpid, world.ps[0].xparked = 0, 1
    state = states(world)[0]
    assert (state["programs"], state["is_parked"]) == ([], False)


def test_one_that_is_to_leave_and_has_not_yet_tells_too(world):
    world.runtime.nprocs = 1
    assert set(states(world)) == {0, 1}
    world.tracing.end(SimpleNamespace(channel=None, answer=lambda **fields: None))
    world.ps[1].xpid = 0
    world.tracing.forget(world.tracing._reader)
    assert set(states(world)) == {0}


def test_what_was_left_out_since_it_was_told_is_there_in_the_end(world):
    asker = Asker()
    world.tracing.begin(asker)
    for which in (DETAIL_READIES, DETAIL_SWEEPS):
        shown = [kernels.begin_detail(which, 10**9) for _ in range(kernels.MOST_DETAILS + 1)]
        assert shown[-2:] == [1, 0]
    kernels.leave_out(DETAIL_SWEEPS, 30)
    world.tracing.end(asker)
    assert asker.answers[-1]["left_out"] == [
        (layout.COORDINATOR_P, DETAIL_READIES, 1, 0), (layout.COORDINATOR_P, DETAIL_SWEEPS, 1, 30),
    ]  # fmt: skip


def test_it_is_counted_when_nobody_tells_any_more(world, monkeypatch):
    """Else what is told just then would be there twice."""
    told = []
    monkeypatch.setattr(tracing, "_left_out", lambda p: told.append(int(p_record(p).xtracing)) or [])
    asker = Asker()
    world.tracing.begin(asker)
    world.tracing.end(asker)
    assert told == [0, 0, 0]
