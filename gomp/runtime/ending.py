"""Whether the runtime ends, and why."""

from __future__ import annotations

import contextlib
import logging

from gomp.errors import RuntimeLost
from gomp.runtime.channel import Channel

log = logging.getLogger("gomp.coordinator")

EXIT_CRASH = 3


class Ending:
    """``peers`` are the connections of processes that are not its children, and are told when the runtime is lost; ``owners`` those of them without
    which it ends, and ``holders`` those that have a P, owners among them."""

    def __init__(self) -> None:
        self.is_near = False
        self.exit_code = 0
        self.peers: list[Channel] = []
        self.owners: list[Channel] = []
        self.holders: list[Channel] = []

    def lose(self, why: str) -> None:
        """The runtime cannot go on: say so to everybody, and end."""
        log.error("%s", why)
        self.exit_code = EXIT_CRASH
        self.is_near = True
        for channel in self.peers:
            with contextlib.suppress(RuntimeLost):
                channel.send("lost", why=why)
