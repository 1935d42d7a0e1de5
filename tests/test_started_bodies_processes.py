"""Goroutines whose body is Python, started by compiled code, in runtimes of their own: declared anew, failing, on Ps that are killed."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest

import gomp

WAIT_S = 20


async def count_down(out: gomp.Chan[int], n: int) -> None:
    for i in range(n, 0, -1):
        await out.sending(i)


@gomp.compiled
def counts(out: gomp.Chan[int], n: int) -> int:
    return gomp.go(count_down, out, n)


def saying(word: int) -> tuple[Any, Callable[..., Any]]:
    """A frame and a function, declared anew each time under the same names, which say what they were made with."""

    def body(out: gomp.Chan[int]) -> Generator[Any, Any, None]:
        yield out.sending(word)

    @gomp.frame
    class Starts:
        out: gomp.Chan[int]

        def step(f) -> gomp.Action:
            gomp.go(body, f.out)
            return f.ret()

    return Starts, body


def test_what_is_declared_anew_does_what_it_says_now() -> None:
    with gomp.Runtime(procs=2) as rt:
        out = gomp.Chan[int](64)
        for word in (1, 2):
            starts, _ = saying(word)
            for _ in range(50):
                gomp.go(starts, out=out)
            assert {out.recv(timeout=WAIT_S) for _ in range(50)} == {word}
        rt.verify()


def fails(out: gomp.Chan[int]) -> Generator[Any, Any, None]:
    yield out.sending(7)
    raise ValueError("as it should")


@gomp.compiled
def start_failing(out: gomp.Chan[int]) -> int:
    return gomp.go(fails, out)


def test_what_it_raises_is_logged(capfd: pytest.CaptureFixture[str]) -> None:
    with gomp.Runtime(procs=1):
        out = gomp.Chan[int]()
        goid = start_failing(out)
        assert out.recv(timeout=WAIT_S) == 7
        deadline, said = time.monotonic() + WAIT_S, ""
        while "as it should" not in said:
            assert time.monotonic() < deadline, said
            time.sleep(0.01)
            said += "".join(capfd.readouterr())
    assert f"goroutine {goid} (fails) has ended with an exception" in said


async def dies(pids: gomp.Chan[int]) -> None:
    await pids.sending(os.getpid())
    await gomp.Chan[int]().receiving()


@gomp.compiled
def start_dying(pids: gomp.Chan[int], n: int) -> None:
    for _ in range(n):
        gomp.go(dies, pids)


def test_a_p_with_some_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "gomp")
    with gomp.Runtime(procs=2) as rt:
        pids, out = gomp.Chan[int](), gomp.Chan[int]()
        for _ in range(3):
            start_dying(pids, 50)
            os.kill(pids.recv(timeout=WAIT_S), signal.SIGKILL)
            counts(out, 3)
            assert [out.recv(timeout=WAIT_S) for _ in range(3)] == [3, 2, 1]
            assert rt.verify(3).startswith("verified")
