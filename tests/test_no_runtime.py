"""Where no runtime is open, before the first and after the last, everything that needs one says so, and nothing is a crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DECLARED = """
import gomp

@gomp.struct
class Node:
    next: "Node"
    value: int

POOL = gomp.Pool(Node)
GLOBAL = gomp.Global("global", Node)

@gomp.compiled
def make(n: int) -> Node:
    return gomp.new(Node, None, n)

@gomp.compiled
def pooled() -> int:
    return POOL.get().value

def use():
    with gomp.Runtime(procs=1, max_heap="64MiB"):
        GLOBAL.set(make(pooled()))
        gomp.globals["other"] = gomp.array(Node, 2)
        POOL.put(gomp.new(Node))
        POOL.stats()
        gomp.map(str, Node)["a"] = gomp.new(Node)

def answers(expressions):
    for expression in expressions:
        try:
            print(expression, eval(expression))
        except gomp.RuntimeLost as error:
            print(error)
"""
NEED_ONE = [
    "POOL.get()", "POOL.stats()", "GLOBAL.get()", "GLOBAL.set(None)", "'other' in gomp.globals", "gomp.globals['other']",
    "gomp.globals.pop('other')", "len(gomp.globals)", "make(1)", "pooled()", "gomp.new(Node)", "gomp.map(Node)", "gomp.map()",
    "gomp.array(Node, 1)", "gomp.array(gomp.Inline[Node], 1)", "gomp.array(int, 1)", "gomp.ndarray(1)", "gomp.str('')", "gomp.gc()",
]  # fmt: skip


@pytest.mark.parametrize("before", ["", "use()\n"])
def test_what_needs_a_runtime_says_so(before):
    script = f"{DECLARED}\n{before}answers({NEED_ONE})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=100, cwd=Path(__file__).parents[1]
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["no runtime is open in this process: use gomp.Runtime()"] * len(NEED_ONE)
