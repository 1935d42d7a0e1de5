"""Replays of the scavenger's pace."""

from __future__ import annotations

from typing import Any

from gomp.core.gc import scavpace
from gomp.core.shm.records import SCAVPACE, scavpace_dtype, view
from gomp.runtime.replay.tape import Fields, Given, Operation, or_none, perform

_OS_PAGE = 4096


class Scavenger:
    """Goals, controllers and the loop of work and sleep."""

    def __init__(self) -> None:
        self.pace = view(scavpace_dtype, SCAVPACE)[0]
        self.procs = 1

    def apply(self, operation: Operation) -> Any:
        known = {"row": self._goals, "init": self._init, "next": self._next, "run": self._run}
        return perform(known, operation)

    @staticmethod
    def _goals(given: Given) -> Fields:
        names = ("heap_goal", "last_heap_goal", "last_heap_in_use")
        retained = given.integer("heap_in_use") + given.integer("heap_free")
        by_percent = scavpace.gc_percent_goal(*map(given.integer, names), retained, given.integer("phys_page_size"))
        return {
            "gc_percent_goal": or_none(by_percent),
            "memory_limit_goal": or_none(
                scavpace.memory_limit_goal(given.integer("memory_limit"), given.integer("mapped_ready"))
            ),
        }

    def _init(self, given: Given) -> Fields:
        if given.has("gomaxprocs"):
            scavpace.init_pace()
            self.procs = given.processors("gomaxprocs")
            return {"sleep_ratio": float(self.pace.sleep_ratio)}
        scavpace.init_controller(*(given.number(name) for name in ("kp", "ti", "tt", "min", "max")))
        return {}

    def _next(self, given: Given) -> Fields:
        ok = scavpace.control(given.number("input"), given.number("setpoint"), given.number("period"))
        return {
            "output": float(self.pace.output),
            "ok": bool(ok),
            "err_integral": float(self.pace.err_integral),
            "err_overflow": bool(self.pace.err_overflow),
            "input_overflow": bool(self.pace.input_overflow),
        }

    def _run(self, given: Given) -> Fields:
        worked, released = 0.0, 0
        for nbytes, took in given.pairs("scavenge_results"):
            if worked >= scavpace.MIN_WORK_NS or given.flag("should_stop"):
                break
            worked += scavpace.work_of(nbytes, took, _OS_PAGE)
            released += nbytes
            if nbytes < scavpace.QUANTUM:
                break
        out: Fields = {"released": released, "worked_ns": worked, "parked": released == 0}
        if released:
            out["sleep"] = self._sleep(given, worked)
        return out

    def _sleep(self, given: Given, worked: float) -> Fields:
        requested = scavpace.sleep_time(worked)
        slept = given.slept()
        scavpace.slept(worked, slept, self.procs)
        return {
            "requested_ns": int(requested),
            "slept_ns": slept,
            "sleep_ratio_after": float(self.pace.sleep_ratio),
            "err_integral": float(self.pace.err_integral),
            "cooldown_ns": int(self.pace.cooldown_ns),
        }
