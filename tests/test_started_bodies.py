"""Steps and compiled functions start goroutines whose body is Python: ``gomp.go(function, ...)``."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import pytest

import gomp
from tests.chan_load import wait_until_none

WAIT_S = 20


@gomp.struct
class Item:
    value: int


def say(
    out: gomp.Chan[Item], item: Item, n: int, x: float, ok: bool, *, nothing: Any, factor: int = 1
) -> Generator[Any, Any, None]:
    assert (type(n), type(x), type(ok), nothing) == (int, float, bool, None)
    yield
    item.value += round(n * x * factor) if ok else 0
    yield out.sending(item)


async def count_down(out: gomp.Chan[int], n: int) -> None:
    for i in range(n, 0, -1):
        await out.sending(i)


@gomp.frame
class Says:
    out: gomp.Chan[Item]
    n: int

    def step(f) -> gomp.Action:
        if f.n == 0:
            return f.ret()
        gomp.go(say, f.out, gomp.new(Item, value=1000 * f.n), f.n, 0.5, f.n % 4 != 0, factor=2, nothing=None)
        f.n -= 1
        return f.yield_()


def test_a_step_starts_them(rt: gomp.Runtime) -> None:
    out, before = gomp.Chan[Item](), gomp.num_goroutine()
    gomp.go(Says, out=out, n=100)
    rt.gc()  # what they are given is in their frames, and then in Python's hands
    got = sorted(out.recv(timeout=WAIT_S).value for _ in range(100))
    assert got == [1000 * n + (n if n % 4 else 0) for n in range(1, 101)]
    wait_until_none()
    deadline = time.monotonic() + WAIT_S
    while gomp.num_goroutine() != before:  # a body whose send is taken has yet to be resumed, to end
        assert time.monotonic() < deadline, gomp.debug.goroutines()
        time.sleep(0.005)
    rt.verify()


@gomp.compiled
def counts(out: gomp.Chan[int], n: int) -> int:
    return gomp.go(count_down, out, n)


@pytest.mark.parametrize("where", ["script", "P"])
def test_a_compiled_function_starts_them(rt: gomp.Runtime, where: str) -> None:
    out = gomp.Chan[int]()
    goid = counts(out, 5) if where == "script" else rt.run(counts, out, 5)
    assert goid > 0
    assert [out.recv(timeout=WAIT_S) for _ in range(5)] == [5, 4, 3, 2, 1]


@gomp.frame
class Labelled:
    out: gomp.Chan[int]

    def step(f) -> gomp.Action:
        gomp.go(count_down, f.out, 1)
        return f.ret()


def test_they_go_by_the_number_that_they_began_with(rt: gomp.Runtime) -> None:
    out, others = gomp.Chan[int](), {g.id for g in gomp.debug.goroutines()}
    parent = gomp.go(Labelled, out=out, labels={"kind": "example"})
    deadline, found = time.monotonic() + WAIT_S, []
    while [g.status for g in found] != ["waiting"]:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
        found = [g for g in gomp.debug.goroutines() if g.id not in others]
    (body,) = found
    assert (body.parent, dict(body.labels), body.wait_reason) == (parent, {"kind": "example"}, "chan send")
    assert body.created_at.function == "Labelled.step"
    assert [f.function for f in body.frames] == ["count_down"]
    assert out.recv(timeout=WAIT_S) == 1


def many(*given: int) -> Generator[Any, Any, None]:
    yield


def plain(out: int) -> int:
    return out


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (lambda n: gomp.go(count_down, n), r"gomp.go\(count_down, ...\): missing a required argument: 'n'"),
        (lambda n: gomp.go(count_down, n, n, m=n), r"gomp.go\(count_down, ...\): got an unexpected keyword argument 'm'"),
        (lambda n: gomp.go(count_down, (n, n), n), r"argument 1 of gomp.go\(count_down, ...\) cannot be UniTuple.*: use a number"),
        (lambda n: gomp.go(count_down, n, n=str(n)), r"argument n of gomp.go\(count_down, ...\) cannot be unicode_type"),
        (lambda n: gomp.go(count_down, n, n, labels=None), "labels= is given from Python"),
        (lambda n: gomp.go(plain, n), r"gomp.go\(function, ...\) one with what a function makes that yields or awaits"),
    ],
)  # fmt: skip
def test_what_cannot_be_started(rt: gomp.Runtime, start: Any, message: str) -> None:
    with pytest.raises(gomp.CompileError, match=message):
        gomp.compiled(start)(1)


def test_as_many_arguments_as_there_is_room_for(rt: gomp.Runtime) -> None:
    for n in (64, 65):
        given = ", ".join("n" * n)
        scope: dict[str, Any] = {"gomp": gomp, "many": many}
        exec(f"def start(n):\n    return gomp.go(many, {given})\n", scope)
        if n == 64:
            assert gomp.compiled(scope["start"])(1) > 0
        else:
            with pytest.raises(gomp.CompileError, match="more than 64 arguments: give it a struct that holds them"):
                gomp.compiled(scope["start"])(1)
