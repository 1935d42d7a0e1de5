"""The coordinator's children: the Ps and the service, forked, watched by pidfd, and ended together."""

from __future__ import annotations

import array
import contextlib
import functools
import logging
import os
import signal
import socket
import time
from dataclasses import dataclass
from typing import cast

from gomp import forked
from gomp.config import ServiceSettings
from gomp.core.sched.parking import ring
from gomp.core.shm import layout
from gomp.core.shm.segments import Segments
from gomp.runtime import p
from gomp.runtime.channel import Channel
from gomp.service import logs

log = logging.getLogger("gomp.family")

_GRACE_S = 1.0
_REAPING_S = 0.1  # of a child that has died
_NAP_S = 0.005
_BEGIN = b"!"


@dataclass(frozen=True)
class Child:
    """A forked process. ``pidfd`` becomes readable when it has died."""

    pid: int
    pidfd: int
    channel: Channel | None = None

    def begin(self) -> None:
        """Have a P do what it is for: until then its process only waits, and may be killed without leaving anything."""
        with contextlib.suppress(OSError):  # it has died: its pidfd tells
            cast(Channel, self.channel).sock.send(_BEGIN)


def has_left(status: int | None) -> bool:
    """Whether a P with this wait status ended because it was told to leave."""
    return status is not None and os.WIFEXITED(status) and os.WEXITSTATUS(status) == p.EXIT_LEFT


class Family:
    """The processes of one runtime. Only the coordinator, which has one thread, forks."""

    def __init__(self, shared: Segments, wake_fd: int) -> None:
        self._shared = shared
        self._wake_fd = wake_fd
        self._parent = os.getpid()
        self._service_socket: socket.socket | None = None
        self._unreaped: list[int] = []
        self.service: Child | None = None
        self.ps: dict[int, Child] = {}

    def fork_service(
        self, settings: ServiceSettings, name: str, metrics: socket.socket, control: socket.socket | None
    ) -> Child:
        """Start the service on the listening sockets ``metrics`` and ``control``, which are its own from here."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def child() -> None:
            from gomp.service import process

            forked.die_with_parent(self._parent, b"gomp-service")
            forked.be_killed_first(forked.SERVICE_OOM_SCORE)
            forked.reset_signals()
            segment_fds = {self._shared.heap_fd, self._shared.meta_fd}
            listeners = {listener.fileno() for listener in (metrics, control) if listener}
            forked.close_other_descriptors({0, 1, 2, theirs.fileno()} | listeners | segment_fds)
            process.run(settings, name, metrics, control, theirs)

        pid = self._fork(child)
        theirs.close()
        metrics.close()
        if control:
            control.close()
        self._service_socket = ours
        self.service = Child(pid, os.pidfd_open(pid))
        return self.service

    def fork_p(self, idx: int) -> Child:
        """Make the process of P ``idx``, which does nothing before it may begin. Raises OSError, and nothing is left, if the system refuses."""
        with contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)

            def child() -> None:
                ours.close()  # or it would not hear that its parent is gone
                if theirs.recv(len(_BEGIN)):
                    p.run(idx, self._shared, self._wake_fd, theirs, log_end, self._parent)

            with theirs, self._log_end() or contextlib.nullcontext() as log_end:
                pid = self._fork(child)
            undo.callback(self._kill, pid)
            self.ps[idx] = Child(pid, os.pidfd_open(pid), Channel(ours))
            channel = cast(Channel, self.ps[idx].channel)
            channel.peer, channel.written = f"P{idx}", functools.partial(ring, layout.p_addr(idx))
            undo.pop_all()
        return self.ps[idx]

    def abandon_p(self, idx: int) -> None:
        """End the process of P ``idx``, which has not begun."""
        child = self.ps.pop(idx)
        os.close(child.pidfd)
        cast(Channel, child.channel).close()
        self._kill(child.pid)

    def channel(self, idx: int) -> Channel | None:
        """The connection to P ``idx``, while it has a process."""
        child = self.ps.get(idx)
        return child.channel if child else None

    def channels(self) -> list[Channel]:
        """The connections to all Ps that have a process."""
        return [child.channel for child in self.ps.values() if child.channel]

    def pids(self) -> set[int]:
        """Of its processes, those included that have died and were not reaped yet."""
        return {child.pid for child in (self.service, *self.ps.values()) if child}

    def bury_p(self, idx: int) -> int | None:
        """Close what led to the process of P ``idx``, which has died, and reap it as :meth:`reap` does."""
        child = self.ps.pop(idx)
        os.close(child.pidfd)
        if child.channel:
            child.channel.close()
        return self.reap(child.pid)

    def reap(self, pid: int) -> int | None:
        """The wait status of a child that has died. None if it is not to be had in a moment, as when a debugger that traces the process has not
        taken note of its end: it is reaped later."""
        deadline = time.monotonic() + _REAPING_S
        while True:
            reaped, status = os.waitpid(pid, os.WNOHANG)
            if reaped:
                return status
            if time.monotonic() >= deadline:
                self._unreaped.append(pid)
                return None
            time.sleep(_NAP_S)

    def reap_late(self) -> None:
        """Reap those that could not be reaped when they had died, if they can be now."""
        self._unreaped = [pid for pid in self._unreaped if not _is_reaped(pid)]

    def _kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.reap(pid)

    def _log_end(self) -> socket.socket | None:
        """A new log connection: the service gets one end, the P that is about to be forked the other. None if there is no service, or it does not
        take it: it is not waited for."""
        if self._service_socket is None:
            return None
        from gomp.service.process import LOG_MESSAGE

        ours, service_end = logs.pair()
        with service_end:
            try:
                # socket.send_fds takes flags and leaves them out
                rights = array.array("i", [service_end.fileno()])
                self._service_socket.sendmsg(
                    [LOG_MESSAGE], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], socket.MSG_DONTWAIT
                )
            except OSError as error:
                ours.close()
                log.error("a P logs to stderr, for the service does not take its connection: %s", error.strerror)
                return None
        return ours

    @staticmethod
    def _fork(child: forked.ChildMain) -> int:
        tasks = os.listdir("/proc/self/task")
        if len(tasks) != 1:
            raise AssertionError(
                f"the coordinator has {len(tasks)} threads: a fork would copy locks that nobody releases"
            )
        return forked.fork(child)

    def kill_ps(self) -> None:
        for child in self.ps.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)

    def end(self) -> None:
        """Let the service write its last log lines, and wait for it and for the Ps, which are killed."""
        if self._service_socket:
            self._service_socket.close()
        self._reap([child.pid for child in (*self.ps.values(), *([self.service] if self.service else []))])

    @staticmethod
    def _reap(pids: list[int]) -> None:
        """Wait for them, kill what has not ended by itself, and leave what not even that ends: a process stuck in the kernel."""
        left = _wait_for(pids, _GRACE_S)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        if left := _wait_for(left, _GRACE_S):
            log.error("killed, but still there after %.0f s: %s", _GRACE_S, ", ".join(map(str, left)))


def _wait_for(pids: list[int], seconds: float) -> list[int]:
    """Reap these children as they end; which have not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while (pids := [pid for pid in pids if not _is_reaped(pid)]) and time.monotonic() < deadline:
        time.sleep(_NAP_S)
    return pids


def _is_reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True
