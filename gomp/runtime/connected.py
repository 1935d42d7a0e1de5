"""Processes that are connected to a runtime without being its children: the script that owns it, which has a P, those that borrow one
(:mod:`~gomp.runtime.borrowed`), and clients that only ask. All of them are this user's.

There are so many places. Who connects and asks for nothing has one until somebody else needs it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable

from gomp.core.sched.parking import ring
from gomp.core.shm import layout
from gomp.errors import RuntimeLost
from gomp.runtime.borrowed import BorrowedPs
from gomp.runtime.channel import Channel, is_ours, pid_of
from gomp.runtime.dispatcher import Dispatcher
from gomp.runtime.ending import Ending
from gomp.runtime.events import Events
from gomp.runtime.requests import Asker, fault
from gomp.runtime.stopping import p_record

log = logging.getLogger("gomp.coordinator")

CLIENTS = 64  # places for those that have no P
_SILENT_S = 10.0
_DEAF_S = 1.0


class Connected:
    """``give(asker)`` answers what one asks, and ``forget(channel)`` what one has asked that hangs up. There are ``places`` for them."""

    def __init__(
        self,
        events: Events,
        ending: Ending,
        dispatcher: Dispatcher,
        borrowed: BorrowedPs,
        give: Callable[[Asker], None],
        forget: Callable[[Channel], None],
        places: int,
    ) -> None:
        self._events = events
        self._ending = ending
        self._dispatcher = dispatcher
        self._borrowed = borrowed
        self._give = give
        self._forget = forget
        self._places = places
        self._silent: dict[Channel, float] = {}  # who has asked for nothing, and when they came
        self._listener: socket.socket
        self._deaf_until: float | None = None

    # --- coming -------------------------------------------------------------------------------------------------------

    def listen(self, listener: socket.socket) -> None:
        """Take whoever connects."""
        self._listener = listener
        self._events.watch(listener.fileno(), self._on_connect)

    def step(self) -> None:
        """Listen again, where that was given up for a while."""
        if self._deaf_until is not None and time.monotonic() >= self._deaf_until:
            self._listen_again()

    def _listen_again(self) -> None:
        if self._deaf_until is not None:
            self._deaf_until = None
            self._events.watch(self._listener.fileno(), self._on_connect)

    def own(self, owner: Channel, idx: int) -> None:
        """The script at ``owner`` has P ``idx``, and the runtime ends with it.

        A script that is killed may be what a stop waits for, or hold a lock: its process is watched, and not only its socket.
        """
        self._ending.owners.append(owner)
        self._ending.holders.append(owner)
        self._add(owner)
        owner.written = functools.partial(ring, layout.p_addr(idx))
        with contextlib.suppress(OSError):  # it has died: its socket has hung up
            pidfd = os.pidfd_open(pid_of(owner))
            p_record(idx).pidfd = pidfd
            self._events.watch(pidfd, self._on_owner_death, is_urgent=True)

    def _on_owner_death(self) -> None:
        self._ending.is_near = True

    def _on_connect(self) -> None:
        try:
            self._take(Channel(self._listener.accept()[0]))
        except OSError as error:  # whoever waits there would be found again at once, and again
            log.error("nobody can connect for %.0f s: %s", _DEAF_S, error.strerror)
            self._events.unwatch(self._listener.fileno())
            self._deaf_until = time.monotonic() + _DEAF_S

    def _take(self, channel: Channel) -> None:
        with contextlib.ExitStack() as undo:
            undo.callback(channel.close)
            if not is_ours(channel.sock):
                return
            if not self._has_place():
                with contextlib.suppress(RuntimeLost):
                    channel.send("error", text=f"the runtime has {self._places} connections already")
                return
            self._add(channel)
            self._silent[channel] = time.monotonic()
            undo.pop_all()

    def _has_place(self) -> bool:
        """Whether another may come. If need be, one makes way that has asked for nothing in its first seconds, and is of a process without a P."""
        if len(self._ending.peers) < self._places:
            return True
        latest = time.monotonic() - _SILENT_S
        holders = {pid_of(holder) for holder in self._ending.holders}
        idle = next((c for c, since in self._silent.items() if since < latest and pid_of(c) not in holders), None)
        if idle is not None:
            self._detach(idle)
        return idle is not None

    def _add(self, channel: Channel) -> None:
        pid = pid_of(channel)
        channel.peer, channel.p = f"the process {pid}", self._borrowed.p_of(pid)
        self._events.watch(channel.fileno(), lambda: self._on_message(channel))
        self._ending.peers.append(channel)

    # --- asking, and going --------------------------------------------------------------------------------------------

    def _on_message(self, channel: Channel) -> None:
        try:
            messages = channel.receive()
        except RuntimeLost:
            self._detach(channel)
            return
        if messages:
            self._silent.pop(channel, None)
        unheard = deque(messages)
        while unheard and not channel.is_clogged:
            message = unheard.popleft()
            if problem := fault(message, from_p=False):
                Asker(channel, message).refuse(problem)
            elif message.op == "go":
                self._dispatcher.go(channel, message)
            elif message.op == "attach":
                self._borrowed.attach(Asker(channel, message))
            elif message.op == "leave":
                self._borrowed.leave(channel)
            else:
                self._give(Asker(channel, message))
        channel.put_back(unheard)

    def _detach(self, channel: Channel) -> None:
        self._events.unwatch(channel.fileno())
        self._ending.peers.remove(channel)
        self._borrowed.forget(channel)
        self._forget(channel)
        self._silent.pop(channel, None)
        channel.close()
        self._listen_again()
        if channel in self._ending.owners:
            self._ending.is_near = True
