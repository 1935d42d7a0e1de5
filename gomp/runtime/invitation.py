"""What a process is handed that joins a runtime, as the script that owns it or later: see :class:`~gomp.runtime.joined.Joined`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gomp.core.shm.records import layout_version
from gomp.core.shm.segments import Segments


@dataclass(frozen=True)
class Invitation:
    """To the runtime ``name``."""

    name: str
    shared: Segments
    wake_fd: int

    @property
    def descriptors(self) -> list[int]:
        return [self.shared.heap_fd, self.shared.meta_fd, self.wake_fd]

    def to(self, p: int) -> dict[str, Any]:
        """What is said with the descriptors to the process that gets P ``p``."""
        return {
            "p": p,
            "heap_bytes": self.shared.heap_bytes,
            "backing": self.shared.backing,
            "version": layout_version(),
            "name": self.name,
        }
