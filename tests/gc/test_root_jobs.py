"""Which job scans which root."""

from __future__ import annotations

import pytest
from heap_world import heap_world

from gomp.core import COMPILED
from gomp.core.gc import roots
from gomp.core.mutator import pool
from gomp.core.shm import layout


@pytest.mark.skipif(COMPILED, reason="looks into a kernel")
def test_a_pool_that_is_made_while_the_heap_is_marked_changes_no_job(monkeypatch):
    jobs = []
    with heap_world() as world:
        assert pool.bind_pool(1, 0, 0, 0, 5, 0) == 0
        monkeypatch.setattr(roots, "prepare_stack_jobs_stw", lambda: 2)
        world.begin_marking()
        assert pool.bind_pool(2, 0, 0, 0, 5, 0) == 1
        with monkeypatch.context() as patched, world.as_coordinator():
            patched.setattr(roots, "run_stack_job", lambda p, n: jobs.append(("stack", n)) or 0)
            patched.setattr(roots, "_scan_pool", lambda p, n: jobs.append(("pool", n)))
            while roots.run_root_job(layout.p_addr(layout.COORDINATOR_P)) != roots.NO_JOB:
                pass
    assert jobs == [("pool", 0), ("stack", 0), ("stack", 1)]
