"""Room on Python's stack: for who waits, and for programs that run above those that do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest

from gomp.errors import StackOverflow
from gomp.runtime.room import DEEPEST, check_room, make_room


@pytest.fixture(autouse=True)
def limit() -> Iterator[int]:
    """Python's, which is put back."""
    before = sys.getrecursionlimit()
    yield before
    sys.setrecursionlimit(before)


def below(frames: int, call: Callable[[], None]) -> None:
    """``call`` so many frames deeper."""
    if frames == 0:
        call()
    else:
        below(frames - 1, call)


def test_who_waits_too_deep_is_told_before_anything_has_begun(limit: int) -> None:
    below(limit // 2, check_room)
    with pytest.raises(RecursionError, match="a wait takes up to 128 frames"):
        below(limit - 100, check_room)


def test_each_program_has_as_much_room_as_python_gives_one() -> None:
    def program(others: int) -> None:
        make_room()
        below(800, check_room)
        if others > 0:
            below(400, lambda: program(others - 1))

    program(10)


def test_at_some_depth_no_other_begins(limit: int) -> None:
    def programs() -> None:
        make_room()
        below(500, programs)

    with pytest.raises(StackOverflow, match=f"are {DEEPEST:,} frames deep on this P"):
        programs()
    assert sys.getrecursionlimit() < DEEPEST + 2 * limit
