"""The coordinator: forks the Ps and the service, runs the collector's cycles, gives goroutines to Ps, watches for deaths.

It has one thread, for good: forking is sound, and a pause never waits for the interpreter's lock. It has one wait, an epoll over an eventfd
that kernels write, pidfds, sockets and signals; its own work, background sweeping, goes in short slices between events.

Life::

    load kernels → make segments → write records → register the name → fork service and Ps → announce → loop → end everything

It is started by ``gomp serve``, or by a script's Runtime with a socket: that runtime ends when the socket hangs up.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, cast

from gomp.config import RuntimeSettings, ServiceSettings
from gomp.core.gc import pacer
from gomp.core.gc.cycle import flush_caches_stw
from gomp.core.mutator.lifecycle import init_p, init_runtime
from gomp.core.sched.status import start_world, stop_world
from gomp.core.sched.throw import MESSAGES
from gomp.core.shm import layout, segments
from gomp.core.shm.records import (
    GC_TRIGGER_LAST_RESORT,
    GC_TRIGGER_TIME,
    MHEAP,
    RUNTIME,
    layout_version,
    mheap_dtype,
    p_dtype,
    runtime_dtype,
    view,
)
from gomp.errors import GompError, OutOfMemory, RuntimeLost, SegmentError
from gomp.kernels import load_all_kernels
from gomp.runtime import cgroup, discovery, memstats
from gomp.runtime.channel import Channel, Message
from gomp.runtime.collector import STOP_DEADLINE_S, Collector, Stuck
from gomp.runtime.family import Child, Family
from gomp.runtime.memstats import MemStats
from gomp.runtime.programs import Call, dump_failure
from gomp.runtime.requests import fault
from gomp.runtime.tasks import Tasks
from gomp.service import logs

log = logging.getLogger("gomp.coordinator")

FORCED_GC_PERIOD_S = 120.0
EXIT_CRASH = 3
_IDLE_S = 0.5
_DYING_S = 1.0  # from the hang-up of a P's socket to the end of its process
_NAMES_SHOWN = 8
_MAX_ATTACHED = 16
_MAX_CONNECTIONS = 64
_CGROUP_RESERVE = 16 << 20
_BUDGET_PERIOD_S = 0.1


@dataclass
class Attached:
    """A connected process: a script with a P, or a client that only asks (``p`` is None)."""

    channel: Channel
    p: int | None = None


class Coordinator:
    """One runtime."""

    def __init__(
        self,
        settings: RuntimeSettings,
        owner: socket.socket | None,
        metrics: socket.socket | None = None,
        url: str = "",
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.url = url
        self.owner = Attached(Channel(owner)) if owner else None
        self.epoll = select.epoll()
        self.urgent = select.epoll()
        self.handlers: dict[int, Callable[[int], None]] = {}
        self.ending = False
        self.exit_code = 0
        self.attached: list[Attached] = []
        self.pid = os.getpid()
        self.cgroup = cgroup.MemoryCgroup.of_this_process()

    # --- starting -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make the runtime and announce it. Raises GompError."""
        s = self.settings
        try:
            self.shared = segments.create(s.max_heap)
            segments.map_segments(self.shared, inherit=True)
            segments.commit_fixed(self.shared, [*range(s.procs + _MAX_ATTACHED), layout.COORDINATOR_P])
        except OSError as error:
            raise SegmentError(
                error.errno, f"cannot make the heap of {s.max_heap >> 20} MiB: {error.strerror}"
            ) from None
        segments.map_self(self.shared, layout.COORDINATOR_P)
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._init_records()
        name = s.name or f"gomp-{self.pid}"
        self.registration = discovery.Registration(name)
        self.registration.describe(discovery.RuntimeInfo(name, s.procs, s.max_heap, self.pid, self.url))
        self.tasks = Tasks(s.procs, self.shared.meta_fd)
        self._watch(self.urgent.fileno(), self._on_urgent)
        view(p_dtype, layout.p_addr(layout.COORDINATOR_P))[0].urgent_fd = self.urgent.fileno()
        self._watch_signals()
        gc.collect()
        gc.freeze()
        self._fork_all()
        self._watch(self.wake_fd, self._on_wake)
        self._watch(self.registration.listener.fileno(), self._on_connect)
        view(runtime_dtype, RUNTIME)[0].xready = 1
        if self.shared.backing == "memfd":
            log.info(
                "/dev/shm is smaller than max_heap=%d: the heap is in a memfd, which only the cgroup limits", s.max_heap
            )
        if self.owner:
            self._admit(self.owner)
        for program in getattr(s, "programs", ()):
            self._go(Call(program.program, (), dict(program.parameters)), None, 0)

    def _init_records(self) -> None:
        s = self.settings
        init_runtime(layout_version(), s.max_heap // layout.PAGE_SIZE, s.procs)
        rt = view(runtime_dtype, RUNTIME)[0]
        rt.coordinator_pid = self.pid
        rt.clobberfree = s.debug.clobberfree
        rt.collect_every = s.debug.gccollectevery
        rt.stop_the_world = s.debug.gcstoptheworld
        pacer.set_gc_percent(s.gogc, s.memory_limit)
        pacer.commit(1)
        self._init_p(layout.COORDINATOR_P, self.pid, self.shared.heap_fd, self.shared.meta_fd, self.wake_fd)
        for idx in range(s.procs):  # a collection may come before a P's own process does: it must find no spans there
            self._init_p(idx)
        self.collector = Collector(s.procs, s.debug)

    def _init_p(self, idx: int, pid: int = 0, heap_fd: int = -1, meta_fd: int = -1, wake_fd: int = -1) -> None:
        if not init_p(idx, pid, heap_fd, meta_fd, wake_fd, -1):
            raise SegmentError(errno.ENOMEM, "cannot make the collector's work buffers: shared memory is full")

    def _fork_all(self) -> None:
        self.family = Family(self.shared, self.wake_fd)
        if self.metrics:
            service = self.family.fork_service(cast(ServiceSettings, self.settings), self.metrics)
            self._watch(service.pidfd, lambda fd: self._on_death(fd, service, "the service"), self.urgent)
        for idx in range(self.settings.procs):
            self._watch_p(idx, self.family.fork_p(idx))

    def _watch_p(self, idx: int, child: Child) -> None:
        self._watch(child.pidfd, lambda fd: self._on_death(fd, child, f"P{idx}"), self.urgent)
        self._watch(self._channel(idx).fileno(), lambda _: self._on_p_message(idx))

    def _channel(self, idx: int) -> Channel:
        """The connection to P ``idx``."""
        return cast(Channel, self.family.ps[idx].channel)

    def _watch_signals(self) -> None:
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        signal.set_wakeup_fd(writer.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._signals = (reader, writer)
        self._watch(reader.fileno(), self._on_signal, self.urgent)

    def _watch(self, fd: int, handler: Callable[[int], None], epoll: select.epoll | None = None) -> None:
        self.handlers[fd] = handler
        (epoll or self.epoll).register(fd, select.EPOLLIN)

    def _unwatch(self, fd: int) -> None:
        del self.handlers[fd]
        self.epoll.unregister(fd)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until the runtime ends; the exit code."""
        self._set_commit_budget()
        while not self.ending:
            for fd, _ in self.epoll.poll(self._collect()):
                if fd in self.handlers:
                    self.handlers[fd](fd)
            self._flush_channels()
            if time.monotonic() - self._budget_set > _BUDGET_PERIOD_S:
                self._set_commit_budget()
        return self.exit_code

    def _collect(self) -> float:
        """Do a little of the collector's work; for how long it may be left alone."""
        try:
            if self.settings.gogc >= 0 and self.collector.idle_s > FORCED_GC_PERIOD_S:
                self.collector.begin(GC_TRIGGER_TIME)
            rest = self.collector.step()
        except Stuck as stuck:
            self._on_urgent(self.urgent.fileno())  # a signal, or a death that explains it
            if not self.ending:
                self._lose(self._describe_stuck(stuck.p))
            return 0.0
        if self.collector.problems:
            self._crash("; ".join(self.collector.problems))
        return _IDLE_S if rest is None else rest

    def _set_commit_budget(self) -> None:
        """How much may be committed before the next look: what the cgroup leaves, less what interpreters and page tables may take."""
        self._budget_set = time.monotonic()
        headroom = self.cgroup.headroom()
        if headroom is not None:
            view(mheap_dtype, MHEAP)[0].xcommit_budget = max(headroom - _CGROUP_RESERVE, 0)

    def _flush_channels(self) -> None:
        """Send what peers take now, and be woken when they take more."""
        for channel in (*map(self._channel, range(len(self.family.ps))), *(a.channel for a in self.attached)):
            if not channel.is_flushed and channel.fileno() in self.handlers:
                with contextlib.suppress(RuntimeLost):
                    channel.flush()
                more = 0 if channel.is_flushed else select.EPOLLOUT
                self.epoll.modify(channel.fileno(), select.EPOLLIN | more)

    def _on_wake(self, fd: int) -> None:
        os.eventfd_read(fd)
        rt = view(runtime_dtype, RUNTIME)[0]
        if rt.xthrow > 0:
            self._crash(MESSAGES[int(rt.xthrow)].format(a=int(rt.throw_a), b=int(rt.throw_b)))
        elif rt.xgc_request == GC_TRIGGER_LAST_RESORT:
            self._set_commit_budget()

    def _describe_stuck(self, idx: int) -> str:
        record = view(p_dtype, layout.PS_BASE + idx * layout.P_STRIDE)[0]
        running = (
            ", ".join(t.name for t in self.tasks.of(idx)[:_NAMES_SHOWN])
            if idx < self.settings.procs
            else "an attached script"
        )
        return (
            f"P{idx} (pid {int(record.xpid)}) did not stop within {STOP_DEADLINE_S:.0f} s; it runs {running or 'nothing'}"
            f"{f' and waits for the lock at {int(record.waiting_for):#x}' if record.waiting_for else ''}"
        )

    def _verify(self, level: int) -> dict[str, Any]:
        from gomp.runtime.verify import verify

        with self._stopped_world() as stuck:
            return {"stuck": stuck, "problems": [stuck]} if stuck else asdict(verify(level))

    def _stats(self) -> MemStats:
        """Exact counters: as Go's ReadMemStats, with the world stopped and every P's cache given back."""
        with self._stopped_world() as stuck:
            if not stuck:
                flush_caches_stw()
            return memstats.read()

    @contextlib.contextmanager
    def _stopped_world(self) -> Iterator[str]:
        """Stop the world for the block; gives "" or which P did not stop."""
        code = stop_world(time.monotonic_ns() + int(STOP_DEADLINE_S * 1e9))
        try:
            yield self._describe_stuck(-1 - code) if code else ""
        finally:
            start_world()

    # --- events -------------------------------------------------------------------------------------------------------

    def _on_signal(self, fd: int) -> None:
        self._signals[0].recv(64)
        self.ending = True

    def _on_urgent(self, fd: int) -> None:
        """Signals and deaths, which a stop does not delay."""
        for ready, _ in self.urgent.poll(0):
            self.handlers[ready](ready)

    def _on_death(self, fd: int, child: Child, who: str) -> None:
        del self.handlers[fd]
        self.urgent.unregister(fd)
        self._lose(f"{who} (pid {child.pid}) {child.reap()}; the runtime ends")

    def _on_p_message(self, idx: int) -> None:
        channel = self._channel(idx)
        try:
            messages = channel.receive()
        except RuntimeLost as error:
            self._unwatch(channel.fileno())
            child = self.family.ps[idx]
            if not child.has_died(_DYING_S):  # if it has, its pidfd tells
                self._lose(f"P{idx} (pid {child.pid}) cannot be understood: {error}; the runtime ends")
            return
        for message in messages:
            if problem := fault(message, from_p=True):
                _refuse(channel, problem)
            elif message.op == "go":
                self._go_for(("p", idx), message, idx)
            elif message.op == "started":
                self.tasks.started(idx, message["g"])
            elif message.op == "done":
                self._done(idx, message)
            else:
                self._answer(channel, message)

    def _on_connect(self, fd: int) -> None:
        with contextlib.suppress(OSError):  # it hung up already, or there is no descriptor for it
            sock, _ = self.registration.listener.accept()
            peer = Attached(Channel(sock))
            if len(self.attached) >= _MAX_CONNECTIONS:
                _refuse(peer.channel, f"the runtime has {_MAX_CONNECTIONS} connections already")
                peer.channel.close()
                return
            self.attached.append(peer)
            self._watch(sock.fileno(), lambda _: self._on_attached_message(peer))

    def _admit(self, peer: Attached) -> None:
        """Give the script its P and the segments' descriptors."""
        rt = view(runtime_dtype, RUNTIME)[0]
        peer.p = int(rt.nrecords)
        self._init_p(peer.p)
        rt.nrecords += 1
        self.attached.append(peer)
        self._watch(peer.channel.fileno(), lambda _: self._on_attached_message(peer))
        peer.channel.send(
            "ready",
            descriptors=[self.shared.heap_fd, self.shared.meta_fd, self.wake_fd],
            p=peer.p,
            heap_bytes=self.shared.heap_bytes,
            backing=self.shared.backing,
            version=layout_version(),
            name=self.registration.name,
        )

    def _on_attached_message(self, peer: Attached) -> None:
        try:
            messages = peer.channel.receive()
        except RuntimeLost:
            self._detach(peer)
            return
        for message in messages:
            if problem := fault(message, from_p=False):
                _refuse(peer.channel, problem)
            elif message.op == "go":
                self._go_for(peer, message, None)
            else:
                self._answer(peer.channel, message)

    def _detach(self, peer: Attached) -> None:
        self._unwatch(peer.channel.fileno())
        self.attached.remove(peer)
        peer.channel.close()
        if peer is self.owner:
            self.ending = True

    def _answer(self, channel: Channel, message: Message) -> None:
        """Requests to the coordinator itself."""
        with contextlib.suppress(RuntimeLost):
            if message.op == "verify":
                report = self._verify(message["level"])
                if "stuck" in report:
                    _refuse(channel, report["stuck"])
                else:
                    channel.send("verify", **report)
            else:
                channel.send("stats", **self._stats().to_json())

    # --- goroutines ---------------------------------------------------------------------------------------------------

    def _go(self, call: Call, origin: Any, request: int) -> None:
        self._go_for(origin, Message("go", {"name": str(call), "request": request}, call.dumps()), None)

    def _go_for(self, origin: Any, message: Message, near: int | None) -> None:
        try:
            task = self.tasks.create(message["name"], origin, message["request"], message.payload, near)
        except OutOfMemory as error:
            self._tell(origin, message["request"], False, dump_failure(error))
            return
        with contextlib.suppress(RuntimeLost):
            self._channel(task.p).send("run", task.payload, g=task.g, name=task.name, awaited=origin is not None)

    def _done(self, idx: int, message: Message) -> None:
        task = self.tasks.ended(idx, message["g"])
        if task is not None:
            self._tell(task.origin, task.request, message["ok"], message.payload)

    def _tell(self, origin: Any, request: int, ok: bool, payload: bytes) -> None:
        """Tell whoever started a goroutine how it ended, if anybody did."""
        if origin is None:
            return
        channel = self._channel(origin[1]) if isinstance(origin, tuple) else origin.channel
        with contextlib.suppress(RuntimeLost, OSError):
            channel.send("done", payload, request=request, ok=ok)

    # --- ending -------------------------------------------------------------------------------------------------------

    def _lose(self, why: str) -> None:
        """The runtime cannot go on: say so to everybody, and end."""
        log.error("%s", why)
        self.exit_code = EXIT_CRASH
        self.ending = True
        for peer in self.attached:
            with contextlib.suppress(RuntimeLost):
                peer.channel.send("lost", why=why)

    def _crash(self, why: str) -> None:
        self._lose(f"fatal: {why}")

    def end(self) -> None:
        """End every process of the runtime and leave nothing behind."""
        rt = view(runtime_dtype, RUNTIME)[0]
        rt.xready = 0
        rt.xshutdown = 1
        if hasattr(self, "family"):
            self.family.end()
        self.registration.remove()


def _refuse(channel: Channel, problem: str) -> None:
    """Answer a request that cannot be served, so that nobody waits for ever."""
    with contextlib.suppress(RuntimeLost):
        channel.send("error", text=problem)


def main(settings: ServiceSettings) -> int:
    """Be the coordinator of a service until it is told to end; the exit code."""
    from gomp.service import process

    logs.configure(settings.log_level, "coordinator")
    metrics = process.bind(settings)
    load_all_kernels()
    coordinator = Coordinator(settings, None, metrics, process.url(metrics))
    return _run(coordinator, lambda: print(f"gomp is ready: {coordinator.url}", flush=True))


def _run(coordinator: Coordinator, announce: Callable[[], None]) -> int:
    try:
        coordinator.start()
        announce()
        return coordinator.run()
    finally:
        if hasattr(coordinator, "registration"):
            coordinator.end()


def _main() -> int:
    """``python -m gomp.runtime.coordinator FD``: the coordinator of a script, whose settings arrive as the first message on descriptor FD."""
    sock = socket.socket(fileno=int(sys.argv[1]))
    channel = Channel(sock)
    first = channel.next(30.0)
    if first is None:
        return 1
    sys.path[:] = first["path"]
    os.chdir(first["cwd"])
    logs.configure("warning", "coordinator")
    try:
        settings = RuntimeSettings.model_validate(first["settings"])
        load_all_kernels(lambda done, total: channel.send("progress", done=done, total=total))
        return _run(Coordinator(settings, sock), lambda: None)
    except GompError as error:
        with contextlib.suppress(RuntimeLost):
            channel.send("failed", kind=type(error).__name__, text=str(error))
        return 2


if __name__ == "__main__":
    sys.exit(_main())
