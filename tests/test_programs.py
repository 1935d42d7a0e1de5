"""Calls and their outcomes, as they cross from one process to another."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import sys
import weakref
from collections.abc import Callable

import pytest

from gomp.errors import ConfigError, ProgramError
from gomp.runtime.programs import MAX_NAME, Call, dump_outcome, load_outcome


def double(x: int) -> int:
    return 2 * x


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("binary_trees", "binary_trees"),
        ("x" * 1000, "x" * MAX_NAME),
        (double, "double"),
        (functools.partial(len, b"x" * (1 << 20)), "partial"),
    ],
    ids=["program", "long", "function", "partial"],
)
def test_a_call_has_a_short_name(target: object, name: str) -> None:
    assert str(Call(target)) == name  # type: ignore[arg-type]


def test_a_program_is_given_what_its_annotations_say() -> None:
    with pytest.raises(ConfigError, match=r"binary_trees: depth='deep': give a valid integer"):
        Call("binary_trees", kwargs={"depth": "deep"}).run()
    with pytest.raises(ConfigError, match="mixed: sizes=3: give a valid dictionary"):
        Call("mixed", kwargs={"sizes": 3}).run()


class TwoArguments(Exception):
    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")


def fail() -> None:
    raise TwoArguments("here", "because")


def test_an_exception_that_cannot_be_unpickled_arrives_as_text_with_its_traceback() -> None:
    with pytest.raises(ProgramError, match="TwoArguments: here: because") as caught:
        load_outcome(*dump_outcome(fail)[:2])
    assert "in fail" in caught.value.remote_traceback
    assert "in fail" in str(caught.value.__cause__)


def test_a_failure_that_is_handled_keeps_nothing_of_who_waited_for_it() -> None:
    class Held:
        pass

    def wait() -> None:
        held = Held()
        held_by_frame.append(weakref.ref(held))
        load_outcome(*dump_outcome(fail)[:2])

    held_by_frame: list[weakref.ref[Held]] = []
    gc.disable()
    try:
        with contextlib.suppress(Exception):
            wait()
        assert held_by_frame[0]() is None
    finally:
        gc.enable()


def cancel() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("call", "message"),
    [(sys.exit, "SystemExit"), (lambda: sys.exit("enough"), "SystemExit: enough"), (cancel, "asyncio.exceptions.CancelledError")],
    ids=["exit", "exit with a text", "cancelled"],
)  # fmt: skip
def test_what_would_end_a_process_fails_the_goroutine(call: Callable[[], None], message: str) -> None:
    with pytest.raises(ProgramError) as caught:
        load_outcome(*dump_outcome(call)[:2])
    assert str(caught.value) == message
    assert caught.value.remote_traceback.startswith("Traceback")
