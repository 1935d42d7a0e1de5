"""Collections of a whole runtime: who delays them and who does not, and what GODEBUG's switches do to them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

import gomp

NODES = 200_000


@gomp.struct
class Node:
    next: Node
    value: int


@gomp.compiled
def chain(n: int) -> Node:
    head = None
    for i in range(n):
        head = gomp.new(Node, head, i)
    return head


@gomp.compiled
def churn_for(turns: int) -> int:
    kept = chain(1000)
    for i in range(turns):
        kept = gomp.new(Node, kept.next, i)
    return kept.value


def compute(seconds: float) -> int:
    """Ordinary Python, which holds the interpreter's lock."""
    until, n = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        n += sum(range(100))
    return n


def sleep(seconds: float) -> None:
    time.sleep(seconds)


@pytest.mark.alone
@pytest.mark.parametrize("busy", [compute, sleep])
def test_a_p_that_runs_python_or_sleeps_delays_no_cycle_and_no_pause(busy):
    with gomp.Runtime(procs=2) as rt:
        rt.gc()
        goroutine = rt.go(busy, 2.0)
        time.sleep(0.1)
        before = rt.stats()
        began = time.monotonic()
        for _ in range(20):
            rt.gc()
        took = time.monotonic() - began
        after = rt.stats()
        assert after.num_gc - before.num_gc == 20
        assert took < 1.0
        assert sorted(after.stop_ns[before.stops : after.stops])[20] < 2_000_000
        goroutine.wait()


def test_programs_run_while_the_heap_is_marked():
    """Cycles begin and end beside a program that never stops for long; afterwards what it kept is what it made."""
    with gomp.Runtime(procs=2, gogc=25) as rt:
        rt.run(keep, NODES)
        before = rt.stats()
        rt.run(churn_for, 5_000_000)
        after = rt.stats()
        assert after.num_gc - before.num_gc >= 3
        assert after.mark_cpu_s > before.mark_cpu_s
        assert after.pause_total_ns - before.pause_total_ns < 0.2e9 * (after.mark_cpu_s - before.mark_cpu_s) + 50e6
        assert "verified" in str(rt.verify(level=3))


def keep(n: int) -> None:
    gomp.globals["chain"] = chain(n)


SCRIPT = """
import sys, json, gomp
from workers import binary_trees
if __name__ == "__main__":
    with gomp.Runtime(procs=2) as rt:
        result = rt.run("binary_trees", depth=14, goroutines=2)
        stats = rt.stats()
        print(json.dumps([result, stats.num_gc, stats.pause_max_ns, stats.mark_idle_s + stats.mark_fractional_s, str(rt.verify(level=3))]))
"""


def run_with(godebug: str) -> tuple[int, int, int, float, str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"GODEBUG": godebug},
    )
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "switch", ["gccheckmark=1", "gcstoptheworld=1", "gcstoptheworld=2", "gccheckmark=1,clobberfree=1"]
)
def test_switches_that_change_how_a_cycle_runs_change_no_result(switch):
    result, cycles, _, marked_beside, verified = run_with(switch)
    assert result == 1_588_159
    assert "level 3" in verified
    assert cycles >= 1
    assert (marked_beside == 0) == ("stoptheworld" in switch)
