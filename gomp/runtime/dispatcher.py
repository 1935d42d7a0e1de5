"""Goroutines between who starts them, the P that runs them, and who waits for them.

A goroutine whose P dies while it runs has ended: whoever waits for it gets WorkerDied. One that had not started goes to another P, or waits
for the dead one's successor. The programs of the configuration are started again, but for those of a P that there is not to be any more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gomp.config import ProgramSettings
from gomp.errors import OutOfMemory, RuntimeLost, WorkerDied
from gomp.runtime.channel import NOBODYS, Channel, Message
from gomp.runtime.programs import Call, dump_failure
from gomp.runtime.tasks import Task, Tasks


@dataclass(frozen=True)
class OnP:
    """P ``p`` waits for a goroutine."""

    p: int


@dataclass(frozen=True)
class Supervised:
    """Nobody waits for this program, but it is to be there: on P ``p``, or on any."""

    call: Call
    p: int | None = None


class Dispatcher:
    """``channel_of(p)`` is the connection to P ``p``, or None while it has no process."""

    def __init__(self, tasks: Tasks, channel_of: Callable[[int], Channel | None]) -> None:
        self.tasks = tasks
        self._channel_of = channel_of

    def has_process(self, p: int) -> bool:
        return self._channel_of(p) is not None

    def supervise_all(self, programs: Iterable[ProgramSettings], old: int, procs: int) -> None:
        """Start those programs, now that there are ``procs`` Ps and not ``old``.

        A P that was to leave, and has not, runs its own still, or its successor will: they keep the share that they were told.
        """
        served = {
            task.p
            for p in range(old, procs)
            for task in self.tasks.of(p)
            if isinstance(task.origin, Supervised) and task.pinned
        }
        for program in programs:
            for p, parameters in program.instances(procs):
                if old == 0 or (p is not None and p >= old and p not in served):
                    self.supervise(Supervised(Call(program.program, (), parameters), p))

    def supervise(self, program: Supervised) -> None:
        """Start a program, now and whenever it has died, while there is its P."""
        if program.p is not None and program.p >= self.tasks.procs:
            return
        message = Message("go", {"name": str(program.call), "request": 0}, program.call.dumps())
        self.go(program, message, pinned=program.p)

    def go(self, origin: object, message: Message, near: int | None = None, pinned: int | None = None) -> None:
        """Start what ``message`` asks for, and tell ``origin`` how it ended: a Channel, an OnP, or nobody."""
        try:
            task = self.tasks.create(message["name"], origin, message["request"], message.payload, near, pinned)
        except OutOfMemory as error:
            self._tell(origin, message["request"], False, dump_failure(error))
            return
        self._send(task)

    def done(self, p: int, message: Message) -> None:
        """A goroutine of P ``p`` has ended. If references in its result reach nobody, its P is told."""
        task = self.tasks.ended(p, message["g"])
        parcel = message.fields.get("parcel", 0)
        told = task is not None and self._tell(task.origin, task.request, message["ok"], message.payload, parcel)
        channel = self._channel_of(p)
        if parcel and not told and channel is not None:
            with contextlib.suppress(RuntimeLost):
                channel.send("undelivered", parcel=parcel)

    def has_started(self, p: int) -> None:
        """P ``p`` has a process again: send it what waits for it."""
        for task in self.tasks.of(p):
            self.tasks.renew(task)
            self._send(task)

    def has_died(self, p: int, why: str) -> list[Task]:
        """The process of P ``p`` is gone, ``why`` in words: settle all it had; what it was running."""
        running = self.tasks.abandon(p)
        self.tasks.forget(OnP(p))
        for task in running:
            if isinstance(task.origin, Supervised):
                self.supervise(task.origin)
            else:
                self._tell(task.origin, task.request, False, dump_failure(WorkerDied(f"{task.name}: {why}")))
        return running

    def move(self, tasks: Iterable[Task], is_dead: bool) -> None:
        """Give those that have not started to the Ps that have the fewest. Pinned ones stay, or end with their P. ``is_dead``: it has no process."""
        for task in tasks:
            is_surplus = task.p >= self.tasks.procs
            if task.has_started or (task.pinned and not is_surplus) or not self.tasks.withdraw(task, is_dead):
                continue
            if task.pinned:
                self.tasks.ended(task.p, task.g)
            else:
                self.tasks.move(task)
                self._send(task)

    def runs_only_supervised(self, p: int) -> bool:
        """Whether P ``p`` runs something, and nobody waits for any of it: programs that are started again elsewhere, or with their P."""
        running = [task for task in self.tasks.of(p) if task.has_started]
        return bool(running) and all(isinstance(task.origin, Supervised) for task in running)

    def _send(self, task: Task) -> None:
        channel = self._channel_of(task.p)
        if channel is not None:
            awaited = isinstance(task.origin, Channel | OnP)
            with contextlib.suppress(RuntimeLost):  # it has died: its pidfd tells
                heir = task.origin.p if awaited else NOBODYS
                channel.send("run", task.payload, g=task.g, id=task.id, name=task.name, awaited=awaited, heir=heir)

    def _tell(self, origin: object, request: int, ok: bool, payload: bytes, parcel: int = 0) -> bool:
        """Tell whoever started a goroutine how it ended, if anybody did; whether somebody may hear it. ``parcel``: there are references in it."""
        channel = self._channel_of(origin.p) if isinstance(origin, OnP) else origin
        if isinstance(channel, Channel):
            with contextlib.suppress(RuntimeLost, OSError):
                channel.give_result("done", payload, request=request, ok=ok, parcel=parcel, procs=self.tasks.procs)
                return True
        return False
