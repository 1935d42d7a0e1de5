"""The process of a P: forked by the coordinator, it runs goroutines one after another until the coordinator is gone.

Calls run in the main thread, and in whatever thread of a program waits for another goroutine: that one may be queued here, behind a program that
waits for the thread. Frames run in the main thread while it waits for anything. It then sleeps on its record's futex, which whoever has something
for it counts up: the coordinator after it has written, another thread that has received for all, a P that has something to run.

A P that is one too many is told to leave. It starts nothing that another P may start, and its process ends when nothing runs here and what it has
sent has been received.
"""

from __future__ import annotations

import gc
import itertools
import logging
import os
import pickle
import socket
import sys
import time
from collections import deque
from typing import Any

from gomp import forked
from gomp.core.mutator.lifecycle import init_p
from gomp.core.sched.tickets import TAKEN, take_ticket
from gomp.core.shm import layout, segments
from gomp.core.shm.libc import libc
from gomp.core.shm.records import GC_MARK, RUNTIME, TRACE_PROCESS, p_dtype, runtime_dtype, view
from gomp.core.shm.tracing import tell_if_tracing
from gomp.errors import MessageTooLarge, RuntimeLost, StaleReference
from gomp.runtime import compiled, coroutines, current, goroutines, steps
from gomp.runtime.channel import Channel, Message
from gomp.runtime.here import here
from gomp.runtime.peer import NO_REQUEST, OF_GOROUTINE, Peer
from gomp.runtime.programs import Call, dump_failure, dump_outcome
from gomp.runtime.room import make_room
from gomp.runtime.traced import told_of
from gomp.runtime.transit import Sent, outbox
from gomp.service import logs

log = logging.getLogger("gomp.p")
_PARCELS_KEPT = 1024
EXIT_LEFT = 80  # beyond what sysexits.h has: it was told to
_LEAVING_NAP_S = 0.02
_LONGEST_NAP_S = 1.0  # a signal may have come just before it
_LEAVING_S = 10.0  # for what was sent to be received: some of it never is

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_MOST_FREE = 256 << 10


