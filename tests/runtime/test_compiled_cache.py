"""Programs that come from the cache, from a child, and from another process."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from some_programs import ROOT, Node, Wide, build, count

import gomp
from gomp.errors import CompileError
from gomp.runtime import compiled as compiled_module
from gomp.runtime.compiled import compiled
from gomp.runtime.root_table import globals as roots
from gomp.runtime.structs import new


def refusal(function, *args):
    with pytest.raises(CompileError) as caught:
        compiled(function)(*args)
    message = str(caught.value)
    assert "\n" not in message
    assert "test_compiled_cache.py:" in message
    return message


def test_programs_come_from_the_cache(heap, monkeypatch):
    def make():
        @compiled
        def tally(node: Node, root: int):
            ROOT.set(node)
            if root < 0:
                raise ValueError("negative")
            return new(Wide, f0=node, f1=count(node) + root)

        return tally

    tree = build(3)
    first = make()(tree, 1)
    monkeypatch.setattr(compiled_module.Compiled, "compile_for", None)
    second = make()(tree, 2)
    assert (first.f1, second.f1) == (16, 17)
    assert type(second) is Wide
    assert second.f0 == tree
    with pytest.raises(ValueError, match="negative"):
        make()(tree, -1)


def test_so_do_those_that_run_and_start_frames(heap, monkeypatch):
    def make():
        @gomp.frame
        class Sum(gomp.Frame[int]):
            a: int
            b: int

            def step(f) -> gomp.Action:
                return f.ret(f.a + f.b)

        return Sum

    assert make().run(a=1, b=2) == 3
    monkeypatch.setattr(compiled_module.Compiled, "compile_for", None)
    assert make().run(a=3, b=4) == 7


def test_a_change_of_what_a_function_uses_is_noticed(heap):
    def make(n, inner):
        @compiled
        def f(x):
            return inner(x) * n

        return f

    plus = compiled(lambda x: x + 1)
    minus = compiled(lambda x: x - 1)
    assert [make(n, inner)(10) for n in (2, 3) for inner in (plus, minus, plus)] == [22, 18, 22, 33, 27, 33]


def test_a_child_compiles_for_a_p(heap, monkeypatch):
    monkeypatch.setattr(compiled_module, "compile_in_child", True)

    @compiled
    def product(a, b):
        return a * b

    def wrong(a):
        return a.nothing

    assert product(6, 7) == 42
    assert not product.dispatcher.overloads
    assert "in wrong" in refusal(wrong, new(Node))


_SCRIPT = """
import sys, cloudpickle
from gomp.runtime.arrays import array, Array
from gomp.runtime.structs import struct, new
from gomp.runtime.compiled import compiled

@struct
class Cell:
    next: "Cell"
    peers: "Array[Cell]"
    n: int

@compiled
def chain(n, first=1):
    if n == 0:
        return None
    cell = new(Cell, chain(n - 1), n=n + first)
    cell.peers = array(Cell, 2)
    cell.peers[0] = cell
    return cell

sys.stdout.buffer.write(cloudpickle.dumps((chain, Cell)))
"""


def test_what_a_script_declares_can_be_sent(heap):
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    sent = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, check=True, env=env).stdout
    chain, cell = pickle.loads(sent)
    first = chain(3)
    assert type(first) is cell
    assert [first.n, first.next.n, first.next.next.n, first.next.next.next] == [4, 3, 2, None]
    assert first.peers[0] == first
    roots["sent"] = first.peers
    assert roots["sent"][0] == first
    assert chain.py_func(1).peers[0].n == 2
