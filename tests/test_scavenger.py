"""Memory goes back to the system: what the file system holds of the heap after a peak."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gomp
from gomp.core import COMPILED

pytestmark = pytest.mark.alone

if not COMPILED:
    pytest.skip("runs processes of its own", allow_module_level=True)

MIB = 1 << 20
PEAK = 200 * MIB


def peak_and_drop() -> int:
    kept = gomp.array(int, PEAK // 8)
    return len(kept)


def resident(rt: gomp.Runtime) -> int:
    return 512 * os.fstat(rt._segments.heap_fd).st_blocks


@pytest.fixture
def rt():
    with gomp.Runtime(procs=2, max_heap="1GiB") as runtime:
        yield runtime


def test_after_a_peak_the_heap_falls_back_to_its_goal_in_the_background_at_a_hundredth_of_a_processor(rt):
    """Pages that a sweep freed are looked at after the next cycle, as in Go: what is wanted again soon stays."""
    rt.run(peak_and_drop)
    assert resident(rt) >= PEAK
    before, began = rt.stats().scavenge, time.monotonic()
    rt.gc()
    rt.gc()
    while resident(rt) > 8 * MIB:
        assert time.monotonic() - began < 30
        time.sleep(0.05)
    after, took = rt.stats().scavenge, time.monotonic() - began
    assert after.background_bytes - before.background_bytes > PEAK - 8 * MIB
    assert after.background_s - before.background_s < 0.02 * took + 0.01  # one of two Ps, and what began at once
    rt.verify(3)


def test_free_os_memory_returns_everything_at_once(rt):
    rt.run(peak_and_drop)
    before = rt.stats().scavenge.forced_bytes
    released = gomp.debug.free_os_memory()
    stats = rt.stats()
    assert released >= PEAK
    assert stats.scavenge.forced_bytes - before > PEAK - 8 * MIB
    assert resident(rt) == stats.heap_inuse
    assert stats.heap_free == 0
    rt.run(peak_and_drop)  # and it is there again
    rt.verify(3)


def test_what_a_limit_leaves_is_kept_in_the_background_too(rt):
    """At 95 percent of it, though GOGC would let the heap retain more."""
    kept = gomp.array(int, 64 * MIB // 8)
    rt.run(peak_and_drop)
    gomp.debug.set_memory_limit(100 * MIB)
    rt.gc()
    rt.gc()
    deadline = time.monotonic() + 30
    while rt.stats().mapped > 0.95 * 100 * MIB:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(kept) == 64 * MIB // 8


def test_scavtrace_writes_go_s_lines():
    environment = os.environ | {"GODEBUG": "scavtrace=1"}
    program = "import gomp\nwith gomp.Runtime(procs=1) as rt:\n    rt.gc()\n    gomp.debug.free_os_memory()"
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=60, check=True
    )  # fmt: skip
    *swept, forced = ran.stderr.splitlines()
    line = r"scav \d+ KiB work \(bg\), \d+ KiB work \(eager\), \d+ KiB now, \d+% util"
    assert len(swept) == 2
    assert all(re.fullmatch(line, s) for s in swept)
    assert re.fullmatch(line + r" \(forced\)", forced)
