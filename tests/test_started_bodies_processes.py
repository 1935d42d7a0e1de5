"""Goroutines whose body is Python, started by compiled code, in runtimes of their own: declared anew, failing, on Ps that are killed."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

import gomp
from gomp.runtime.fingerprint import Survey

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


async def says_where(out: gomp.Chan[int]) -> None:
    await out.sending(os.getpid())


@gomp.compiled
def starts_and_loops(out: gomp.Chan[int], n: int, rounds: int) -> int:
    for _ in range(n):
        gomp.go(says_where, out)
    x = 1
    for _ in range(rounds):
        x = x * 1103515245 + 12345 & 0x7FFFFFFF
    return x


def test_a_p_within_a_program_leaves_them_to_others() -> None:
    with gomp.Runtime(procs=2) as rt:
        out = gomp.Chan[int](500)
        rt.run(starts_and_loops, out, 1, 1)
        out.recv(timeout=WAIT_S)
        program = rt.go(starts_and_loops, out, 200, 1_000_000_000)
        where = {out.recv(timeout=WAIT_S) for _ in range(200)}
        assert len(where) == 1
        with pytest.raises(TimeoutError):
            program.wait(timeout=0)


log = logging.getLogger(__name__)
SETTINGS = {"factor": 2}


def test_what_a_body_names_is_no_business_of_the_machine_code(rt_alone: gomp.Runtime) -> None:
    def body(out: gomp.Chan[int], n: int) -> Generator[Any, Any, None]:
        log.debug("it names a logger and a dict")
        yield out.sending(n * SETTINGS["factor"])

    def start(out: gomp.Chan[int], n: int) -> int:
        return gomp.go(body, out, n)

    assert Survey(start).certain
    out = gomp.Chan[int](1)
    gomp.compiled(start)(out, 3)
    assert out.recv(timeout=WAIT_S) == 6


@pytest.fixture
def rt_alone() -> Iterator[gomp.Runtime]:
    with gomp.Runtime(procs=1) as rt:
        yield rt


def written(directory: Path, text: str) -> Any:
    """A module of its own that has this text, whatever it had before."""
    (directory / "bodies_on_disk.py").write_text(text)
    sys.modules.pop("bodies_on_disk", None)
    importlib.invalidate_caches()
    return importlib.import_module("bodies_on_disk")


def add_to_path(directory: str) -> None:
    sys.path.insert(0, directory)


START = "import gomp\n{}\n@gomp.compiled\ndef start(out: gomp.Chan[int]) -> int:\n    return gomp.go(body, out, 3)\n"


def test_a_program_of_the_cache_starts_what_the_name_means_now(
    rt_alone: gomp.Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    out = gomp.Chan[int](1)
    rt_alone.run(add_to_path, str(tmp_path))
    written(tmp_path, START.format("async def body(out, n): await out.sending(n)")).start(out)
    assert out.recv(timeout=WAIT_S) == 3
    for changed, message in (
        ("async def body(out, n, more): await out.sending(n)", "missing a required argument: 'more'"),
        ("def body(out, n): return n", "with what a function makes that yields or awaits"),
    ):
        with pytest.raises(gomp.CompileError, match=message):
            written(tmp_path, START.format(changed)).start(out)


TWICE = """
import gomp

async def body(out): await out.sending(1)

first = body

async def body(out): await out.sending(2)

@gomp.compiled
def start(out: gomp.Chan[int]) -> int:
    return gomp.go(first, out) + gomp.go(body, out)
"""


def test_two_functions_of_one_name_are_two(
    rt_alone: gomp.Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    out = gomp.Chan[int](2)
    rt_alone.run(add_to_path, str(tmp_path))
    written(tmp_path, TWICE).start(out)
    assert {out.recv(timeout=WAIT_S), out.recv(timeout=WAIT_S)} == {1, 2}
    sys.modules.pop("bodies_on_disk")
