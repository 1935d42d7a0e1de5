"""Where goroutines were started, and where each of their frames stands, as shared memory has it."""

from __future__ import annotations

import inspect
import time

import numpy as np
import pytest

import gomp
from gomp.core.heap.stack import innermost
from gomp.core.shm import layout
from gomp.core.shm.records import (
    FRAME_CALLER,
    FRAME_LINE,
    FRAME_TYPE,
    SCHED,
    g_dtype,
    sched_dtype,
    type_dtype,
    view,
)
from gomp.runtime.sitetable import site_of, site_with_key


@gomp.frame
class Waits:
    ch: gomp.Chan[int]
    has_waited: bool

    def step(f) -> gomp.Action:
        if f.has_waited:
            return f.ret()
        f.has_waited = True
        return f.recv(f.ch)


@gomp.frame
class Outer:
    ch: gomp.Chan[int]
    has_called: bool

    def step(f) -> gomp.Action:
        if f.has_called:
            return f.ret()
        f.has_called = True
        return f.call(Waits, ch=f.ch)


@gomp.frame
class Starts:
    ch: gomp.Chan[int]

    def step(f) -> gomp.Action:
        gomp.go(Outer, ch=f.ch)
        return f.ret()


@gomp.frame
class Nothing:
    def step(f) -> gomp.Action:
        return f.ret()


@gomp.compiled
def start(ch: gomp.Chan[int]) -> None:
    gomp.go(Nothing)
    gomp.go(Outer, ch=ch)


@gomp.compiled
def receive(ch: gomp.Chan[int]) -> int:
    return ch.recv()


def line_in(function, text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


def waiting():
    return [g.id for g in gomp.debug.goroutines() if g.wait_reason == "chan receive"]


def wait_for(n: int) -> None:
    deadline = time.monotonic() + 10
    while len(waiting()) != n:
        assert time.monotonic() < deadline, gomp.debug.goroutines()
        time.sleep(0.005)


def record(goid: int) -> tuple[int, object]:
    n = int(view(sched_dtype, SCHED)[0].ngs)
    number = 1 + next(i for i, g in enumerate(view(g_dtype, layout.g_addr(1), n)) if int(g.id) == goid)
    return layout.g_addr(number), view(g_dtype, layout.g_addr(number))[0]


def read_words(addr: int, kind: str, n: int):
    return view(np.dtype([("w", kind, (n,))]), addr)[0].w


@pytest.mark.parametrize(
    ("begin", "function", "text"),
    [
        (lambda rt, ch: gomp.go(Outer, ch=ch), None, "lambda rt, ch: gomp.go"),
        (lambda rt, ch: start(ch), start, "gomp.go(Outer"),
        (lambda rt, ch: rt.run(start, ch), start, "gomp.go(Outer"),
        (lambda rt, ch: gomp.go(Starts, ch=ch), Starts.step, "gomp.go"),
    ],
)
def test_a_goroutine_knows_where_it_was_started(rt, begin, function, text):
    ch = gomp.Chan[int]()
    begin(rt, ch)
    wait_for(1)
    _at, g = record(waiting()[0])
    site = site_of(int(g.site))
    source = function.py_func if hasattr(function, "py_func") else function
    if source is not None:
        assert site.line == line_in(source, text)
        assert site.function.endswith(source.__qualname__)
    assert site.file == __file__
    ch.close()
    wait_for(0)


def test_each_frame_knows_the_line_of_its_last_action(rt):
    ch = gomp.Chan[int]()
    gomp.go(Outer, ch=ch)
    wait_for(1)
    at, _ = record(waiting()[0])
    frame, found = int(innermost(at)), []
    while frame:
        key = int(view(type_dtype, int(read_words(frame + FRAME_TYPE, "i8", 1)[0]))[0].key)
        found.append((site_with_key(key).function, int(read_words(frame + FRAME_LINE, "i4", 1)[0])))
        frame = int(read_words(frame + FRAME_CALLER, "i8", 1)[0])
    assert found == [
        ("Waits.step", line_in(Waits.step, "f.recv")),
        ("Outer.step", line_in(Outer.step, "f.call")),
    ]
    ch.close()
    wait_for(0)


def test_programs_that_wait_are_where_they_wait(rt):
    ch = gomp.Chan[int]()
    waiter = rt.go(receive, ch)
    wait_for(1)
    site = site_of(int(record(waiting()[0])[1].site))
    assert (site.line, site.function) == (line_in(receive.py_func, "ch.recv"), "receive")
    ch.send(7)
    wait_for(0)
    assert waiter.wait() == 7
