"""A ring of events that is read, or whose process is killed, between any two lines of its writer; and written between any two lines of its reader.

Runs with ``NUMBA_DISABLE_JIT=1``.
"""

from __future__ import annotations

import pytest
from heap_world import heap_world
from killed import kill_at, lines_of

from gomp.core import COMPILED
from gomp.core.shm import layout, tracing
from gomp.runtime.traces import Rings

if COMPILED:
    pytest.skip("needs NUMBA_DISABLE_JIT=1", allow_module_level=True)

EVENTS = 8


@pytest.fixture(autouse=True)
def telling(monkeypatch):
    """This process is P 0 and tells, into a ring of few events."""
    monkeypatch.setattr(layout, "TRACE_EVENTS", EVENTS)
    with heap_world(1):
        tracing.begin_tracing(layout.p_addr(0))
        yield


def tell(*numbers):
    """Events that agree with themselves."""
    for number in numbers:
        tracing.tell_at(number, 1000 + number, 2000 + number, 3000 + number)


def read(rings):
    """The numbers of what comes, each of which is whole; and how many are lost before."""
    lost, events = rings.take(0)
    numbers = [int(n) for n in events["at_ns"]]
    for name, base in (("what", 1000), ("a", 2000), ("b", 3000)):
        assert [int(n) - base for n in events[name]] == numbers
    return lost, numbers


@pytest.mark.parametrize("before", [0, 3, EVENTS, EVENTS + 1])
def test_whoever_is_killed_while_he_tells_leaves_whole_events(before):
    total = len(lines_of(lambda: tell(99)))
    for n in range(total):
        first = int(tracing.count_events(0))
        tell(*range(before))
        kill_at(lambda: tell(99), n)
        lost, numbers = read(Rings({0: first}))
        assert numbers in ([*range(before)][lost:], [*range(before), 99][lost:])
        tell(7)
        assert read(Rings({0: int(tracing.count_events(0)) - 1})) == (0, [7]), "its successor goes on"


@pytest.mark.parametrize("before", [0, 3, EVENTS, EVENTS + 1])
def test_who_reads_in_the_middle_of_a_line_gets_whole_events(before):
    total = len(lines_of(lambda: tell(99)))
    for n in range(total):
        rings = Rings({0: int(tracing.count_events(0))})
        tell(*range(before))
        found = []
        kill_at(lambda: tell(99), n, lambda rings=rings, found=found: found.append(read(rings)))
        found.append(read(rings))
        lost, numbers = sum(lost for lost, _ in found), [number for _, numbers in found for number in numbers]
        assert numbers == [*range(before), 99][lost:]


@pytest.mark.parametrize("meanwhile", [1, 3, EVENTS - 1, EVENTS, EVENTS + 3])
def test_what_is_overwritten_while_it_is_read_is_dropped_and_counted(meanwhile):
    def prepared():
        rings = Rings({0: int(tracing.count_events(0))})
        tell(*range(EVENTS))
        return rings

    first = prepared()
    total = len(lines_of(lambda: read(first)))
    for n in range(total):
        rings = prepared()
        found = []
        kill_at(
            lambda rings=rings, found=found: found.append(read(rings)), n, lambda: tell(*range(100, 100 + meanwhile))
        )
        found.append(read(rings))
        everything = [*range(EVENTS), *range(100, 100 + meanwhile)]
        assert sum(lost + len(numbers) for lost, numbers in found) == len(everything)
        numbers = [number for _, numbers in found for number in numbers]
        assert numbers == [number for number in everything if number in numbers]
