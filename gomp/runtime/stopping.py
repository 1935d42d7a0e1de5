"""Stopping the world from outside the kernels: whoever dies meanwhile, and who does not stop in time is killed.

Who was killed is not waited for. Until the process is gone a stop may have to wait for it: :attr:`Stopping.is_held_up` says so, and what
can wait does.
"""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from typing import Any

from gomp.core.sched.locks import owner_of
from gomp.core.sched.status import start_world, stop_world
from gomp.core.shm import layout
from gomp.core.shm.records import RUNTIME, STATUS_KERNEL, p_dtype, runtime_dtype, view
from gomp.errors import RuntimeLost
from gomp.runtime.collector import Collector, Stuck
from gomp.runtime.dispatcher import Dispatcher
from gomp.runtime.dying import KILLED_S, Dying
from gomp.runtime.ending import Ending
from gomp.runtime.events import Events
from gomp.runtime.family import Family

log = logging.getLogger("gomp.coordinator")

NAMES_SHOWN = 8


def p_record(idx: int) -> Any:
    """The shared record of P ``idx``."""
    return view(p_dtype, layout.p_addr(idx))[0]


def _has_process(idx: int) -> bool:
    """Whether ``idx``, which may be any number, is that of a P which some process has."""
    return 0 <= idx < int(view(runtime_dtype, RUNTIME)[0].nrecords) and int(p_record(idx).xpid) != 0


class Stopping:
    """Ps from ``slots`` on are those of attached processes, ``owner_p`` that of the script with which the runtime ends, if there is one. ``repair()``
    puts right what the dead have left, before anything else is done with the heap."""

    def __init__(
        self,
        events: Events,
        ending: Ending,
        family: Family,
        dispatcher: Dispatcher,
        collector: Collector,
        dying: Dying,
        repair: Callable[[], None],
        slots: int,
        owner_p: int | None,
    ) -> None:
        self._events = events
        self._ending = ending
        self._family = family
        self._dispatcher = dispatcher
        self._collector = collector
        self._dying = dying
        self._repair = repair
        self._slots = slots
        self._owner_p = owner_p

    @contextlib.contextmanager
    def stopped_world(self) -> Iterator[None]:
        """Stop the world for the block, whoever dies meanwhile. Raises RuntimeLost if the runtime ends before it stands."""
        try:
            while not self._try_to_stop():
                if self._ending.is_near:
                    raise RuntimeLost("the runtime ends")
            yield
        finally:
            start_world()

    def _try_to_stop(self) -> bool:
        try:
            self._repair()
            if code := stop_world(self._collector.deadline()):
                start_world()
                raise Stuck(-1 - code)
        except Stuck as stuck:
            self.on_stuck(stuck.p)
            return False
        return True

    def on_stuck(self, idx: int) -> None:
        """P ``idx`` did not stop: because something urgent came up, or it died, or in time. It has to."""
        if self._events.handle_urgent() or self._ending.is_near:
            return
        holder = owner_of(int(p_record(idx).waiting_for))
        idx = holder if _has_process(holder) else idx  # who waits for a lock is not what the stop waits for
        if self._dying.is_killed(idx):
            self.end_overdue()  # it may take its time to be gone
            return
        log.error("%s; it is killed", self._describe_stuck(idx))
        self.kill(idx)

    def _describe_stuck(self, idx: int) -> str:
        record = p_record(idx)
        running = (
            ", ".join(task.name for task in self._dispatcher.tasks.of(idx)[:NAMES_SHOWN])
            if idx < self._slots
            else "an attached process"
        )
        return (
            f"P{idx} (pid {int(record.xpid)}) did not stop within {self._collector.stop_deadline_s:g} s; it runs {running or 'nothing'}"
            f"{f' and waits for the lock at {int(record.waiting_for):#x}' if record.waiting_for else ''}"
        )

    def on_lost_lock(self, lock: int, idx: int) -> None:
        """Somebody has waited too long for a lock that P ``idx`` had then. It may have lost it since, with its life."""
        if owner_of(lock) != idx:
            return
        record = p_record(idx)
        if idx in self._family.ps or (idx >= self._slots and record.xpid):
            log.error("P%d (pid %d) does not release the lock at %#x; it is killed", idx, int(record.xpid), lock)
            self.kill(idx)
        elif not record.xdead:  # or its repair is to come
            self._ending.lose(f"fatal: the lock at {lock:#x} was not released by P{idx}, which has died")

    # --- who is to be gone --------------------------------------------------------------------------------------------

    @property
    def is_held_up(self) -> bool:
        """Whether a stop would wait for somebody who was killed and is still there."""
        return any(p_record(idx).xstatus == STATUS_KERNEL for idx in self._dying.killed)

    def kill(self, idx: int) -> None:
        """Kill the process of P ``idx``, if it has one, and go on: its death will be noticed."""
        if self._dying.is_killed(idx):
            return
        if idx == self._owner_p:
            self._ending.lose("a script that does not stop is killed, and its runtime ends")
        elif not p_record(idx).pidfd:
            return
        with contextlib.suppress(OSError):  # it has died
            signal.pidfd_send_signal(int(p_record(idx).pidfd), signal.SIGKILL)
        self._dying.was_killed(idx)

    def end_overdue(self) -> None:
        """Kill who has hung up and lives. If not even that helps, the runtime ends, but for an attached process in nobody's way."""
        silent, killed = self._dying.overdue()
        for idx, why in silent.items():
            log.error("P%d (pid %d) cannot be understood: %s; it is killed", idx, int(p_record(idx).xpid), why)
            self.kill(idx)
        for idx in killed:
            what = f"P{idx} (pid {int(p_record(idx).xpid)}) was killed, but is still there after {KILLED_S:.0f} s"
            if idx < self._slots or idx == self._owner_p or p_record(idx).xstatus == STATUS_KERNEL:
                self._ending.lose(what)
            else:
                log.error("%s: its P is lent to nobody until it has ended", what)
                self._dying.forget(idx)
