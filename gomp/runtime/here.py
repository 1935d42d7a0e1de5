"""Which goroutine of Python's runs in this thread, if one does, and how it is woken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gomp.core.mutator.sites import NO_SITE


@dataclass(frozen=True, slots=True)
class Identity:
    """What the records of a goroutine of Python's say of it; its place and its labels by their numbers in the table."""

    id: int
    parent: int  # id of who has started it, 0: a program did
    site: int
    labels: int


NOBODY = Identity(0, 0, NO_SITE, NO_SITE)


class _Here(threading.local):
    goroutine: Identity = NOBODY
    wake: Callable[[], None] | None = None
    frame: Any = None  # its line, if that is not the caller's


here = _Here()
