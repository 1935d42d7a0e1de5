"""What a script has compiled is found by its next run, whose classes are others: what a program returns is of the run's own.

And before a P compiles, there is memory for it.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest

from gomp.errors import CompileError
from gomp.runtime import program_cache

SCRIPT = """
import time
import gomp

@gomp.struct
class Node:
    next: "Node"
    value: int

First = Node

@gomp.struct
class Node:
    next: "Node"
    value: int

Table = gomp.Map[int, Node]

@gomp.compiled
def first(): return gomp.new(First, None, {nonce})

@gomp.compiled
def second(): return gomp.new(Node, None, {nonce})

@gomp.compiled
def what_follows(node): return node.next if node.next is not None else node

@gomp.compiled
def array(n: int): return gomp.array(Node, n + {nonce} % 2)

@gomp.compiled
def kept(node): return gomp.weak(node)

@gomp.compiled
def table_of_tables(n: int): return gomp.array(Table, n + {nonce} % 2)

@gomp.compiled
def count(n: int): return n + {nonce}

@gomp.compiled
def view(x): return x

ended = []

def tell(what): ended.append(what.value if type(what) is Node else what)

@gomp.compiled
def tell_compiled(what: Node): what.value += {nonce}

@gomp.compiled
def watched(n: int):
    for i in range(n):
        node = gomp.new(Node, None, i)
        gomp.set_finalizer(node, tell)
        gomp.add_cleanup(gomp.new(Node), tell, {nonce})
        gomp.set_finalizer(gomp.new(Node), tell_compiled)

def functions_are_called():
    watched(1)
    gomp.gc()
    until = time.monotonic() + 10
    while len(ended) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    return sorted(ended)

def on_a_p():
    return functions_are_called() == [0, {nonce}] and type(second()) is Node and type(kept(second()).value()) in (Node, type(None))

with gomp.Runtime(procs=1, max_heap="64MiB") as rt:
    node = second()
    answers = [
        type(first()) is First, type(node) is Node, type(what_follows(node)) is Node, type(what_follows(first())) is First,
        type(array(3)) is gomp.Array[Node], type(kept(node).value()) is Node, len(table_of_tables(3)) >= 3,
        count(1) == 1 + {nonce}, type(view(gomp.ndarray(3))) is type(gomp.ndarray(3)), rt.go(on_a_p).wait(),
        functions_are_called() == [0, {nonce}],
    ]
print(answers)
"""


def test_every_run_of_a_script_gets_its_own_classes():
    script = SCRIPT.format(nonce=uuid.uuid4().int >> 66)
    for run in ("compiled", "from the cache"):
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=100, cwd=Path(__file__).parents[2]
        )
        assert (done.stdout.strip(), done.stderr) == (str([True] * 11), ""), run


def test_those_who_want_the_same_program_take_turns(tmp_path):
    file, waits, entered = tmp_path / "program.pickle", threading.Event(), []

    def second():
        waits.set()
        with program_cache.turn(file):
            entered.append(file.exists())

    other = threading.Thread(target=second)
    with program_cache.turn(file):
        other.start()
        waits.wait()
        time.sleep(0.05)
        assert entered == []
        with program_cache.turn(tmp_path / "another.pickle"):
            file.touch()
    other.join()
    assert entered == [True]
    assert [left.name for left in tmp_path.iterdir()] == ["program.pickle"]


def test_nobody_waits_for_a_turn_for_good(tmp_path, monkeypatch):
    monkeypatch.setattr(program_cache, "_DEADLINE_S", 0.05)
    file = tmp_path / "program.pickle"
    with program_cache.turn(file), program_cache.turn(file):
        pass


@pytest.mark.parametrize(
    ("left", "asked"), [(8 << 20, ["free_os_memory"]), (64 << 20, ["free_os_memory"]), (96 << 20, []), (1 << 62, [])]
)
def test_where_the_cgroup_has_little_left_the_heap_makes_room_for_a_compiler(monkeypatch, left, asked):
    found = []
    peer = SimpleNamespace(ask=lambda op, **parameters: found.append(op))
    monkeypatch.setattr(program_cache, "budget_left", lambda: left)
    monkeypatch.setattr(program_cache.current, "peer", lambda: peer)
    program_cache.make_room()
    assert found == asked


class FullCgroup:
    """Somebody meets its limit whenever somebody looks."""

    def __init__(self) -> None:
        self.met = 41_000_000

    def limit(self) -> int:
        return 256 << 20

    def events(self) -> dict[str, int]:
        self.met += 1_234_567
        return {"max": self.met, "oom_kill": 0}


@pytest.mark.parametrize(
    ("level", "why"),
    [
        (None, ""),
        (SimpleNamespace(events=dict), ""),
        (
            FullCgroup(),
            ": its cgroup's memory is full, and the limit of 256.0 MiB was met 1,234,567 times meanwhile; a compiler needs about 88 MiB: "
            "give the container more, or compile ahead with `gomp kernels MODULE`",
        ),
    ],
)
def test_a_compiler_that_does_not_get_done_is_ended_and_it_is_said_whether_there_was_memory(monkeypatch, level, why):
    cgroup = SimpleNamespace(strictest=lambda: level, headroom=lambda: None)
    monkeypatch.setattr(program_cache.MemoryCgroup, "of_this_process", lambda: cgroup)
    monkeypatch.setattr(program_cache, "_DEADLINE_S", 0.1)
    with pytest.raises(CompileError) as raised:
        program_cache.do_in_child(lambda: time.sleep(60))
    assert re.sub(r"pid \d+", "pid 1", str(raised.value)) == f"the compiler (pid 1) was not done within 0 s{why}"


def test_where_the_system_allows_no_more_processes_that_is_said_and_nothing_is_left(monkeypatch):
    def refuse():
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(CompileError, match=r"^no compiler can be started: Resource temporarily unavailable$"):
        program_cache.do_in_child(lambda: None)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(("headroom", "reads_little"), [(None, False), (4 << 30, False), (90 << 20, True)])
def test_where_memory_is_short_a_compiler_reads_little_at_a_time(monkeypatch, headroom, reads_little):
    cgroup = SimpleNamespace(strictest=lambda: None, headroom=lambda: headroom)
    monkeypatch.setattr(program_cache.MemoryCgroup, "of_this_process", lambda: cgroup)
    told = []
    monkeypatch.setattr(program_cache, "read_little", lambda: told.append(1))

    def work() -> None:
        raise CompileError(f"{len(told)} time")

    with pytest.raises(CompileError, match=f"^{int(reads_little)} time$"):
        program_cache.do_in_child(work)
