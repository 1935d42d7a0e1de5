"""A process's part in a runtime, whichever way it came to it: a P of its own, and what can be asked and done through it.

:class:`~gomp.runtime.runtime.Runtime` starts a runtime and joins it, :mod:`~gomp.runtime.attach` joins one that runs.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

from gomp.cgroup import MemoryCgroup
from gomp.core.mutator.lifecycle import init_p
from gomp.core.shm import layout, segments
from gomp.core.shm.records import (
    INLINE_MARKS,
    MHEAP,
    SPAN_IN_USE,
    TRACE_PROCESS,
    mheap_dtype,
    new_view,
    span_dtype,
    view,
)
from gomp.core.shm.tracing import tell_if_tracing
from gomp.errors import HeapCorrupt, RuntimeLost
from gomp.runtime import current, discovery, interrupt, mapping, residency, waiting
from gomp.runtime.channel import Channel, Message
from gomp.runtime.memstats import MemStats
from gomp.runtime.peer import Goroutine, Peer
from gomp.runtime.programs import Call
from gomp.runtime.residency import Residency


def _let_one_at_a_time() -> None:
    """Of a process's threads, of which a forked child has none but its own."""
    global _coming_or_going
    _coming_or_going = threading.RLock()


_coming_or_going: AbstractContextManager[Any]  # what is mapped, and which P this is, are the whole process's
_let_one_at_a_time()
os.register_at_fork(after_in_child=_let_one_at_a_time)


