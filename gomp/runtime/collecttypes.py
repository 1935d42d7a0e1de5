"""``gomp.gc()``, ``gomp.num_goroutine()`` and ``gomp.num_procs()`` in compiled code."""

from __future__ import annotations

from typing import Any

from gomp.core.heap.gs import num_goroutines
from gomp.core.mutator.poll import wait_for_cycle
from gomp.core.shm.records import GC_TRIGGER_FORCED, runtime
from gomp.runtime import current
from gomp.runtime.reftypes import in_compiled_code


@in_compiled_code(current.gc)
def _gc() -> Any:
    return lambda: wait_for_cycle(GC_TRIGGER_FORCED)


@in_compiled_code(current.num_goroutine)
def _num_goroutine() -> Any:
    return lambda: num_goroutines()


@in_compiled_code(current.num_procs)
def _num_procs() -> Any:
    return lambda: runtime().nprocs
