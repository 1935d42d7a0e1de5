"""What goes wrong in the middle of an operation leaves no slot taken, and no reference to what is gone."""

from __future__ import annotations

import threading

import pytest

import gomp
from tests.free_slots import free_slots


@gomp.struct
class Node:
    value: int


def keep_what_nobody_knows() -> None:
    @gomp.struct
    class Hidden:
        value: int

    gomp.globals["map"]["key"] = gomp.new(Hidden, value=3)
    gomp.globals["hidden"] = gomp.new(Hidden, value=4)


def test_a_value_of_a_type_that_is_not_known_here_stays_where_it_is():
    with gomp.Runtime(procs=1) as rt:
        m = gomp.globals["map"] = gomp.map()
        rt.run(keep_what_nobody_knows)
        free = free_slots()
        for read in (lambda: m["key"], lambda: m.pop("key"), lambda: gomp.globals["hidden"]):
            for _ in range(3):
                with pytest.raises(TypeError, match="has not declared"):
                    read()
        assert (len(m), free_slots()) == (1, free)


def test_a_walk_over_the_globals_ends_with_its_runtime():
    with gomp.Runtime(procs=1):
        gomp.globals["one"] = gomp.globals["two"] = gomp.new(Node)
        names = iter(gomp.globals)
        assert next(names) == "one"
    with pytest.raises(gomp.RuntimeLost):
        next(names)


class Longer(bytes):
    def __len__(self) -> int:
        return 60_000


class Other(str):
    __slots__ = ()

    def encode(self, *how: str) -> list[int]:  # type: ignore[override]
        return [1] * 1000


def test_a_key_is_what_it_holds_and_not_what_it_says():
    with gomp.Runtime(procs=1):
        m = gomp.map(Node)
        m[Longer(b"ab")] = m[Other("q")] = gomp.new(Node, value=1)
        assert set(m) == {b"ab", "q"}
        assert m[b"ab"].value == m["q"].value == 1


def test_a_thread_that_cannot_start_is_told_of_and_the_next_one_starts(monkeypatch):
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if thread.name.startswith("gomp-finalizer"):
            raise RuntimeError("can't start new thread")
        start(thread)

    with gomp.Runtime(procs=1) as rt:
        ran = threading.Event()
        node = gomp.new(Node)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refused)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                gomp.set_finalizer(node, lambda _: None)
        gomp.set_finalizer(node, lambda _: ran.set())
        del node
        rt.gc()
        rt.gc()
        assert ran.wait(10)
