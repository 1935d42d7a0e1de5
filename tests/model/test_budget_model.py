"""The budget of commits, step by step: whatever comes between two steps of others, it never allows more than there is.

Each process is a generator that yields between two steps of ``gomp.core.shm.commit``, of which each reads or changes one word; a schedule says whose
turn it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

ROOM = 100


@dataclass
class Words:
    """Those of shared memory, and what there really is: ``room``. ``unseen``: bytes in the budget that are about to be returned; ``owed``: bytes that
    are out of it, and about to be in memory."""

    budget: int = ROOM
    taken: int = 0
    done: int = 0
    room: int = ROOM
    unseen: int = 0
    owed: int = 0


def commits(w: Words, size: int) -> Iterator[None]:
    """``commit_absent``."""
    budget = w.budget
    yield
    if budget < size:
        return
    w.taken += size
    yield
    while budget >= size and w.budget != budget:
        budget = w.budget
        yield
    if budget < size:
        w.done += size
        return
    w.budget -= size
    w.owed += size
    yield
    w.room -= size
    w.owed -= size
    yield
    w.done += size


def returns(w: Words, size: int) -> Iterator[None]:
    """``return_budget``, and a punch."""
    w.budget += size
    w.unseen += size
    yield
    w.room += size
    w.unseen -= size


def renews(w: Words, times: int) -> Iterator[None]:
    """The coordinator: looks, and ``renew_budget``."""
    for _ in range(times):
        before = w.done
        yield
        room = w.room
        yield
        budget = w.budget
        yield
        taken = w.taken
        yield
        w.budget += max(room - (taken - before), 0) - budget
        yield


sizes = st.integers(1, 60)


@given(
    st.lists(sizes, max_size=4),
    st.lists(sizes, max_size=3),
    st.integers(1, 4),
    st.lists(st.integers(0, 7), max_size=80),
)
def test_it_never_allows_more_than_there_is(committed, returned, looks, schedule):
    w = Words()
    processes = [renews(w, looks), *(commits(w, n) for n in committed), *(returns(w, n) for n in returned)]
    for turn in [*schedule, *[0] * 100] + [i for i in range(8) for _ in range(20)]:
        if turn < len(processes):
            next(processes[turn], None)
        assert w.budget + w.owed <= w.room + w.unseen
    assert w.done == w.taken
    last = renews(w, 1)
    for _ in last:
        pass
    assert w.budget == w.room  # and when nothing is on its way, nothing is missing
