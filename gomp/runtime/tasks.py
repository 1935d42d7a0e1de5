"""Which P runs which goroutine. Bookkeeping only: the coordinator sends and receives.

A goroutine goes at once to the P with the fewest, preferring the one that started it. Its record in shared memory says where it is; its payload is
kept until it has started, so that one whose P dies before that can go to another.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from gomp.core.shm import layout
from gomp.core.shm.records import G_DEAD, G_RUNNABLE, G_RUNNING, g_dtype, view
from gomp.errors import OutOfMemory

_COMMIT_STEP = 1024  # records


@dataclass
class Task:
    """One goroutine. ``origin`` is who waits for it, under its own number ``request``."""

    g: int
    name: str
    origin: Any
    request: int
    p: int
    payload: bytes


class Tasks:
    """All goroutines that have not ended."""

    def __init__(self, nprocs: int, meta_fd: int) -> None:
        self._meta_fd = meta_fd
        self._committed = 0
        self._by_p: list[dict[int, Task]] = [{} for _ in range(nprocs)]
        self._records = view(g_dtype, layout.GS_BASE, layout.MAX_GS)
        self._free = list(range(layout.MAX_GS - 1, 0, -1))
        self._created = 0

    def __len__(self) -> int:
        return sum(map(len, self._by_p))

    def create(self, name: str, origin: Any, request: int, payload: bytes, near: int | None = None) -> Task:
        """A new goroutine and the P it goes to; ``near`` is the P that started it, if one did. Raises OutOfMemory."""
        if not self._free or not self._commit(self._free[-1]):
            raise OutOfMemory(f"{len(self)} goroutines wait or run: there is no room for another")
        loads = [(len(tasks), i != near, i) for i, tasks in enumerate(self._by_p)]
        p = min(loads)[2]
        self._created += 1
        task = Task(self._free.pop(), name, origin, request, p, payload)
        self._by_p[p][task.g] = task
        record = self._records[task.g]
        record.id, record.p, record.status = self._created, p, G_RUNNABLE
        record.created_ns, record.started_ns, record.ended_ns = time.monotonic_ns(), 0, 0
        return task

    def _commit(self, g: int) -> bool:
        """Make the record of ``g`` safe to touch."""
        if g >= self._committed:
            at = layout.GS_BASE - layout.META_BASE + self._committed * g_dtype.itemsize
            try:
                os.posix_fallocate(self._meta_fd, at, _COMMIT_STEP * g_dtype.itemsize)
            except OSError:
                return False
            self._committed += _COMMIT_STEP
        return True

    def started(self, p: int, g: int) -> None:
        task = self._by_p[p].get(g)
        if task:
            task.payload = b""
            self._records[g].status = G_RUNNING
            self._records[g].started_ns = time.monotonic_ns()

    def ended(self, p: int, g: int) -> Task | None:
        """Forget a goroutine that has ended on P ``p``."""
        task = self._by_p[p].pop(g, None)
        if task:
            self._records[g].status = G_DEAD
            self._records[g].ended_ns = time.monotonic_ns()
            self._free.append(g)
        return task

    def of(self, p: int) -> list[Task]:
        """The goroutines of P ``p``."""
        return list(self._by_p[p].values())
