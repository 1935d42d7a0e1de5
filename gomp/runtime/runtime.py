"""``gomp.Runtime``: a runtime of a script's own.

The coordinator is a process of its own, started with ``python -m`` in a session of its own, so nothing of the script is imported twice and a
Ctrl-C reaches the script alone. The script gets a P: it allocates from the heap like any other. When it leaves the ``with`` block, or
dies, its socket hangs up and the runtime ends.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gomp import errors
from gomp.cgroup import MemoryCgroup
from gomp.config import RuntimeSettings, check_system, load
from gomp.core.mutator.lifecycle import init_p
from gomp.core.shm import layout, segments
from gomp.core.shm.records import (
    INLINE_MARKS,
    MHEAP,
    RUNTIME,
    SPAN_IN_USE,
    layout_version,
    mheap_dtype,
    new_view,
    runtime_dtype,
    span_dtype,
    view,
)
from gomp.errors import HeapCorrupt, RuntimeLost
from gomp.kernels import Progress, are_all_compiled, load_all_kernels
from gomp.runtime import current, discovery, interrupt, mapping, residency, waiting
from gomp.runtime.channel import Channel, Message
from gomp.runtime.memstats import MemStats
from gomp.runtime.oomkills import ADVICE, OomKills
from gomp.runtime.peer import Goroutine, Peer
from gomp.runtime.programs import Call
from gomp.runtime.residency import Residency

_START_TIMEOUT_S = 300.0
_END_TIMEOUT_S = 5.0
_DYING_S = 1.0  # from the hang-up of its socket to the end of its process


class Runtime:
    """One shared heap, ``procs`` processes that run programs on it, and a coordinator; this process takes part.

    ``gogc`` is a percentage or "off", ``memory_limit`` and ``max_heap`` are bytes or texts such as "512MiB". ``max_procs`` is how
    many Ps there may be later, with :func:`gomp.debug.set_max_procs`. What is left out comes from the environment, as in Go.
    Raises ConfigError for values that cannot be used, SegmentError if there is no memory for it.
    """

    def __init__(
        self,
        procs: int | None = None,
        gogc: int | str | None = None,
        memory_limit: int | str | None = None,
        name: str | None = None,
        max_heap: int | str | None = None,
        max_procs: int | None = None,
    ) -> None:
        given: dict[str, Any] = {
            "procs": procs,
            "gogc": gogc,
            "memory_limit": memory_limit,
            "name": name,
            "max_heap": max_heap,
            "max_procs": max_procs,
        }
        self._prepare(load(RuntimeSettings, **given))

    @classmethod
    def of(cls, settings: RuntimeSettings) -> Runtime:
        """A runtime with exactly these settings, whatever the environment says: for callers that have read it already."""
        made = cls.__new__(cls)
        made._prepare(settings)
        return made

    def _prepare(self, settings: RuntimeSettings) -> None:
        check_system()
        self.settings = settings
        self.name = ""
        self._peer: Peer | None = None
        self._pid = os.getpid()

    def __enter__(self) -> Runtime:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the processes and join them. One runtime is open in a process at a time."""
        if current.is_open():
            raise RuntimeLost("this process has a runtime open already: close it first")
        mapping.reclaim()
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "gomp.runtime.coordinator", str(theirs.fileno())]
        environment = os.environ | {
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        }
        self._process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], env=environment, start_new_session=True, stdin=subprocess.DEVNULL
        )
        theirs.close()
        channel = Channel(ours, takes_descriptors=True)
        channel.explain = functools.partial(_explain, self._process, OomKills(MemoryCgroup.of_this_process()))
        try:
            settings = self.settings.model_dump(mode="json")
            if "log_level" not in self.settings.model_fields_set:
                settings["log_level"] = "warning"  # what a script prints is its own, unless it wants more
            if "procs" not in self.settings.model_fields_set:
                del settings["procs"]  # it follows the processors there are
            channel.send("start", settings=settings, path=sys.path, cwd=os.getcwd())
            if are_all_compiled():  # else the coordinator compiles them, and says how far it is
                load_all_kernels()  # beside the coordinator, which does the same
            ready = self._wait_until_ready(channel)
            self._join(channel, ready)
        except BaseException:
            channel.close()
            self._reap()
            raise

    def _wait_until_ready(self, channel: Channel) -> Message:
        with Progress() as progress:
            while (message := channel.next(_START_TIMEOUT_S)) is not None:
                if message.op == "ready":
                    return message
                if message.op == "failed":
                    raise getattr(errors, message["kind"])(message["text"])
                if message.op == "progress":
                    progress.show(message["done"], message["total"])
        raise RuntimeLost(f"the coordinator (pid {self._process.pid}) was not ready within {_START_TIMEOUT_S:.0f} s")

    def _join(self, channel: Channel, ready: Message) -> None:
        """Take the segments and the P that the coordinator gave this process."""
        heap_fd, meta_fd, wake_fd = channel.descriptors
        if ready["version"] != layout_version():
            raise RuntimeLost("the coordinator runs another version of gomp: is more than one installed?")
        load_all_kernels()
        self._segments = segments.Segments(heap_fd, meta_fd, ready["heap_bytes"], ready["backing"])
        self._wake_fd = wake_fd
        segments.map_segments(self._segments)
        segments.map_self(self._segments, ready["p"])
        init_p(ready["p"], os.getpid(), heap_fd, meta_fd, wake_fd, channel.fileno())
        self.name = ready["name"]
        self._peer = Peer(channel)
        current.open_process(ready["p"], self._peer)
        interrupt.handler.install()

    def close(self) -> None:
        """End the runtime. References that are left become unusable; nothing of it stays behind, but what a view of it looks at."""
        if self._peer is None or not current.is_peer(self._peer):
            return
        peer, self._peer = self._peer, None
        with contextlib.ExitStack() as ends:  # whatever is interrupted, from below
            ends.callback(mapping.release, self._unmap)
            ends.callback(self._say_shutdown)
            ends.callback(self._reap)
            ends.callback(current.close_process)
            ends.callback(peer.mailbox.close)
            ends.callback(interrupt.handler.uninstall)

    @staticmethod
    def _say_shutdown() -> None:
        """A coordinator that was killed has not said so to threads that wait here."""
        view(runtime_dtype, RUNTIME)[0].xshutdown = 1

    def _unmap(self) -> None:
        """Once more, if it was interrupted."""
        segments.cover(self._segments)
        self._segments.close()
        wake_fd, self._wake_fd = self._wake_fd, -1
        if wake_fd >= 0:
            os.close(wake_fd)

    def _reap(self) -> None:
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def _open(self) -> Peer:
        if self._peer is None or not current.is_peer(self._peer):
            if self._pid != os.getpid():
                raise RuntimeLost(
                    "this runtime belongs to the process that this one was forked from, which alone can use it"
                )
            raise RuntimeLost("this runtime is not open: use it in a `with` block")
        return self._peer

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
        return discovery.open_channel(self.name)

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


def _explain(coordinator: subprocess.Popen[bytes], oom_kills: OomKills, loss: str) -> str:
    """The connection is gone, ``loss`` in words; and if its coordinator was killed, that, for it says nothing itself."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        code = coordinator.wait(_DYING_S)
        if code < 0:
            why = oom_kills.suspect() if code == -signal.SIGKILL else ""
            how = f"{why}; {ADVICE}" if why else f"was killed by {signal.Signals(-code).name}"
            return f"{loss}: its coordinator (pid {coordinator.pid}) {how}"
    return loss


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False
    return array
