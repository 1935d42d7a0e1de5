"""What a P costs beside the heap: the memory that no other process shares with it."""

from __future__ import annotations

import os

import gomp
from gomp.core.jit import COMPILED
from gomp.runtime.residency import private_bytes

MOST_AT_START = 7 << 20
MOST = 14 << 20


def test_a_p_stays_small_when_it_has_loaded_and_run_compiled_programs() -> None:
    with gomp.Runtime(procs=2, max_heap="256MiB") as rt:
        ps = [p.pid for p in rt.stats().ps[:2]]
        at_start = [private_bytes(pid) for pid in ps]
        rt.run("binary_trees", depth=12, goroutines=4)
        rt.run("churn", live=1 << 12, ops=100_000, goroutines=4)
        after = [private_bytes(pid) for pid in ps]
    assert COMPILED
    assert 0 < max(at_start) < MOST_AT_START
    assert max(after) < MOST


def test_the_segments_are_no_process_s_own() -> None:
    with gomp.Runtime(procs=1, max_heap="256MiB") as rt:
        rt.run("churn", live=1 << 18, ops=1 << 18)
        heap = rt.stats().heap_alloc
        assert heap > 16 << 20
        assert private_bytes(rt.stats().ps[0].pid) < heap


def test_a_process_that_is_not_there_has_none() -> None:
    assert private_bytes(0) == 0
    assert private_bytes(os.getpid()) > 0
