"""Which P runs which goroutine. Bookkeeping only: the coordinator sends and receives.

A goroutine goes at once to the P with the fewest, preferring one that runs no frames, and the one that started it. Its record in shared memory says
where it is; its payload is kept until it has started, so that one whose P dies, or is one too many, before that can go to another. A P without a
process gets none while others have one, and one beyond GOMAXPROCS none at all.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from gomp.core.sched.tickets import TAKEN, issue_ticket, reissue_ticket
from gomp.core.shm import layout
from gomp.core.shm.commit import commit_table
from gomp.core.shm.records import (
    RUNTIME,
    TASK_DEAD,
    TASK_RUNNABLE,
    TASK_RUNNING,
    p_dtype,
    runtime_dtype,
    task_dtype,
    view,
)
from gomp.errors import OutOfMemory


@dataclass
class Task:
    """One goroutine. ``origin`` is who waits for it, under its own number ``request``; ``pinned``: it runs on no other P. ``id``: no other has it."""

    g: int
    id: int
    name: str
    origin: Any
    request: int
    p: int
    payload: bytes
    pinned: bool = False
    has_started: bool = False


class Tasks:
    """All goroutines that have not ended. ``procs``: Ps 0..procs-1 get them; there may be up to ``slots`` of them in time."""

    def __init__(self, procs: int, slots: int, meta_fd: int) -> None:
        self.procs = procs
        self._meta_fd = meta_fd
        self._runtime = view(runtime_dtype, RUNTIME)[0]
        self._by_p: list[dict[int, Task]] = [{} for _ in range(slots)]
        self._records = view(task_dtype, layout.TASKS_BASE, layout.MAX_TASKS)
        self._free = list(range(layout.MAX_TASKS - 1, 0, -1))
        self._created = 0
        self._absent: set[int] = set()

    def __len__(self) -> int:
        return sum(map(len, self._by_p))

    def create(
        self, name: str, origin: Any, request: int, payload: bytes, near: int | None = None, pinned: int | None = None
    ) -> Task:
        """A new goroutine and the P it goes to: ``pinned``, or the best; ``near`` is the P that started it, if one did. Raises OutOfMemory."""
        if not self._free or not self._commit(self._free[-1]):
            raise OutOfMemory(f"{len(self)} goroutines wait or run: there is no room for another")
        p = self._best(near) if pinned is None else pinned
        self._created += 1
        task = Task(self._free.pop(), self._created, name, origin, request, p, payload, pinned is not None)
        self._by_p[p][task.g] = task
        record = self._records[task.g]
        record.id, record.p, record.status = self._created, p, TASK_RUNNABLE
        record.created_ns, record.started_ns, record.ended_ns = time.monotonic_ns(), 0, 0
        self.renew(task)
        return task

    def _best(self, near: int | None) -> int:
        def cost(i: int) -> tuple[bool, int, bool, bool]:
            return i in self._absent, len(self._by_p[i]), self._is_busy(i), i != near

        return min(range(self.procs), key=cost)

    @staticmethod
    def _is_busy(i: int) -> bool:
        """Whether P ``i`` runs a goroutine, with frames or of Python's, which may go on for long: a hint."""
        record = view(p_dtype, layout.p_addr(i))[0]
        return int(record.curg) != 0 or int(record.python_g) != 0

    def set_absent(self, p: int, is_absent: bool) -> None:
        """Whether P ``p`` has no process."""
        (self._absent.add if is_absent else self._absent.discard)(p)

    def withdraw(self, task: Task, is_dead: bool) -> bool:
        """Have its P not start a goroutine that has not started as far as is known; whether it will not. ``is_dead``: that P has no process."""
        return is_dead or reissue_ticket(task.g, task.id, task.p, layout.COORDINATOR_P) == TAKEN

    def move(self, task: Task) -> None:
        """Give a goroutine that was withdrawn to the best P."""
        del self._by_p[task.p][task.g]
        task.p = self._best(None)
        self._by_p[task.p][task.g] = task
        self._records[task.g].p = task.p
        self.renew(task)

    def renew(self, task: Task) -> None:
        """Its P may start it: another process of the same P than the one that has died, or another P."""
        issue_ticket(task.g, task.id, task.p)

    def abandon(self, p: int) -> list[Task]:
        """Forget the goroutines that P ``p`` was running when it died; which they were."""
        return [task for task in self.of(p) if task.has_started and self.ended(p, task.g)]

    def forget(self, origin: Any) -> None:
        """Nobody is left to be told how the goroutines of ``origin`` end."""
        for tasks in self._by_p:
            for task in tasks.values():
                if task.origin == origin:
                    task.origin = None

    def _commit(self, g: int) -> bool:
        """Make the record of ``g`` safe to touch."""
        committed = int(self._runtime.tasks_committed)
        if g < committed:
            return True
        at = layout.TASKS_BASE - layout.META_BASE + committed * task_dtype.itemsize
        if commit_table(self._meta_fd, at, layout.TASKS_STEP * task_dtype.itemsize) != 0:
            return False
        self._runtime.tasks_committed = committed + layout.TASKS_STEP
        return True

    def started(self, p: int, g: int) -> None:
        task = self._by_p[p].get(g)
        if task:
            task.payload = b""
            task.has_started = True
            self._records[g].status = TASK_RUNNING
            self._records[g].started_ns = time.monotonic_ns()

    def ended(self, p: int, g: int) -> Task | None:
        """Forget a goroutine that has ended on P ``p``."""
        task = self._by_p[p].pop(g, None)
        if task:
            self._records[g].status = TASK_DEAD
            self._records[g].ended_ns = time.monotonic_ns()
            self._free.append(g)
        return task

    def have_all_started(self) -> bool:
        """Whether none waits for its P."""
        return all(task.has_started for tasks in self._by_p for task in tasks.values())

    def of(self, p: int) -> list[Task]:
        """The goroutines of P ``p``."""
        return list(self._by_p[p].values())

    def taken(self, p: int) -> list[Task]:
        """Those that P ``p`` has started, if it has not said so yet; and of those that have ended, some, of which it has not said that."""
        return [task for task in self.of(p) if int(self._records[task.g].xticket) < 0]
