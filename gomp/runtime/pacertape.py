"""A tape of what the pacer of a running runtime decides; ``gomp pacer replay --check`` proves that it is what the arithmetic gives.

It starts with the runtime. The format is that of every tape (:mod:`~gomp.runtime.replay`): an operation has what goes into a decision and what
comes out of it. What only grows in between, as the heap does, is brought up to date by a ``revise`` of which nothing is expected.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TextIO

from gomp.core.gc.goal import NO_GOAL
from gomp.core.shm.records import (
    GC_TRIGGER_TIME,
    PACER_EVENT_ENDED,
    PACER_EVENT_ENDING,
    PACER_EVENT_RESTARTED,
    PACER_EVENT_SET,
    PACER_EVENT_START,
    PACER_EVENT_STARTED,
)
from gomp.runtime.pacerlog import Decision

Fields = dict[str, Any]
_NONE = (1 << 64) - 1  # Go's word for a goal nobody reaches
_AMOUNTS = ("xheap_live", "xheap_scan", "xheap_scan_work", "xstack_scan_work", "xglobals_scan_work")
_SCAN = _AMOUNTS.index("xheap_scan")


class PacerTape:
    """Writes decisions as operations."""

    def __init__(self, out: TextIO, name: str) -> None:
        self._out = out
        self._name = name
        self._amounts = [0] * len(_AMOUNTS)  # as the pacer of a replay has them
        self._settings: tuple[int, int] | None = None  # GOGC and the memory limit in force
        self._ending: Decision
        self._writers: dict[int, Callable[[Decision], None]] = {
            PACER_EVENT_SET: self._set,
            PACER_EVENT_START: self._memory,
            PACER_EVENT_STARTED: self._start_cycle,
            PACER_EVENT_RESTARTED: self._restart_cycle,
            PACER_EVENT_ENDING: self._prepare_end,
            PACER_EVENT_ENDED: self._end_cycle,
        }

    def write(self, decision: Decision) -> None:
        """Add ``decision``; the first is that on the settings the runtime starts with."""
        self._writers[decision.event](decision)
        if decision.event != PACER_EVENT_START:  # what is live is given to start_cycle
            self._amounts = _amounts(decision)
        self._out.flush()

    def _operation(self, op: str, given: Any, out: Fields | None = None) -> None:
        self._out.write(json.dumps({"op": op, "in": given} | ({} if out is None else {"out": out})) + "\n")

    def _memory(self, d: Decision) -> None:
        given = {"mapped_ready": d.mapped, "heap_free": d.heap_free, "total_alloc": d.heap_alloc, "total_free": 0}
        goals = {"memory_limit_heap_goal": d.limit_goal, "trigger": _goal(d.trigger), "heap_goal": _goal(d.goal)}
        self._operation("set_mem", given, goals)

    def _catch_up(self, d: Decision) -> None:
        self._operation("revise", [now - then for now, then in zip(_amounts(d), self._amounts, strict=True)])

    def _start_cycle(self, d: Decision) -> None:
        pc = d.pacer
        given = {
            "heap_live": int(pc.xheap_live),
            "heap_scan_delta": int(pc.xheap_scan) - self._amounts[_SCAN],
            "max_stack_scan": int(pc.max_stack_scan),
            "globals_scan": int(pc.globals_scan),
            "procs": d.procs,
            "kind": "time" if d.kind == GC_TRIGGER_TIME else "heap",
        }
        out = {
            "triggered": int(pc.triggered),
            "heap_goal": _goal(d.goal),
            "dedicated_workers": int(pc.xdedicated_needed),
            "fractional_util_goal": float(pc.fractional_goal),
            "max_idle_workers": int(pc.max_idle),
            "assist_work_per_byte": float(pc.assist_work_per_byte),
            "assist_bytes_per_work": float(pc.assist_bytes_per_work),
        }
        self._operation("start_cycle", given, out)

    def _restart_cycle(self, d: Decision) -> None:
        self._catch_up(d)
        out = {"triggered": int(d.pacer.triggered), "gc_percent_heap_goal": _goal(d.pacer.gc_percent_goal)}
        self._operation("restart_cycle", {}, out)

    def _prepare_end(self, d: Decision) -> None:
        self._catch_up(d)
        self._memory(d)
        self._ending = d

    def _end_cycle(self, d: Decision) -> None:
        pc, ending = d.pacer, self._ending.pacer
        given = {
            "bytes_marked": int(pc.heap_marked),
            "assist_time_ns": int(ending.xassist_ns),
            "idle_mark_time_ns": int(ending.xidle_ns),
            "elapsed_ns": d.now_ns - int(pc.mark_start_ns),
            "procs": d.procs,
            "sweep_done": False,
        }
        names = ("heap_marked", "last_heap_scan", "last_stack_scan", "runway", "sweep_dist_min_trigger")
        out = {name: int(pc[name]) for name in names} | {
            "last_heap_goal": _goal(pc.last_heap_goal),
            "cons_mark": float(pc.cons_mark),
            "last_cons_mark": [float(x) for x in pc.last_cons_mark],
            "gc_percent_heap_goal": _goal(pc.gc_percent_goal),
        }
        self._operation("end_cycle", given, out)
        self._memory(d)

    def _set(self, d: Decision) -> None:
        before, self._settings = self._settings, (int(d.pacer.gc_percent), int(d.pacer.memory_limit))
        percent, limit = self._settings
        given: Fields = {"sweep_done": bool(d.is_sweep_done)}
        if before is None:
            self._operation("init", given | {"name": self._name, "gc_percent": percent, "memory_limit": limit})
            return
        self._catch_up(d)
        given["gc_running"] = bool(d.is_marking)
        if percent != before[0]:
            self._operation("set_gc_percent", given | {"gc_percent": percent}, {"old": before[0]})
        if limit != before[1] or self._settings == before:
            self._operation("set_memory_limit", given | {"memory_limit": limit}, {"old": before[1]})
        self._memory(d)


def _amounts(d: Decision) -> list[int]:
    return [int(d.pacer[name]) for name in _AMOUNTS]


def _goal(n: int) -> int:
    return _NONE if n == NO_GOAL else int(n)
