"""The coordinator's rest while others mark: until one of them has something for it."""

from __future__ import annotations

import os
import time

from heap_world import heap_world

from gomp import forked
from gomp.core.gc import worker
from gomp.core.shm import segments
from gomp.core.shm.libc import futex_wake
from gomp.core.shm.records import RESTS_FOR_WORK, RESTS_NOT, RT_XRESTING

SOON_NS, LATE_NS = 2_000_000, 20_000_000_000


def test_who_is_called_before_it_rests_does_not():
    with heap_world() as world:
        world.runtime.xresting = RESTS_NOT
        assert worker.rest(LATE_NS) == 1


def test_a_rest_ends_by_itself():
    with heap_world() as world:
        world.runtime.xresting = RESTS_FOR_WORK
        assert worker.rest(SOON_NS) == 0


def test_a_rest_ends_when_somebody_calls():
    with heap_world() as world:
        world.runtime.xresting = RESTS_FOR_WORK

        def call():
            segments.map_segments(world.segments)
            time.sleep(0.05)
            world.runtime.xresting = RESTS_NOT
            futex_wake(RT_XRESTING)

        child = forked.fork(call)
        try:
            began = time.monotonic()
            assert worker.rest(LATE_NS) == 1
            assert time.monotonic() < began + 10
        finally:
            os.waitpid(child, 0)
