"""What each process has in memory, for scrapes: looked at beside them, because for that the kernel walks all of a heap's page tables.

A scrape gets what was found last, and has it looked at anew where that is older than PERIOD_S, by a thread that nobody waits for. Only the first
waits, when the heap is small yet. A process that has started since then is told of the next time, and without a descriptor to look with all are told
of as before. In a process that runs programs there is to be no such thread: who asks there waits.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence

from gomp.runtime import residency
from gomp.runtime.residency import ProcessMemory

PERIOD_S = 5.0
Processes = Sequence[tuple[str, int]]


class ProcessMemories:
    """``beside``: by a thread. ``read(pid)`` looks at one process, ``now_s()`` is the clock."""

    def __init__(
        self,
        beside: bool = True,
        read: Callable[[int], ProcessMemory | None] = residency.process_memory,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._beside = beside
        self._read = read
        self._now_s = now_s
        self._lock = threading.Lock()
        self._found: dict[tuple[str, int], ProcessMemory] = {}
        self._due_s = 0.0
        self._looks: threading.Thread | None = None

    def of(self, processes: Processes) -> list[tuple[str, ProcessMemory]]:
        """Of those (name, pid) that were found the last time."""
        with self._lock:
            if not self._found or (not self._beside and self._now_s() >= self._due_s):
                self._look(processes)
            elif self._now_s() >= self._due_s and not (self._looks and self._looks.is_alive()):
                self._looks = threading.Thread(target=self._look, args=(processes,), name="processes", daemon=True)
                with contextlib.suppress(RuntimeError):  # the system allows no more threads
                    self._looks.start()
            found = self._found
        return [(process[0], found[process]) for process in processes if process in found]

    def _look(self, processes: Processes) -> None:
        with contextlib.suppress(OSError):  # without a descriptor what was found stays
            self._found = {process: memory for process in processes if (memory := self._read(process[1]))}
        self._due_s = self._now_s() + PERIOD_S
