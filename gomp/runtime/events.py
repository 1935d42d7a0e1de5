"""What the coordinator waits for: descriptors, each with what is done when there is something to read.

Some are urgent: signals and deaths. These have an epoll of their own, which a stop of the world looks at as well: it does not delay them.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable, Iterable

from gomp.errors import RuntimeLost
from gomp.runtime.channel import Channel


class Events:
    """One wait for all of them."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._urgent = select.epoll()
        self._handlers: dict[int, tuple[select.epoll, Callable[[], object]]] = {}
        self.watch(self.urgent_fd, self.handle_urgent)

    @property
    def urgent_fd(self) -> int:
        """Readable when something urgent has happened."""
        return self._urgent.fileno()

    def watch(self, fd: int, handler: Callable[[], object], is_urgent: bool = False) -> None:
        epoll = self._urgent if is_urgent else self._epoll
        epoll.register(fd, select.EPOLLIN)
        self._handlers[fd] = epoll, handler

    def unwatch(self, fd: int) -> None:
        """Before it is closed; of one that is not watched nothing is to be done."""
        if fd in self._handlers:
            epoll, _ = self._handlers.pop(fd)
            epoll.unregister(fd)

    def wait(self, seconds: float) -> None:
        """Handle what there is, or what comes within that time."""
        self._handle(self._epoll, seconds)

    def handle_urgent(self) -> bool:
        """Whether there was anything urgent."""
        return self._handle(self._urgent, 0)

    def _handle(self, epoll: select.epoll, seconds: float) -> bool:
        found = [(fd, self._handlers.get(fd)) for fd, _ in epoll.poll(seconds)]
        for fd, entry in found:
            if (
                entry and self._handlers.get(fd) is entry
            ):  # and not another's, who got the number after an earlier handler had closed it
                entry[1]()
        return bool(found)

    def flush(self, channels: Iterable[Channel]) -> None:
        """Send what peers take now, and be woken when they take more."""
        for channel in channels:
            if not channel.is_flushed and channel.fileno() in self._handlers:
                with contextlib.suppress(RuntimeLost):  # reading tells
                    channel.flush()
                more = 0 if channel.is_flushed else select.EPOLLOUT
                self._epoll.modify(channel.fileno(), select.EPOLLIN | more)
