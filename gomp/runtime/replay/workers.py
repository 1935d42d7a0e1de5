"""The table of mark workers."""

from __future__ import annotations

from typing import Any

from gomp.core.gc import pacer
from gomp.core.shm.records import GC_TRIGGER_HEAP, GC_TRIGGER_TIME, PACER, pacer_dtype, view
from gomp.runtime.replay.tape import Given, Operation


class Workers:
    """The table of mark workers."""

    def apply(self, operation: Operation) -> Any:
        procs = Given(operation).processors("gomaxprocs")
        pc = view(pacer_dtype, PACER)[0]
        pacer.start_cycle(0, procs, GC_TRIGGER_TIME)
        periodic = int(pc.max_idle)
        pacer.start_cycle(0, procs, GC_TRIGGER_HEAP)
        return {
            "gomaxprocs": procs,
            "dedicated_workers": int(pc.xdedicated_needed),
            "fractional_util_goal": float(pc.fractional_goal),
            "max_idle_workers_heap_trigger": int(pc.max_idle),
            "max_idle_workers_periodic": periodic,
        }
