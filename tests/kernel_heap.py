"""A runtime in one process, for tests of the kernels: this process is P 0 and plays the coordinator too."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gomp.core.gc.cycle import collect
from gomp.core.jit import COMPILED
from gomp.core.mutator.lifecycle import init_p, init_runtime
from gomp.core.shm import layout, records, segments
from gomp.core.shm.records import GC_TRIGGER_FORCED

in_machine_code = pytest.mark.skipif(not COMPILED, reason="programs exist only in machine code")


@contextmanager
def kernel_heap(heap_bytes: int = layout.ARENA_SIZE, nprocs: int = 1) -> Iterator[segments.Segments]:
    """Segments mapped, records written, this process P 0 and SAFE."""
    made = segments.create(heap_bytes)
    wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        segments.map_segments(made)
        segments.commit_fixed(made, [*range(nprocs), layout.COORDINATOR_P])
        segments.map_self(made, 0)
        init_runtime(records.layout_version(), heap_bytes // layout.PAGE_SIZE, nprocs)
        for p in [*range(nprocs), layout.COORDINATOR_P]:
            init_p(p, os.getpid(), made.heap_fd, made.meta_fd, wake_fd, -1)
        yield made
    finally:
        segments.unmap()
        made.close()
        os.close(wake_fd)


def collect_now(kind: int = GC_TRIGGER_FORCED) -> None:
    """One whole cycle, swept."""
    code = collect(kind, time.time_ns(), time.monotonic_ns() + 10**10)
    assert code == 0, f"P {-1 - code} did not stop"
