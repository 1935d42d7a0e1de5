"""Ctrl-C anywhere in the turns of Python's goroutines: it ends at most the one whose turn it is, and what that has begun is closed."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from interrupting import interrupted

import gomp
from gomp.runtime import compiled, coroutines
from gomp.runtime.here import here


@pytest.fixture(scope="module")
def rt():
    with gomp.Runtime(procs=1) as runtime:
        yield runtime


@gomp.frame
class Nothing(gomp.Frame[None]):
    def step(f) -> gomp.Action:
        return f.ret()


def turns(ended: list[int]) -> Generator[None, None, int]:
    try:
        for _ in range(3):
            yield
        return 1
    finally:
        ended.append(1)


def outcome(started: Any) -> Any:
    try:
        return started.wait(1)
    except KeyboardInterrupt:
        return KeyboardInterrupt


def test_an_interruption_ends_the_goroutine_whose_turn_it_is_and_no_other(rt) -> None:
    n, again = 1, True
    kept: list[Any] = []  # one that dies may lose what comes meanwhile
    while again:
        ended: list[int] = []
        begun = [gomp.go(turns(ended)) for _ in range(2)]
        kept += begun
        again = interrupted(lambda: [started.wait() for started in begun], n)  # noqa: B023
        assert here.wake is None
        assert not coroutines._running
        assert sorted(map(outcome, begun), key=str) in ([1, 1], [1, KeyboardInterrupt]), f"after the {n}th place"
        assert not coroutines.is_any()
        n += 1
    assert n > 50


def test_a_body_is_closed_that_has_yielded_what_is_interrupted(rt) -> None:
    ended: list[int] = []

    class Interrupted:
        def __await__(self) -> Generator[None, None, None]:
            yield
            raise KeyboardInterrupt

    def body() -> Generator[Any, None, None]:
        try:
            yield Interrupted()
        finally:
            ended.append(1)

    started = gomp.go(body())
    with pytest.raises(KeyboardInterrupt):
        started.wait()
    assert ended == [1]


def test_a_group_does_not_count_what_is_interrupted_while_it_is_compiled(rt, monkeypatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    group = gomp.WaitGroup()
    monkeypatch.setattr(compiled.Compiled, "program", interrupt)
    with pytest.raises(KeyboardInterrupt):
        group.go(Nothing)
    assert group.pending == 0
