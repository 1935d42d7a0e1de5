"""What is really in memory: of the segments, of the processes, and what a collection would give back."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

import gomp
from gomp.core import COMPILED
from gomp.runtime import residency

if not COMPILED:
    pytest.skip("runs processes of its own", allow_module_level=True)

MIB = 1 << 20
KEPT, DROPPED = 64 * MIB, 128 * MIB


@pytest.fixture
def rt():
    with gomp.Runtime(procs=2, max_heap="1GiB") as runtime:
        yield runtime


def fill(nbytes):
    gomp.ndarray((nbytes,), np.uint8)[:] = 1


def test_what_is_returnable_is_what_a_collection_and_a_release_give_back(rt):
    kept = gomp.ndarray((KEPT,), np.uint8)
    kept[:] = 1
    rt.gc()
    gomp.debug.set_gc_percent(-1)  # a cycle while it is filled would find it live
    rt.run(fill, DROPPED)
    before = rt.resident()
    gomp.debug.free_os_memory()
    after = rt.resident()
    assert before.heap - after.heap >= DROPPED
    assert before.returnable == pytest.approx(before.heap - after.heap, rel=0.1)
    assert after.returnable < 8 * MIB


def test_the_heap_is_in_memory_once_however_many_have_touched_it(rt):
    shared = gomp.ndarray((KEPT,), np.uint8)
    shared[:] = 1
    rt.run(np.sum, shared)
    own, *ps = (residency.process_memory(pid) for pid in (os.getpid(), *(p.pid for p in rt.stats().ps[:2])))
    assert own.shared >= KEPT
    assert max(memory.shared for memory in ps) >= KEPT
    assert KEPT <= rt.resident().heap < KEPT + 16 * MIB
    assert all(memory.private < KEPT for memory in ps)


def test_a_process_that_is_not_there_has_nothing(rt):
    assert residency.process_memory(0) is None
    assert residency.private_bytes(os.getpid()) > 0


def test_that_there_is_no_descriptor_is_not_taken_for_no_process(monkeypatch):
    def no_descriptor(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Path, "read_bytes", no_descriptor)
    with pytest.raises(OSError, match="Too many open files"):
        residency.process_memory(os.getpid())


SMAPS = b"""\
c000000000-c100000000 rw-s 00000000 00:1b 2 {segment} (deleted)
Rss:                 400 kB
Shared_Dirty:        100 kB
Private_Clean:         0 kB
Private_Dirty:       300 kB
VmFlags: rd wr sh
7f0000000000-7f0000001000 rw-p 00000000 00:00 0
Rss:                  30 kB
Private_Clean:         4 kB
Private_Dirty:        16 kB
VmFlags: rd wr
"""


@pytest.mark.parametrize("segment", [b"/dev/shm/gomp-1-heap", b"/memfd:gomp-1-heap"])
def test_what_only_one_process_has_mapped_of_a_segment_is_shared_all_the_same(segment):
    memory = residency._sum_up(SMAPS.replace(b"{segment}", segment))
    assert (memory.private, memory.shared) == (20 << 10, 410 << 10)