class P(Peer):
    """Goroutines come as messages; the socket's buffer and ``_queue`` are this P's queue."""

    def __init__(self, channel: Channel, record: Any) -> None:
        super().__init__(channel)
        self._record = record
        self._queue: deque[Message] = deque()
        self._parcels: dict[int, list[Sent]] = {}  # results with references, from the last ones that were sent
        self._numbers = itertools.count(1)  # of parcels
        self._leaves = False
        self._was_told = False  # to leave, or to stay, since the main thread looked

    def serve(self) -> None:
        """Run goroutines until this P is told to leave, and may."""
        steps.known_steps()  # there are none, but where they are looked for
        idle_since = time.monotonic()
        while not self._may_leave(idle_since):
            self._take(NO_REQUEST, _LEAVING_NAP_S if self._leaves else None)
            if self._run_queued() or not self._leaves:
                idle_since = time.monotonic()

    def _may_leave(self, idle_since: float) -> bool:
        """Whether nobody needs this process. One that ended while the heap is marked would have the marking begin anew."""
        self._was_told = False
        if (
            not self._leaves
            or self._queue
            or coroutines.is_any()
            or view(runtime_dtype, RUNTIME)[0].xgcphase == GC_MARK
        ):
            return False
        outbox.settle()
        return len(outbox) == 0 or time.monotonic() - idle_since > _LEAVING_S

    def _look_aside(self) -> None:
        goroutines.look_aside()

    def _run_ready(self) -> bool:
        """Python's goroutines, then frames: one of those, if the others are to have their turn again."""
        ran = self._run_python()
        return goroutines.run_ready(only_one=coroutines.is_any_ready()) or ran

    def _park(self, seen: int, seconds: float) -> None:
        goroutines.park(seen, min(seconds, _LONGEST_NAP_S))

    def _has_more_to_do(self, request: int) -> bool:
        if request == NO_REQUEST:
            return bool(self._queue) or self._was_told
        if request == OF_GOROUTINE:
            return bool(self._queue)
        return bool(self._queue) or not self.mailbox.is_expected(request)

    def arrived(self, message: Message) -> None:
        if message.op == "run":
            self._queue.append(message)
        elif message.op in ("leave", "stay"):
            self._leaves, self._was_told = message.op == "leave", True
        elif message.op == "undelivered":
            outbox.revoke(self._parcels.pop(message["parcel"], ()))
        else:
            super().arrived(message)

    def _run_queued(self) -> bool:
        try:
            message = self._queue.popleft()
        except IndexError:
            return False
        self.run(message)
        return True

    def run(self, message: Message) -> None:
        """Run one goroutine, unless another P has it by now, and say how it ended."""
        g, heir = message["g"], message["heir"]
        if take_ticket(g, message["id"], int(self._record.idx)) != TAKEN:
            return
        self.mailbox.post("started", g=g)
        with told_of(message["id"], message["name"]):
            succeeded, payload, sent = dump_outcome(lambda: self._call(message), heir)
        self._record.programs += 1
        try:
            self.mailbox.post("done", payload, g=g, ok=succeeded, parcel=self._keep(sent))
        except MessageTooLarge as error:
            outbox.revoke(sent)
            self.mailbox.post("done", dump_failure(error), g=g, ok=False)

    def _keep(self, sent: list[Sent]) -> int:
        """Remember what a result has sent, until the coordinator may have said that there is nobody for it; its number, 0 for none."""
        if not sent:
            return 0
        parcel = next(self._numbers)
        self._parcels[parcel] = sent
        if len(self._parcels) > _PARCELS_KEPT:
            self._parcels.pop(min(list(self._parcels)), None)
        return parcel

    @staticmethod
    def _call(message: Message) -> object:
        before = here.run()  # a goroutine of Python's may wait here as programs do, and this is none of its doing
        try:
            make_room()
            call: Call = pickle.loads(message.payload)
            result = call.run()
            return result if message["awaited"] else None
        except StaleReference as stale:
            if not message["awaited"]:
                log.error("goroutine %d (%s) ended: %s", message["g"], message["name"], stale)
            raise
        except BaseException:
            if not message["awaited"]:
                log.exception("goroutine %d (%s) ended with an exception", message["g"], message["name"])
            raise
        finally:
            here.go_back(before)


def _return_free_memory() -> None:
    """What Python has freed goes back to the system: the C library would keep as much as it once took, 6 MiB after one large syntax tree."""
    for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
        libc.mallopt(option, _MOST_FREE)


def run(
    idx: int,
    shared: segments.Segments,
    wake_fd: int,
    channel: socket.socket,
    log_sock: socket.socket | None,
    parent: int,
) -> None:
    """Be P ``idx``; never returns. The coordinator is ``parent``; when it dies, so does this process."""
    forked.die_with_parent(parent, f"gomp-p{idx}".encode())
    forked.be_killed_first(forked.P_OOM_SCORE)
    forked.reset_signals()
    keep = {0, 1, 2, shared.heap_fd, shared.meta_fd, wake_fd, channel.fileno()} | (
        {log_sock.fileno()} if log_sock else set()
    )
    forked.close_other_descriptors(keep)
    segments.protect_from_fork()
    segments.map_self(shared, idx)
    init_p(idx, os.getpid(), shared.heap_fd, shared.meta_fd, wake_fd, channel.fileno())
    tell_if_tracing(TRACE_PROCESS, os.getpid(), 0)
    if log_sock:
        logs.attach(log_sock, f"P{idx}")
    else:
        logs.name_process(f"P{idx}")
    gc.enable()
    _return_free_memory()
    peer = P(Channel(channel), view(p_dtype, layout.PS_BASE + idx * layout.P_STRIDE)[0])
    compiled.compile_in_child = True
    current.open_process(idx, peer)
    try:
        peer.serve()
    except RuntimeLost:
        os._exit(0)
    sys.stdout.flush()
    os._exit(EXIT_LEFT)
