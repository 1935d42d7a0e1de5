"""What a trace's events look like as a timeline: objects of the Trace Event Format, nested within each track, whatever is missing."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomp.core.mutator.action import ACTION_RECEIVE
from gomp.core.mutator.goroutine import PARKED
from gomp.core.shm import layout, records
from gomp.core.shm.records import TRACE_DETAIL_SHIFT
from gomp.runtime import timeline as module
from gomp.runtime.timeline import Timeline
from gomp.runtime.traced import TEXT_WORDS

COORDINATOR, PID = layout.COORDINATOR_P, 100
BEGAN = 1_000_000
MICROSECOND = 1000


def state(p, **what):
    return {"p": p, "pid": PID + 1 + p, "is_script": False, "is_parked": False, "programs": []} | what


def made(*events, ps=None, end=1000):
    """The objects of a trace with these events (P, microseconds, what, a, b) that ends then."""
    line = Timeline(BEGAN, PID)
    line.begin(ps or [state(0), state(1)])
    for p, at, what, a, b in events:
        line.add(p, BEGAN + at * MICROSECOND, what, a, b)
    line.end(BEGAN + end * MICROSECOND)
    return json.loads(json.dumps(line.out, allow_nan=False))


def slices(objects):
    """Those that take time: (process, track, name, beginning, duration) and their arguments."""
    return [(o["pid"], o["tid"], o["name"], o["ts"], o["dur"], o["args"]) for o in objects if o["ph"] == "X"]


def names(objects):
    return [(name, began, took) for _, _, name, began, took, _ in sorted(slices(objects), key=lambda s: (s[3], s[2]))]


def check_nesting(objects):
    """On each track, of two that overlap one lies within the other, and begins earlier."""
    tracks = defaultdict(list)
    for pid, tid, _, began, took, _ in slices(objects):
        tracks[pid, tid].append((round(1000 * began), round(1000 * (began + took))))
    for found in tracks.values():
        ends = []
        for began, ended in sorted(found, key=lambda s: (s[0], -s[1])):
            while ends and ends[-1] <= began:
                ends.pop()
            assert not ends or ended <= ends[-1], found
            ends.append(ended)


@pytest.fixture(autouse=True)
def named(monkeypatch):
    """Names of types and places come from shared memory, of which there is none here."""
    monkeypatch.setattr(module, "site_of", lambda number: f"place {number}")
    monkeypatch.setattr(Timeline, "_name_of_type", lambda self, place: f"Frame{place}", raising=True)


def test_an_assist_within_a_goroutine_within_a_program():
    name = b"binary_trees:main".ljust(32, b"\0")
    objects = made(
        (0, 1, records.TRACE_TEXT, *TEXT_WORDS.unpack(name[:16])),
        (0, 1, records.TRACE_TEXT, *TEXT_WORDS.unpack(name[16:])),
        (0, 1, records.TRACE_PROGRAM, 7, 0),
        (0, 10, records.TRACE_RUN, 42, 3 | 5 << records.TRACE_SITE_SHIFT),
        (0, 20, records.TRACE_ASSIST, 4096, 100),
        (0, 30, records.TRACE_ASSIST_END, 65536, 2000),
        (0, 40, records.TRACE_RUN_END | ACTION_RECEIVE << TRACE_DETAIL_SHIFT, 42, PARKED),
        (0, 50, records.TRACE_PROGRAM_END, 7, 0),
    )
    assert names(objects) == [("binary_trees:main", 1, 49), ("Frame3", 10, 30), ("assist", 20, 10)]
    arguments = {name: args for _, _, name, _, _, args in slices(objects)}
    assert arguments["assist"] == {
        "debt_bytes": 4096, "credit_taken": 100, "work_done": 65536, "may_allocate_bytes": 2000,
    }  # fmt: skip
    assert arguments["Frame3"] == {"goroutine": 42, "started_at": "place 5", "stopped_by": "chan receive"}


def test_a_trace_that_begins_in_the_middle_begins_with_what_each_p_does():
    ps = [
        state(0, programs=[(3, "serve")], goroutine=(9, layout.TYPES_BASE + 64, 0)),
        state(1, is_parked=True),
    ]
    objects = made(
        (0, 50, records.TRACE_RUN_END, 9, 0),
        (1, 60, records.TRACE_PARK_END, 0, 0),
        ps=ps,
        end=100,
    )
    assert names(objects) == [("parked", 0, 60), ("serve", 0, 100), ("Frame1", 0.001, 49.999)]
    unfinished = [name for _, _, name, _, _, args in slices(objects) if args.get("unfinished")]
    assert unfinished == ["serve"]


def test_a_trace_that_begins_in_the_middle_of_a_cycle_begins_with_it():
    line = Timeline(BEGAN, PID)
    line.begin([], "mark phase", 6)
    line.add(COORDINATOR, BEGAN + 9_000, records.TRACE_CYCLE_MARKED, 6, 555)
    line.end(BEGAN + 10_000)
    assert [(name, began, took, args) for _, _, name, began, took, args in slices(line.out)] == [
        ("mark phase", 0, 9, {"cycle": 6, "marked_bytes": 555}),
        ("sweep phase", 9, 1, {"cycle": 6, "unfinished": True}),
    ]


def test_ends_of_what_began_before_the_trace_are_dropped_and_what_is_over_is_cut():
    objects = made(
        (0, 5, records.TRACE_WAIT_END, 0, 0),
        (0, 6, records.TRACE_RUN_END, 1, 0),
        (0, 10, records.TRACE_SWEPT, BEGAN - 500, 3),
    )
    assert slices(objects) == [(PID + 1, 1, "sweep", 0, 10, {"spans": 3})]


def test_what_a_killed_process_did_ends_with_it_and_its_successor_has_a_track_of_its_own():
    objects = made(
        (1, 10, records.TRACE_PROGRAM, 1, 0),
        (1, 20, records.TRACE_ASSIST, 1, 0),
        (COORDINATOR, 30, records.TRACE_DEATH, 1, 0),
        (COORDINATOR, 40, records.TRACE_REPAIR, 0, 0),
        (COORDINATOR, 45, records.TRACE_REPAIR_END, 0, 0),
        (1, 60, records.TRACE_PROCESS, 999, 0),
        (1, 70, records.TRACE_PROGRAM, 2, 0),
        (1, 80, records.TRACE_PROGRAM_END, 2, 0),
    )
    killed = [(pid, name, began, took) for pid, _, name, began, took, args in slices(objects) if args.get("killed")]
    assert sorted(killed) == [(PID + 2, "a program", 10, 20), (PID + 2, "assist", 20, 10)]
    assert [(o["pid"], o["ts"]) for o in objects if o["name"] == "a program" and o["pid"] == 999] == [(999, 70)]


def test_the_death_of_a_p_that_nobody_has_told_of_is_told():
    """It has come since the trace began, and died before anybody has looked for such."""
    objects = made((COORDINATOR, 10, records.TRACE_DEATH, 5, 0), (5, 20, records.TRACE_PROCESS, 999, 0))
    (death,) = [o for o in objects if o["name"] == "its process has died"]
    assert death["pid"] not in (0, PID, PID + 1, PID + 2, 999)
    tracks = {o["pid"]: o["args"]["name"] for o in objects if o["name"] == "process_name"}
    assert tracks[death["pid"]] == tracks[999] == "P5"


def test_what_is_known_of_a_p_before_its_process_is_not_lost():
    line = Timeline(BEGAN, PID)
    line.begin([])
    line.add(COORDINATOR, BEGAN + 5_000, records.TRACE_PROGRAM, 4, 3)
    line.open_p(3, 999)
    line.add(3, BEGAN + 7_000, records.TRACE_PARK, 0, 0)
    line.end(BEGAN + 10_000)
    assert names(line.out) == [("a program", 5, 0), ("parked", 7, 3)]


@pytest.mark.parametrize("is_told", [True, False])
def test_a_name_that_a_killed_process_had_begun_is_not_its_successors(is_told):
    """Whether its death is told, or lost in a gap."""
    death = [(COORDINATOR, 20, records.TRACE_DEATH, 0, 0)] if is_told else []
    objects = made(
        (0, 10, records.TRACE_TEXT, *TEXT_WORDS.unpack(b"the name of a pr")),
        *death,
        (0, 30, records.TRACE_PROCESS, 999, 0),
        (0, 40, records.TRACE_TEXT, *TEXT_WORDS.unpack(b"another".ljust(16, b"\0"))),
        (0, 40, records.TRACE_PROGRAM, 2, 0),
    )
    assert [name for name, *_ in names(objects)] == ["another"]


def test_what_a_p_does_when_the_trace_begins_is_shown_once_though_it_tells_it_too():
    """It was in Python, and has begun it just then."""
    objects = made(
        (0, 1, records.TRACE_PROGRAM, 3, 0),
        (0, 30, records.TRACE_PROGRAM_END, 3, 0),
        (1, 1, records.TRACE_PARK, 0, 0),
        (1, 40, records.TRACE_PARK_END, 0, 0),
        ps=[state(0, programs=[(3, "serve")]), state(1, is_parked=True)],
    )
    assert names(objects) == [("parked", 0, 40), ("serve", 0, 30)]


def test_a_program_of_which_only_the_coordinator_did_not_know_that_it_was_over_ends():
    """And not what its P has begun since."""
    objects = made(
        (0, 10, records.TRACE_PROGRAM, 4, 0),
        (COORDINATOR, 20, records.TRACE_PROGRAM_END, 3, 0),
        (0, 90, records.TRACE_PROGRAM_END, 4, 0),
        (1, 30, records.TRACE_PROGRAM_END, 5, 0),
        (COORDINATOR, 40, records.TRACE_PROGRAM_END, 5, 1),  # which its P has told itself
        (COORDINATOR, 50, records.TRACE_PROGRAM_END, 6, 1),
        ps=[state(0, programs=[(3, "old")]), state(1, programs=[(6, "idle since"), (5, "told")])],
    )
    assert names(objects) == [
        ("idle since", 0, 50),
        ("old", 0, 10),
        ("told", 0.001, 29.999),
        ("a program", 10, 80),
    ]


def test_what_a_p_runs_that_has_come_since_the_coordinator_tells():
    objects = made(
        (COORDINATOR, 10, records.TRACE_TEXT, *TEXT_WORDS.unpack(b"serve".ljust(16, b"\0"))),
        (COORDINATOR, 10, records.TRACE_PROGRAM, 4, 1),
        (1, 90, records.TRACE_PROGRAM_END, 4, 0),
    )
    assert [(pid, name, began, took) for pid, _, name, began, took, _ in slices(objects)] == [
        (PID + 2, "serve", 10, 80)
    ]


def test_a_gap_in_what_the_coordinator_tells_ends_the_cycle_and_the_stop_too():
    line = Timeline(BEGAN, PID)
    line.begin([])
    line.add(COORDINATOR, BEGAN + 10_000, records.TRACE_CYCLE, 1, records.GC_TRIGGER_HEAP)
    line.add(COORDINATOR, BEGAN + 20_000, records.TRACE_STOP, 0, 0)
    line.lose(COORDINATOR, 99)
    line.add(COORDINATOR, BEGAN + 90_000, records.TRACE_STOP, 0, 0)
    line.add(COORDINATOR, BEGAN + 95_000, records.TRACE_STOP_END, 0, 0)
    line.end(BEGAN + 100_000)
    assert line.lost == 99
    assert names(line.out) == [("mark phase", 10, 10), ("stop the world", 20, 0), ("stop the world", 90, 5)]
    gaps = {o["tid"]: o["ts"] for o in line.out if o["name"] == "99 events lost"}
    assert gaps == dict.fromkeys((module._MAIN, module._GC, module._STOPS), 20)


def test_what_comes_late_is_shown_after_what_was_shown_already():
    objects = made(
        (0, 10, records.TRACE_PROGRAM, 1, 0),
        (0, 30, records.TRACE_PROGRAM_END, 1, 0),
        (0, 20, records.TRACE_PARK, 0, 0),
        (0, 40, records.TRACE_PARK_END, 0, 0),
        (0, 50, records.TRACE_SWEPT, BEGAN + 35_000, 1),
    )
    assert names(objects) == [("a program", 10, 20), ("parked", 30, 10), ("sweep", 40, 10)]


def test_lost_events_are_counted_where_they_are_missing():
    line = Timeline(BEGAN, PID)
    line.begin([state(0)])
    line.add(0, BEGAN + 10_000, records.TRACE_PROGRAM, 1, 0)
    line.lose(0, 1234)
    line.add(0, BEGAN + 90_000, records.TRACE_PROGRAM_END, 1, 0)
    line.end(BEGAN + 100_000)
    assert line.lost == 1234
    assert [o["name"] for o in line.out if o["ph"] == "i"] == ["1,234 events lost"]
    assert names(line.out) == [("a program", 10, 0)]


def test_a_stop_says_what_it_is_for_and_how_long_it_took_to_stand():
    objects = made(
        (COORDINATOR, 10, records.TRACE_STOP, 0, 0),
        (COORDINATOR, 14, records.TRACE_STOPPED, 0, 0),
        (COORDINATOR, 15, records.TRACE_STOP_WHY | records.TRACE_TO_MARK << TRACE_DETAIL_SHIFT, 0, 0),
        (COORDINATOR, 18, records.TRACE_CYCLE, 5, records.GC_TRIGGER_HEAP),
        (COORDINATOR, 20, records.TRACE_STOP_END, 0, 0),
        (COORDINATOR, 50, records.TRACE_CYCLE_MARKED, 5, 777),
        (COORDINATOR, 60, records.TRACE_CYCLE_SWEPT, 5, 0),
    )
    assert [
        (name, began, took, args) for _, _, name, began, took, args in sorted(slices(objects), key=lambda s: s[3])
    ] == [
        ("stop the world: marking begins", 10, 10, {"stopping_us": 4}),
        ("mark phase", 18, 32, {"cycle": 5, "trigger": "heap", "marked_bytes": 777}),
        ("sweep phase", 50, 10, {"cycle": 5}),
    ]


def test_an_arrow_leads_from_who_wakes_to_who_runs():
    objects = made(
        (0, 10, records.TRACE_READY, 8, 0),
        (1, 15, records.TRACE_RUN, 8, 0),
        (1, 16, records.TRACE_RUN_END, 8, 0),
        (1, 20, records.TRACE_RUN, 8, 0),  # after its turn: nobody has woken it
    )
    assert [(o["ph"], o["pid"], o["ts"]) for o in objects if o["ph"] in "sf"] == [
        ("s", PID + 1, 10),
        ("f", PID + 2, 15),
    ]


@pytest.mark.parametrize("no_goal", [(1 << 63) - 1, 8946670875695453929])
def test_no_goal_is_not_shown_as_a_number(no_goal):
    line = Timeline(BEGAN, PID)
    line.count_heap(BEGAN, 4096, no_goal)
    assert [o["args"] for o in line.out if o["ph"] == "C"] == [{"live": 4096}]


KINDS = sorted(value for name, value in vars(records).items() if name.startswith("TRACE_") and name not in (
    "TRACE_EVENT", "TRACE_DETAIL_SHIFT", "TRACE_SITE_SHIFT", "TRACE_DETAILS", "TRACE_PROCESS",
) and not name.startswith(("TRACE_FOR_", "TRACE_TO_", "TRACE_DEDI", "TRACE_FRAC", "TRACE_IDLE", "TRACE_STAND")))  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 2, COORDINATOR]), st.integers(-3, 5), st.sampled_from(KINDS), st.integers(0, 8),
            st.integers(0, 2), st.integers(0, 2),
        ),
        max_size=60,
    )
)  # fmt: skip
def test_whatever_comes_is_strict_json_and_nested(steps):
    """Any events in any order, as after gaps and deaths, of Ps that nobody has told of, too; and some come late."""
    line = Timeline(BEGAN, PID)
    line.begin([state(0), state(1)])
    at = BEGAN
    for p, later, kind, detail, a, b in steps:
        at += later
        if kind in (records.TRACE_SWEPT, records.TRACE_SCAVENGED):
            a = at - 3 * a
        line.add(p, at, kind | detail << TRACE_DETAIL_SHIFT, a, b)
        if detail == 8:
            line.lose(p, 5)
    line.end(at + 10)
    objects = json.loads(json.dumps(line.out, allow_nan=False))
    check_nesting(objects)
    assert all(o["ts"] >= 0 and o.get("dur", 0) >= 0 for o in objects)
