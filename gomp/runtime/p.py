"""The process of a P: forked by the coordinator, it runs goroutines one after another until the coordinator is gone."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Callable

from gomp.core.mutator.lifecycle import init_p
from gomp.core.shm import segments
from gomp.core.shm.libc import libc
from gomp.errors import RuntimeLost
from gomp.runtime import compiled, current
from gomp.runtime.channel import Channel, Message
from gomp.runtime.peer import Peer
from gomp.runtime.programs import Call, dump_outcome
from gomp.service import logs

log = logging.getLogger("gomp.p")
ChildMain = Callable[[], None]
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


class P(Peer):
    """Goroutines come as messages; the socket's buffer is this P's queue."""

    def serve(self) -> None:
        while True:
            self.step(None)

    def handle(self, message: Message) -> None:
        if message.op != "run":
            super().handle(message)
            return
        self.channel.send("started", g=message["g"])
        succeeded, payload = dump_outcome(lambda: self._run(message))
        self.channel.send("done", payload, g=message["g"], ok=succeeded)

    @staticmethod
    def _run(message: Message) -> object:
        try:
            call: Call = pickle.loads(message.payload)
            return call.run()
        except Exception:
            if not message["awaited"]:
                log.exception("goroutine %d (%s) ended with an exception", message["g"], message["name"])
            raise


def run(
    idx: int,
    shared: segments.Segments,
    wake_fd: int,
    channel: socket.socket,
    log_sock: socket.socket | None,
    parent: int,
) -> None:
    """Be P ``idx``; never returns. The coordinator is ``parent``; when it dies, so does this process."""
    die_with_parent(parent, f"gomp-p{idx}".encode())
    reset_signals()
    keep = {0, 1, 2, shared.heap_fd, shared.meta_fd, wake_fd, channel.fileno()} | (
        {log_sock.fileno()} if log_sock else set()
    )
    close_other_descriptors(keep)
    segments.protect_from_fork()
    segments.map_self(shared, idx)
    init_p(idx, os.getpid(), shared.heap_fd, shared.meta_fd, wake_fd, channel.fileno())
    if log_sock:
        logs.attach(log_sock, f"P{idx}")
    gc.enable()
    peer = P(Channel(channel))
    compiled.compile_in_child = True
    current.open_process(idx, peer)
    try:
        peer.serve()
    except RuntimeLost:
        os._exit(0)


def die_with_parent(parent: int, name: bytes) -> None:
    """End with the coordinator, even if it was gone before this could be asked for."""
    libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name), 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def reset_signals() -> None:
    """Forget the coordinator's handlers; Ctrl-C on a terminal reaches the whole group, and the coordinator decides what it means."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def close_other_descriptors(keep: set[int]) -> None:
    """Close every descriptor that is not in ``keep``: the coordinator's, and those of other Ps."""
    for fd in {int(name) for name in os.listdir("/proc/self/fd")} - keep:
        with contextlib.suppress(OSError):  # the one that the listing itself used
            os.close(fd)


def fork(child: ChildMain) -> int:
    """Fork a process that runs ``child`` and nothing of its caller afterwards; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        child()
        status = 0
    except BaseException as error:
        print("".join(traceback.format_exception(error)), file=sys.stderr, flush=True)
    finally:
        os._exit(status)
