"""The GC CPU limiter where tapes cannot go: who updates it is killed, or the bucket is looked at in between."""

from __future__ import annotations

import pytest
from heap_world import heap_world

from gomp.core.gc import limiter, repair
from gomp.core.mutator.poll import sleep_idle_until
from gomp.core.shm.records import LIMITER, RT_XCYCLE_DONE, limiter_dtype, view

SECOND = 1_000_000_000


@pytest.mark.parametrize("filled", [0, SECOND // 2, SECOND])
@pytest.mark.parametrize("said", [0, 1])
def test_who_is_killed_before_saying_that_the_bucket_is_full_or_not_is_made_up_for(filled, said):
    with heap_world():
        record = view(limiter_dtype, LIMITER)[0]
        record.filled, record.xlimiting = filled, said
        repair.repair_stw()
        assert record.xlimiting == (filled == SECOND)
        assert record.times_enabled == (filled == SECOND and not said)


def test_a_limiter_that_no_update_was_killed_in_is_left_alone():
    with heap_world():
        record = view(limiter_dtype, LIMITER)[0]
        limiter.add_assist_time(3 * SECOND)
        limiter.update(int(record.xlast_update) + SECOND)
        assert (record.xlimiting, record.times_enabled) == (1, 1)
        before = record.copy()
        repair.repair_stw()
        assert record == before


def test_a_p_whose_program_waits_for_a_collection_is_idle_and_only_ps_are():
    with heap_world(nprocs=2) as world:
        world.runtime.nprocs = 1  # the other is attached
        record = view(limiter_dtype, LIMITER)[0]
        counted = []
        for p in range(2):
            world.be(p)
            before = int(record.xidle_pool)
            assert sleep_idle_until(RT_XCYCLE_DONE, 1 << 40, 1_000_000) == world.runtime.xcycle_done
            assert (world.ps[p].xidle, world.ps[p].xevent) == (0, 0)
            counted.append(int(record.xidle_pool) - before)
        assert counted[0] >= 1_000_000
        assert counted[1] == 0
        assert world.ps[0].xidle_ns == counted[0]
        assert world.ps[1].xidle_ns == 0
