"""What a script has compiled is found by its next run, whose classes are others: what a program returns is of the run's own.

And before a P compiles, there is memory for it.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest

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


@pytest.mark.parametrize(("left", "asked"), [(8 << 20, ["free_os_memory"]), (64 << 20, []), (1 << 62, [])])
def test_where_the_cgroup_has_little_left_the_heap_makes_room_for_a_compiler(monkeypatch, left, asked):
    found = []
    peer = SimpleNamespace(ask=lambda op, **parameters: found.append(op))
    monkeypatch.setattr(program_cache, "budget_left", lambda: left)
    monkeypatch.setattr(program_cache.current, "peer", lambda: peer)
    program_cache.make_room()
    assert found == asked
