"""Having as many Ps as there are to be: the change itself, when no cycle is on, and who waits for it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from gomp.config import ProgramSettings
from gomp.core.mutator.lifecycle import change_procs_stw
from gomp.core.shm.records import RUNTIME, runtime_dtype, view
from gomp.runtime.channel import Channel
from gomp.runtime.collector import Collector
from gomp.runtime.dispatcher import Dispatcher
from gomp.runtime.maxprocs import MaxProcs
from gomp.runtime.ps import Ps
from gomp.runtime.requests import Asker
from gomp.runtime.stopping import Stopping

log = logging.getLogger("gomp.coordinator")


class Resizing:
    """``programs`` are those of the configuration, ``tell(procs)`` is told how many Ps there are now."""

    def __init__(
        self,
        max_procs: MaxProcs,
        programs: tuple[ProgramSettings, ...],
        collector: Collector,
        dispatcher: Dispatcher,
        ps: Ps,
        stopping: Stopping,
        tell: Callable[[int], None],
    ) -> None:
        self._max_procs = max_procs
        self._programs = programs
        self._collector = collector
        self._dispatcher = dispatcher
        self._ps = ps
        self._stopping = stopping
        self._tell = tell
        self._waiting: list[Asker] = []

    def ask(self, asker: Asker) -> None:
        """Change how many Ps there are as soon as may be, and answer then."""
        procs = asker.request["value"]
        if procs > self._max_procs.slots:
            asker.refuse(
                f"gomaxprocs={procs}: there is room for {self._max_procs.slots} Ps; start with max_procs={procs}"
            )
            return
        self._max_procs.set(procs)
        view(runtime_dtype, RUNTIME)[0].procs_are_auto = self._max_procs.is_auto
        self._waiting.append(asker)

    def forget(self, channel: Channel) -> None:
        """Nobody is left to hear that what ``channel`` has asked for is done."""
        self._waiting = [asker for asker in self._waiting if asker.channel is not channel]

    def step(self) -> None:
        """Have as many Ps as there are to be, if that may be now. Raises RuntimeLost if the runtime ends meanwhile."""
        self._max_procs.look()
        if self._collector.is_marking or self._stopping.is_held_up:
            return
        old, procs = self._dispatcher.tasks.procs, self._max_procs.wanted
        if procs != old:
            self._change(old, procs)
        for asker in self._waiting:
            asker.answer(old=old)
        self._waiting = []
        for idx in self._ps.idlers():
            self._stopping.kill(idx)

    def _change(self, old: int, procs: int) -> None:
        with self._stopping.stopped_world():
            change_procs_stw(procs)
        self._dispatcher.tasks.procs = procs
        for idx in range(old, procs):
            self._ps.have_stay(idx)
        for idx in range(procs, old):
            self._ps.have_leave(idx)
        self._ps.start_absent()
        self._dispatcher.supervise_all(self._programs, old, procs)
        self._tell(procs)
        log.info("gomaxprocs is %d now; it was %d: %s", procs, old, self._max_procs.reason)
