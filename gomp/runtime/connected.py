"""Processes that are connected to a runtime without being its children: the script that owns it, which has a P, those that borrow one
(:mod:`~gomp.runtime.borrowed`), and clients that only ask. All of them are this user's."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
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

MAX_CONNECTIONS = 64


class Attached:
    """``give(asker)`` answers what one asks, and ``forget(channel)`` what one has asked that hangs up."""

    def __init__(
        self,
        events: Events,
        ending: Ending,
        dispatcher: Dispatcher,
        borrowed: BorrowedPs,
        give: Callable[[Asker], None],
        forget: Callable[[Channel], None],
    ) -> None:
        self._events = events
        self._ending = ending
        self._dispatcher = dispatcher
        self._borrowed = borrowed
        self._give = give
        self._forget = forget

    def listen(self, listener: socket.socket) -> None:
        """Take whoever connects."""
        self._events.watch(listener.fileno(), lambda: self._on_connect(listener))

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

    def _on_connect(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it hung up already, or there is no descriptor for it
            sock, _ = listener.accept()
            if not is_ours(sock):
                sock.close()
                return
            channel = Channel(sock)
            if len(self._ending.peers) >= MAX_CONNECTIONS:
                with contextlib.suppress(RuntimeLost):
                    channel.send("error", text=f"the runtime has {MAX_CONNECTIONS} connections already")
                channel.close()
                return
            self._add(channel)

    def _add(self, channel: Channel) -> None:
        channel.peer = f"the process {pid_of(channel)}"
        self._events.watch(channel.fileno(), lambda: self._on_message(channel))
        self._ending.peers.append(channel)

    def _on_message(self, channel: Channel) -> None:
        try:
            messages = channel.receive()
        except RuntimeLost:
            self._detach(channel)
            return
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
        channel.close()
        if channel in self._ending.owners:
            self._ending.is_near = True
