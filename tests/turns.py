"""When the suite runs in several processes: one test in each at a time, and nothing beside a test that has to be alone.

Such a test measures how long something takes, wants the shares of the processors that are promised, or looks for races, which need all of them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_HERE = Path(__file__)


@contextmanager
def turn(is_alone: bool) -> Iterator[None]:
    """Hold what a test needs while it runs. Whoever waits to be alone holds the gate, so that the others do not pass it by."""
    with ExitStack() as room:
        with _locked(_HERE, fcntl.LOCK_EX):
            room.enter_context(_locked(_HERE.parent, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH))
        yield


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, how)
        yield
    finally:
        fcntl.flock(
            fd, fcntl.LOCK_UN
        )  # closing does not do it: forked processes that a test leaves have the descriptor too
        os.close(fd)
