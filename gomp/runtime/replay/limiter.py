"""Replays of the limiter of the collector's processor time."""

from __future__ import annotations

from typing import Any

from gomp.core.gc import limiter
from gomp.core.shm.records import GCSTATS, LIMITER, gcstats_dtype, limiter_dtype, view
from gomp.runtime.replay.comparing import Difference
from gomp.runtime.replay.tape import Given, Operation, perform


class Limiter:
    """Tapes of the GC CPU limiter."""

    def __init__(self) -> None:
        self.limiter = view(limiter_dtype, LIMITER)[0]
        for name in limiter_dtype.names or ():
            self.limiter[name] = 0

    def apply(self, operation: Operation) -> Any:
        known = {
            "init": lambda given: limiter.reset_capacity(given.integer("now"), given.processors("nprocs")),
            "reset_capacity": lambda given: limiter.reset_capacity(given.integer("now"), given.processors("nprocs")),
            "update": lambda given: limiter.update(given.integer("now")),
            "need_update": self._need_update,
            "add_assist_time": lambda given: limiter.add_assist_time(given.integer("ns")),
            "add_idle_time": lambda given: limiter.add_idle_time(given.integer("ns")),
            "start_gc_transition": lambda given: limiter.change_gc(given.flag("enable_gc"), given.integer("now")),
            "finish_gc_transition": lambda given: limiter.end_pause(given.integer("now")),
            "gc_cycle_done": self._gc_cycle_done,
        }
        perform(known, operation)
        lim = self.limiter
        return {name: int(lim[name]) for name in ("capacity", "overflow", "last_enabled_cycle", "nprocs")} | {
            "fill": int(lim.filled),
            "limiting": bool(lim.xlimiting),
            "assist_pool": int(lim.xassist_pool),
            "idle_pool": int(lim.xidle_pool),
            "last_update": int(lim.xlast_update),
            "gc_enabled": bool(lim.gc_enabled),
            "transitioning": bool(lim.transitioning),
        }

    @staticmethod
    def _need_update(given: Given) -> None:
        needed = bool(limiter.needs_update(given.integer("now")))
        if needed != given.flag("result"):
            raise Difference("result", given["result"], needed)

    @staticmethod
    def _gc_cycle_done(given: Given) -> None:
        view(gcstats_dtype, GCSTATS)[0].num_gc = given.integer("num_gc")
