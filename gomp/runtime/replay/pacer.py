"""Replays of the pacer: its tapes, and the grid of goals."""

from __future__ import annotations

from typing import Any

from gomp.core.gc import goal, pacer
from gomp.core.shm.records import GC_TRIGGER_HEAP, GC_TRIGGER_TIME, MHEAP, PACER, mheap_dtype, pacer_dtype, view
from gomp.runtime.replay.tape import Fields, Given, Operation, TapeError, is_integer, or_none, perform

_KINDS = {"heap": GC_TRIGGER_HEAP, "time": GC_TRIGGER_TIME}


class Pacer:
    """Tapes of the pacer."""

    def __init__(self) -> None:
        self.pacer = view(pacer_dtype, PACER)[0]
        self.heap = view(mheap_dtype, MHEAP)[0]
        self._has_begun = False
        self.heap.xtable_bytes = 0  # tapes know of no memory but that which they tell of

    def apply(self, operation: Operation) -> Any:
        """What comes out, in the fields of the tape."""
        if (operation.op == "init") == self._has_begun:
            where = "a second 'init'" if self._has_begun else f"{operation.op!r} before 'init'"
            raise TapeError(f"line {operation.line}: {where}: a tape is of one pacer, and begins with it")
        self._has_begun = True
        if operation.op == "revise":
            return self._revise(operation)
        known = {
            "init": self._init,
            "revise": lambda _: None,  # above: what goes into it is no object
            "start_cycle": self._start_cycle,
            "restart_cycle": self._restart_cycle,
            "end_cycle": self._end_cycle,
            "set_gc_percent": self._set_gc_percent,
            "set_memory_limit": self._set_memory_limit,
            "set_mem": self._set_mem,
            "commit": self._commit,
        }
        return perform(known, operation)

    def _init(self, given: Given) -> Fields:
        pacer.set_gc_percent(given.integer("gc_percent"))
        pacer.set_memory_limit(given.integer("memory_limit"))
        pacer.commit(given.flag("sweep_done"))
        return self._goals()

    def _start_cycle(self, given: Given) -> Fields:
        pc, before = (
            self.pacer,
            {
                "trigger_before": or_none(goal.trigger()),
                "heap_goal_before": or_none(goal.heap_goal()),
            },
        )
        pc.xheap_live = given.integer("heap_live")
        pc.xheap_scan += given.integer("heap_scan_delta")
        pc.max_stack_scan = given.integer("max_stack_scan")
        pc.globals_scan = given.integer("globals_scan")
        pacer.start_cycle(0, given.processors("procs"), given.one_of("kind", _KINDS))
        workers = {
            "dedicated_workers": int(pc.xdedicated_needed),
            "fractional_util_goal": float(pc.fractional_goal),
            "max_idle_workers": int(pc.max_idle),
        }
        return before | workers | self._goals()

    def _revise(self, operation: Operation) -> list[int | float]:
        deltas = operation.given
        if not isinstance(deltas, list) or len(deltas) != 5 or not all(map(is_integer, deltas)):
            raise TapeError(f"line {operation.line}: field 'in' is not an array of five integers")
        pc = self.pacer
        pc.xheap_live += deltas[0]
        pc.xheap_scan += deltas[1]
        pc.xheap_scan_work += deltas[2]
        pc.xstack_scan_work += deltas[3]
        pc.xglobals_scan_work += deltas[4]
        pacer.revise()
        return [float(pc.assist_work_per_byte), float(pc.assist_bytes_per_work), or_none(goal.heap_goal())]

    def _restart_cycle(self, given: Given) -> Fields:
        pacer.restart_cycle()
        return self._goals()

    def _end_cycle(self, given: Given) -> Fields:
        pc = self.pacer
        pc.xassist_ns = given.integer("assist_time_ns")
        pc.xidle_ns = given.integer("idle_mark_time_ns")
        pacer.end_cycle(given.integer("elapsed_ns"), given.processors("procs"))
        last_goal = int(pc.last_heap_goal)
        pacer.reset_live(given.integer("bytes_marked"))
        pacer.commit(given.flag("sweep_done"))
        return self._goals() | {"last_heap_goal": or_none(last_goal)}

    def _set_gc_percent(self, given: Given) -> Fields:
        before = pacer.set_gc_percent(given.integer("gc_percent"))
        return {"old": int(before)} | self._after_change(given)

    def _set_memory_limit(self, given: Given) -> Fields:
        before = pacer.set_memory_limit(given.integer("memory_limit"))
        return {"old": int(before)} | self._after_change(given)

    def _after_change(self, given: Given) -> Fields:
        pacer.commit(given.flag("sweep_done"))
        if given.flag("gc_running"):
            pacer.revise()
        return self._goals()

    def _set_mem(self, given: Given) -> Fields:
        set_memory(self.heap, given)
        return self._goals()

    def _commit(self, given: Given) -> Fields:
        pacer.commit(given.flag("sweep_done"))
        return self._goals()

    def _goals(self) -> Fields:
        pc = self.pacer
        names = (
            "heap_minimum", "sweep_dist_min_trigger", "runway", "heap_marked", "last_heap_scan", "last_stack_scan", "triggered",
        )  # fmt: skip
        return {name: int(pc[name]) for name in names} | {
            "heap_live": int(pc.xheap_live),
            "heap_scan": int(pc.xheap_scan),
            "cons_mark": float(pc.cons_mark),
            "last_cons_mark": [float(x) for x in pc.last_cons_mark],
            "gc_percent_heap_goal": or_none(int(pc.gc_percent_goal)),
            "memory_limit_heap_goal": int(goal.memory_limit_goal()),
            "trigger": or_none(goal.trigger()),
            "heap_goal": or_none(goal.heap_goal()),
            "assist_work_per_byte": float(pc.assist_work_per_byte),
            "assist_bytes_per_work": float(pc.assist_bytes_per_work),
        }


def set_memory(heap: Any, given: Given) -> None:
    """Make the heap's counters say what a tape does of memory: what is mapped beside the free heap counts as metadata."""
    heap.xheap_committed = given.integer("heap_free")
    heap.xheap_alloc = given.integer("total_alloc") - given.integer("total_free")
    heap.xheap_inuse = heap.xwbuf_bytes = heap.xtable_bytes = 0
    heap.xmetadata_bytes = given.integer("mapped_ready") - given.integer("heap_free")


class Goals(Pacer):
    """The grid of goals: each row is a pacer of its own."""

    def apply(self, operation: Operation) -> Any:
        given, pc = Given(operation), self.pacer
        pacer.set_gc_percent(given.integer("gc_percent"))
        pacer.set_memory_limit(given.integer("memory_limit"))
        for name in ("heap_marked", "last_heap_scan", "last_stack_scan", "globals_scan"):
            pc[name] = given.integer(name)
        pc.xheap_live = given.integer("heap_live")
        pc.cons_mark = given.number("cons_mark")
        pc.triggered = goal.NO_GOAL if given["triggered"] is None else given.integer("triggered")
        set_memory(self.heap, given)
        pacer.commit(given.flag("sweep_done"))
        return self._goals() | {"min_trigger_from_goal": int(goal.min_trigger())}
