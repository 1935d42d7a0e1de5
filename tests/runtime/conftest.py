"""A runtime in this process for the tests of the language: this process is P 0, and a child plays the coordinator where one is needed."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from kernel_heap import collect_now, kernel_heap
from lifetime_probes import Events

from gomp.core.jit import COMPILED
from gomp.core.shm import layout, segments
from gomp.core.shm.records import PACER, RUNTIME, pacer_dtype, runtime_dtype, view
from gomp.runtime.handles import table
from gomp.runtime.waiting import Collector

# What these test exists only in machine code.
collect_ignore = (
    []
    if COMPILED
    else [
        "test_compiled.py",
        "test_compiled_cache.py",
        "test_compiled_errors.py",
        "test_compiled_stacks.py",
        "test_collected.py",
        "test_parts_compiled.py",
        "test_map_compiled.py",
        "test_map_walks.py",
        "test_ndarray_compiled.py",
        "test_lifetimes_compiled.py",
        "test_array_walks.py",
        "test_text_walks.py",
        "test_python_calls.py",
        "test_compile_errors.py",
        "test_ahead.py",
        "test_frames.py",
        "test_keywords.py",
    ]
)
_NEVER = 1 << 62


@pytest.fixture(autouse=True)
def _private_program_cache(monkeypatch, tmp_path_factory):
    """Programs compiled by one run of the suite are not found by another."""
    from gomp.runtime import program_cache

    directory = tmp_path_factory.mktemp("programs")
    monkeypatch.setattr(program_cache, "directory", lambda: directory)


class CollectsAtOnce:
    """What an allocation waits for, in a process that plays the coordinator too."""

    def wait_for_begin(self, begun):
        collect_now()

    def wait_for_end(self, ended):
        collect_now()

    def wait_for_credit(self):
        pass


@pytest.fixture
def heap():
    """A heap of 64 MiB that is collected only by ``collect_now``."""
    with kernel_heap() as made:
        view(pacer_dtype, PACER)[0].gc_percent_goal = _NEVER
        table.open(0, CollectsAtOnce())
        yield made
        table.close()


@pytest.fixture
def events(heap):
    return Events()


@pytest.fixture
def collected_heap():
    """A heap of 64 MiB whose collections a child process runs, whenever P 0 asks."""
    with kernel_heap() as made:
        child = os.fork()
        if child == 0:
            _coordinate(made)
        table.open(0, Collector())
        yield view(runtime_dtype, RUNTIME)[0]
        table.close()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _coordinate(made):
    try:
        segments.map_segments(made)
        segments.map_self(made, layout.COORDINATOR_P)
        rt = view(runtime_dtype, RUNTIME)[0]
        parent = os.getppid()
        while os.getppid() == parent:
            if rt.xgc_request:
                kind, rt.xgc_request = int(rt.xgc_request), 0
                collect_now(kind)
            time.sleep(0.0001)
    finally:
        os._exit(1)