class Joined:
    """While ``_peer`` is this process's connection, its P is there to be used. A process has one at a time."""

    def __init__(self) -> None:
        self.name = ""
        self._peer: Peer | None = None
        self._pid = os.getpid()
        self._descriptors: list[int] = []
        self._others: weakref.WeakSet[Channel] = weakref.WeakSet()  # its connections beside the peer's

    @staticmethod
    def _alone() -> AbstractContextManager[Any]:
        """Around what goes, whole: other threads that come or go wait."""
        return _coming_or_going

    @staticmethod
    def _make_way() -> None:
        """Raises RuntimeLost if this process is in a runtime, or still looks at its last one."""
        with _coming_or_going:
            if current.is_open():
                raise RuntimeLost("this process has a runtime open already: close it first")
            mapping.reclaim()

    def _join(self, channel: Channel, ready: Message) -> None:
        """Take the segments, whose descriptors have come, and the P that ``ready`` says. What interrupts it leaves nothing mapped."""
        with _coming_or_going:
            self._make_way()  # another thread may have been faster
            heap_fd, meta_fd, wake_fd = channel.descriptors
            self._segments = segments.Segments(heap_fd, meta_fd, ready["heap_bytes"], ready["backing"])
            self._descriptors, channel.descriptors = channel.descriptors, []
            try:
                self._take_part(channel, ready, wake_fd)
            except BaseException:
                self._let_go()
                raise

    def _take_part(self, channel: Channel, ready: Message, wake_fd: int) -> None:
        heap_fd, meta_fd = self._segments.heap_fd, self._segments.meta_fd
        segments.map_segments(self._segments)
        segments.map_self(self._segments, ready["p"])
        init_p(ready["p"], os.getpid(), heap_fd, meta_fd, wake_fd, channel.fileno())
        tell_if_tracing(TRACE_PROCESS, os.getpid(), 0)
        self.name = ready["name"]
        peer = Peer(channel)
        current.open_process(ready["p"], peer)
        interrupt.handler.install()
        self._peer = peer

    def _let_go(self) -> None:
        """Have nothing of the runtime any more, which goes on. Once more, if it was interrupted."""
        interrupt.handler.uninstall()
        current.close_process()
        segments.cover(self._segments)
        mapping.release(self._close_descriptors)

    def _take_peer(self) -> Peer | None:
        """The connection, for who ends it; None if it has ended, or is not this process's."""
        if self._peer is None or not current.is_peer(self._peer):
            return None
        peer, self._peer = self._peer, None
        return peer

    def _close_descriptors(self) -> None:
        """Once more, if it was interrupted."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _open(self) -> Peer:
        if self._peer is None or not current.is_peer(self._peer):
            if self._pid != os.getpid():
                raise RuntimeLost(
                    "this runtime belongs to the process that this one was forked from, which alone can use it"
                )
            raise RuntimeLost(self._why_not_open())
        return self._peer

    def _why_not_open(self) -> str:
        return "this runtime is not open: use it in a `with` block"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a runtime stays in the script that opened it: what runs on a P starts goroutines with gomp.go and collects with gomp.gc"
        )

    # --- work ---------------------------------------------------------------------------------------------------------

    def go(self, target: str | Callable[..., Any], *args: Any, **kwargs: Any) -> Goroutine:
        """Start a program, by name, or a function on a P; returns at once."""
        return self._open().go(Call(target, args, kwargs))

    def run(self, target: str | Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a program or a function on a P and return its result; raises what it raised."""
        return self.go(target, *args, **kwargs).wait()

    def open_channel(self) -> Channel:
        """Another connection to the coordinator, for a thread of its own."""
        self._open()
        channel = discovery.open_channel(self.name)
        self._others.add(channel)
        return channel

    def _hang_up_others(self) -> None:
        """Who waits at another connection gets RuntimeLost: this process has left."""
        for channel in list(self._others):
            channel.explain = lambda _: f"this process has left the runtime {self.name}"
            with contextlib.suppress(OSError):  # it is closed
                channel.sock.shutdown(socket.SHUT_RDWR)

    def gc(self) -> None:
        """Run a whole collection and return when it is done."""
        self._open()
        waiting.collect()

    def stats(self) -> MemStats:
        """The runtime's counters, exactly: as Go's ReadMemStats this stops the world and empties the Ps' caches."""
        return MemStats.from_json(self._open().ask("stats").fields)

    def resident(self) -> Residency:
        """What is really in memory: pages of the segments, the charge of this process's cgroup, and what could be given back. Nothing is stopped."""
        self._open()
        return residency.read(self._segments.heap_fd, self._segments.meta_fd, MemoryCgroup.of_this_process())

    def verify(self, level: int = 3) -> str:
        """Walk the heap and prove it consistent; one line that says what was seen. Raises HeapCorrupt, naming what is wrong."""
        answer = self._open().ask("verify", level=level)
        if answer["problems"]:
            raise HeapCorrupt("; ".join(answer["problems"]))
        return f"verified at level {level}: {answer['spans']:,} spans, {answer['objects']:,} objects, {answer['bytes']:,} bytes"

    # --- looking inside -----------------------------------------------------------------------------------------------

    @property
    def spans(self) -> npt.NDArray[np.void]:
        """The span table, read-only and live: element i is the record of the span that starts at page i of the heap."""
        self._open()
        return mapping.watch(_read_only(new_view(span_dtype, layout.SPANS_BASE, self._grown_pages())))

    @property
    def marks(self) -> npt.NDArray[np.uint8]:
        """A read-only copy: row i has the mark and scan bits of the span at page i if its slots are of 16 to 512 bytes, else zeros.

        Such a span is one page, whose last 128 bytes these are. They are read through the descriptor: a page that has been given back to the
        system meanwhile reads as zeros, where touching its address would commit it outside the budget.
        """
        spans = self.spans
        marks = np.zeros((len(spans), INLINE_MARKS), np.uint8)
        sizes = spans["elem_size"]
        for page in np.flatnonzero((spans["state"] == SPAN_IN_USE) & (sizes >= 16) & (sizes <= 512)):
            end = (int(page) + 1) << layout.PAGE_SHIFT
            os.preadv(self._segments.heap_fd, [marks[page]], end - INLINE_MARKS)
        return _read_only(marks)

    @staticmethod
    def _grown_pages() -> int:
        return int(view(mheap_dtype, MHEAP)[0].end_page)


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False
    return array
