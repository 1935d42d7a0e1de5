"""What the coordinator waits for: descriptors, each with what is done when there is something to read.

Some are urgent: signals and deaths. These have an epoll of their own, which a stop of the world looks at as well: it does not delay them.
"""

from __future__ import annotations

import contextlib
import logging
import select
from collections.abc import Callable, Iterable

from gomp.errors import RuntimeLost
from gomp.runtime.channel import Channel

log = logging.getLogger("gomp.coordinator")


class Events:
    """One wait for all of them."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._urgent = select.epoll()
        self._handlers: dict[int, tuple[select.epoll, Callable[[], object]]] = {}
        self._wanted: dict[int, int] = {}  # of channels, where it is not only what there is to read
        self._named: set[int] = set()  # channels of which it was said that they are not read
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
            self._wanted.pop(fd, None)
            self._named.discard(fd)

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
        """Send what peers take now, be woken when they take more, and read nothing meanwhile from those that are clogged."""
        for channel in channels:
            if channel.fileno() in self._handlers:
                with contextlib.suppress(RuntimeLost):  # the handler is told
                    channel.flush()
                self._want(channel)

    def _want(self, channel: Channel) -> None:
        fd = channel.fileno()
        wanted = 0 if channel.is_clogged else select.EPOLLIN
        wanted |= select.EPOLLOUT if channel.has_unheard or not channel.is_flushed else 0
        if wanted != self._wanted.get(fd, select.EPOLLIN):
            self._wanted[fd] = wanted
            self._epoll.modify(fd, wanted)
        if channel.is_clogged and fd not in self._named:
            self._named.add(fd)
            log.warning("%s does not take what it has asked for: it is not listened to until it does", channel.peer)
