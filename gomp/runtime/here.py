"""Which goroutine of Python's runs in this thread, if one does, and how it is woken."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from gomp.core.mutator.sites import NO_SITE
from gomp.core.mutator.waitcalls import set_python_g
from gomp.runtime.handles import table


@dataclass(frozen=True, slots=True)
class Identity:
    """What the records of a goroutine of Python's say of it; its place and its labels by their numbers in the table."""

    id: int
    parent: int  # id of who has started it, 0: a program did
    site: int
    labels: int


Wake: TypeAlias = Callable[[], None]
NOBODY = Identity(0, 0, NO_SITE, NO_SITE)


class _Main:
    """The main thread's, for others to see."""

    goroutine: Identity = NOBODY


main = _Main()


class _Here(threading.local):
    goroutine: Identity = NOBODY
    wake: Wake | None = None
    frame: Any = None  # its line, if that is not the caller's

    def run(self, goroutine: Identity = NOBODY, wake: Wake | None = None) -> tuple[Identity, Wake | None, Any]:
        """That one runs in this thread from now on, or a program does; in the main thread. What did until now: for :meth:`go_back`."""
        before = self.goroutine, self.wake, self.frame
        self.go_back((goroutine, wake, None))
        return before

    def go_back(self, before: tuple[Identity, Wake | None, Any]) -> None:
        self.goroutine, self.wake, self.frame = before
        main.goroutine = self.goroutine
        if table.is_open:
            set_python_g(self.goroutine.id, self.goroutine.labels)


here = _Here()


def _forget() -> None:
    here.goroutine, here.wake, here.frame = NOBODY, None, None
    main.goroutine = NOBODY


os.register_at_fork(after_in_child=_forget)
