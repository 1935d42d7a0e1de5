"""The first process of a container is the parent of every process whose own has ended, and has to take note of their ends.

What a P leaves when it is killed, and what ``docker exec`` leaves, stays a zombie otherwise and holds a process number of the container's. Elsewhere
the system's own first process does this.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container
from pathlib import Path

PROC = Path("/proc")


def is_first() -> bool:
    """Whether orphans come to this process."""
    return os.getpid() == 1


def bury_orphans(own: Container[int]) -> None:
    """Reap children that have ended, except ``own``: whoever forked those wants to know how they ended."""
    for pid in _children():
        if pid not in own:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _children() -> list[int]:
    """waitid does not say which of several have ended without reaping one of them. Empty where the kernel keeps no such list."""
    try:
        found = (PROC / "self" / "task" / str(os.getpid()) / "children").read_text()
    except OSError:
        return []
    return [int(pid) for pid in found.split()]
