"""The coordinator's part in traces: for whom one is recorded, which Ps tell what happens, and when that ends.

A trace belongs to the connection that has asked for it. When that is gone, or its time and some more is over, nobody tells anything any more: so a
reader that was killed, or stopped, costs nothing for long. How a trace is written: :mod:`gomp.core.shm.tracing`; how it is read: ``traces``.

What a P does when the trace begins is known from its record, and its programs from their tickets. A P in Python is not stopped by a stop of the
world: what it begins at that moment it may tell as well, and a program may be over and its P have told nobody yet. When it does, this is told of it.
Of a P that has come since, the coordinator tells which programs it runs when it begins to tell.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from gomp.core.shm import layout, tracing
from gomp.core.shm.records import (
    GC_MARK,
    RUNTIME,
    SWEEP_SETS,
    TRACE_PROGRAM_END,
    g_dtype,
    runtime_dtype,
    trace_ring_dtype,
    view,
)
from gomp.errors import MessageTooLarge
from gomp.runtime.channel import Channel
from gomp.runtime.dispatcher import Dispatcher
from gomp.runtime.requests import Asker
from gomp.runtime.stopping import p_record
from gomp.runtime.tasks import Task
from gomp.runtime.traced import tell_program

log = logging.getLogger("gomp.coordinator")

_GRACE_S = 30.0  # that a reader may be late


class Tracing:
    """One trace at a time. There may be ``slots`` Ps that run programs; ``stopped_world()`` stops the world for a block. ``always``: all tell what
    happens, also while nobody reads it."""

    def __init__(
        self,
        slots: int,
        dispatcher: Dispatcher,
        stopped_world: Callable[[], AbstractContextManager[None]],
        always: bool = False,
    ) -> None:
        self._slots = slots
        self._dispatcher = dispatcher
        self._stopped_world = stopped_world
        self._always = always
        self._runtime = view(runtime_dtype, RUNTIME)[0]
        self._reader: Channel | None = None
        self._until = math.inf
        self._traced: set[int] = set()  # Ps that tell
        self._begun: set[tuple[int, int]] = set()  # P and program: those that it ran when it began to tell

    def begin(self, asker: Asker) -> None:
        """Have everybody tell, and say what each does at that moment. Raises RuntimeLost."""
        if self._reader is not None:
            asker.refuse("a trace is being recorded already: there is one at a time; wait until it has ended")
            return
        with self._stopped_world():
            has_room = all(self._begin(p) for p in (layout.COORDINATOR_P, *self._ps()))
            began = self._everything_now() if has_room else {}
        if not has_room:
            self._end()
            asker.refuse("there is no memory for the events of a trace: raise the memory limit of the container")
            return
        try:
            asker.answer(pid=int(self._runtime.coordinator_pid), unix_ns=time.time_ns(), **began)
        except MessageTooLarge:
            self._end()
            n = sum(len(state["programs"]) for state in began["ps"])
            asker.refuse(
                f"the names of {n:,} programs that run are more than one answer holds: trace again when fewer run"
            )
            return
        self._reader = asker.channel
        self._until = time.monotonic() + asker.request["ms"] / 1e3 + _GRACE_S

    def end(self, asker: Asker) -> None:
        left_out: list[tuple[int, int, int, int]] = []
        if asker.channel is self._reader:
            traced = sorted(self._traced)
            self._end()  # first: what a P tells when it begins to count anew would be there twice
            left_out = [counted for p in traced for counted in _left_out(p)]
        asker.answer(ended_ns=time.monotonic_ns(), left_out=left_out)

    def forget(self, channel: Channel) -> None:
        """Who has asked on ``channel`` is gone."""
        if channel is self._reader:
            self._end()

    def step(self) -> None:
        """End what is overdue; have those tell that have come since, and tell of the programs at its beginning that they are over."""
        if self._reader is None and not self._always:
            return
        if time.monotonic() > self._until:
            log.warning("a trace has not been ended by who has begun it: it ends now")
            self._end()
            return
        for p in (layout.COORDINATOR_P, *range(int(self._runtime.nprocs))):
            if p not in self._traced:
                self._begin_late(p)
        attached = range(self._slots, int(self._runtime.nrecords))
        if late := [p for p in attached if p not in self._traced and p_record(p).xpid]:
            with self._stopped_world():  # they run already
                for p in late:
                    self._begin_late(p)
        for p in {p for p, _ in self._begun}:
            running = {task.id for task in self._dispatcher.tasks.of(p)}
            for program in sorted(id_ for of, id_ in self._begun if of == p and id_ not in running):
                tracing.tell_if_tracing(TRACE_PROGRAM_END, program, p)
                self._begun.remove((p, program))

    def _ps(self) -> list[int]:
        """Those that are to run programs, and all others that have a process."""
        return [p for p in range(int(self._runtime.nrecords)) if p < self._runtime.nprocs or p_record(p).xpid]

    def _begin_late(self, p: int) -> None:
        if not self._begin(p):
            log.warning("there is no memory for the events of P%d: they are missing in the trace", p)
            return
        for task in self._programs(p):
            tell_program(task.id, task.name, p)

    def _begin(self, p: int) -> bool:
        self._traced.add(p)
        return bool(tracing.begin_tracing(layout.p_addr(p)) == tracing.OK)

    def _end(self) -> None:
        if not self._always:
            for p in self._traced:
                tracing.end_tracing(layout.p_addr(p))
            self._traced.clear()
        self._begun.clear()
        self._reader, self._until = None, math.inf

    def _everything_now(self) -> dict[str, Any]:
        """Where the trace begins. World: stopped."""
        rt = self._runtime
        phase = "mark phase" if rt.xgcphase == GC_MARK else "sweep phase" if rt.xsweep_class < SWEEP_SETS else ""
        return {
            "began_ns": time.monotonic_ns(),
            "first": int(tracing.count_events(layout.COORDINATOR_P)),
            "firsts": [_count_events(p) for p in range(int(rt.nrecords))],
            "phase": phase,
            "cycle": int(rt.xcycles),
            "slots": self._slots,
            "ps": [self._state(p) for p in self._ps()],
        }

    def _state(self, p: int) -> dict[str, Any]:
        """What P ``p`` does. World: stopped."""
        record = p_record(p)
        has_process = bool(record.xpid)  # else what the record says is of one that has died
        state: dict[str, Any] = {
            "p": p,
            "pid": int(record.xpid),
            "is_script": p >= self._slots,
            "is_parked": has_process and bool(record.xparked),
            "programs": [(task.id, task.name) for task in self._programs(p)],
        }
        if has_process and record.curg:
            g = view(g_dtype, int(record.curg))[0]
            if g.entry:  # else it stands for a program that waits
                state["goroutine"] = int(g.id), int(g.entry), int(g.site)
        return state

    def _programs(self, p: int) -> list[Task]:
        """Those that P ``p`` runs: of their ends is told, too."""
        tasks = self._dispatcher.tasks.taken(p) if p < self._slots and p_record(p).xpid else []
        self._begun |= {(p, task.id) for task in tasks}
        return tasks


def _left_out(p: int) -> list[tuple[int, int, int, int]]:
    """What P ``p`` has left out and not told: itself, DETAIL_*, how many, and their time in ns. What it does meanwhile may be missing."""
    record = p_record(p)
    if not record.trace_committed:
        return []
    details = view(trace_ring_dtype, layout.trace_addr(p))[0]["details"]
    skips = [*record.trace_skips.tolist(), 0]  # counted ahead
    counts = [(p, which, int(d["count"]) - skips[which], int(d["ns"])) for which, d in enumerate(details)]
    return [counted for counted in counts if counted[2] > 0]


def _count_events(p: int) -> int:
    """Events that P ``p`` ever wrote: none if it has no ring."""
    return int(tracing.count_events(p)) if p_record(p).trace_committed else 0
