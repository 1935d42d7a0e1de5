"""Which threads of this process wait without end: what it says when the coordinator looks whether all are asleep (``deadlocks``).

A thread *waits without end* while it waits, with no timeout, for what only others in the runtime can bring: a goroutine's turn, or a message. It
says so by its ident, with the frame of Python in which it waits and a way to ask whether what it waits for is there already. A Ctrl-C may end a wait
before it could take that back: the thread has left that frame then, and is not taken for one that waits.

A process is STILL while its main thread and all others that Python knows wait without end, and nothing has come for any. It is ODD if its main
thread does, and there are others: threads that wait for something else, as in a pool, or handlers of signals, which run in one that waits.
Else it ACTS.

``changes`` grows when a thread begins to wait, after it has ended, and where goroutines of Python's have run meanwhile. So a process that twice was
STILL, with the same count, was so in between.
"""

from __future__ import annotations

import itertools
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple

STILL, ODD, ACTS = "still", "odd", "acts"


class Wait(NamedTuple):
    """Of a thread, in ``frame``, for what ``has_come`` says is there."""

    frame: FrameType
    has_come: Callable[[], bool]


class Stillness:
    """Of one process."""

    def __init__(self) -> None:
        self._waits: dict[int, Wait] = {}
        self._numbers = itertools.count(1)
        self._changes = 0

    def wait_of_this_thread(self) -> Wait | None:
        """For :meth:`end`, before :meth:`begin`: in the middle of a wait a thread may do what waits, too."""
        return self._waits.get(threading.get_ident())

    def begin(self, has_come: Callable[[], bool]) -> None:
        """The caller's frame waits without end from now on."""
        self.count()
        self._waits[threading.get_ident()] = Wait(sys._getframe(1), has_come)

    def end(self, before: Wait | None) -> None:
        """It does not any more. The count follows: who has read it before does not find the wait, or finds the count changed later."""
        ident = threading.get_ident()
        if self._waits.get(ident) is before:
            return
        if before is None:
            del self._waits[ident]
        else:
            self._waits[ident] = before
        self.count()

    def count(self) -> None:
        """Something has been done in the middle of a wait, which said that something has come while it was."""
        self._changes = next(self._numbers)

    def look(self) -> tuple[str, int, str]:
        """STILL, ODD or ACTS; the count of changes; and what is odd, in words."""
        changes = self._changes
        waits, running = self._waits.copy(), sys._current_frames()
        waiting = {ident for ident, wait in waits.items() if _is_in(running.get(ident), wait.frame)}
        main = threading.main_thread().ident
        if main not in waiting or any(waits[ident].has_come() for ident in waiting):
            return ACTS, changes, ""
        if others := running.keys() - waiting:
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            found = sorted(names.get(ident, "one that Python has not started") for ident in others)
            return ODD, changes, f"a thread may act that waits for something else ({', '.join(found)})"
        if handled := _handled_signals():
            return ODD, changes, f"a signal may come that is handled ({', '.join(handled)})"
        return STILL, changes, ""


def _is_in(running: FrameType | None, frame: FrameType) -> bool:
    """Whether a thread that runs in the one has the other below it."""
    while running is not None and running is not frame:
        running = running.f_back
    return running is frame


def _handled_signals() -> list[str]:
    """But for Ctrl-C as Python handles it: that ends a wait, and nobody counts on it."""
    usual = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler, None)
    return [signal.Signals(s).name for s in signal.valid_signals() if signal.getsignal(s) not in usual]
