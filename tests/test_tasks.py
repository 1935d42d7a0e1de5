"""Which P runs which goroutine."""

from __future__ import annotations

import pytest

import gomp
from gomp.core.shm import layout, records, segments
from gomp.core.shm.commit import ENDLESS
from gomp.runtime.tasks import Tasks


def test_more_goroutines_than_there_are_records_are_refused_one_by_one() -> None:
    made = segments.create(layout.ARENA_SIZE)
    segments.map_segments(made)
    try:
        records.view(records.mheap_dtype, records.MHEAP)[0].xcommit_budget = ENDLESS
        tasks = Tasks(2, 2, made.meta_fd)
        for n in range(layout.MAX_GS - 1):
            tasks.create("sleep", None, n, b"")
        with pytest.raises(gomp.OutOfMemory, match="65535 goroutines"):
            tasks.create("sleep", None, 0, b"")
        ended = tasks.ended(0, tasks.of(0)[0].g)
        assert ended
        assert tasks.create("sleep", None, 0, b"").g == ended.g
        assert records.view(records.g_dtype, layout.GS_BASE, 2)[1].status == records.G_RUNNABLE
    finally:
        segments.unmap()
        made.close()
