"""The coordinator: forks the Ps and the service, runs the collector's cycles, gives goroutines to Ps, watches for deaths.

It has one thread, for good: forking is sound, and a pause never waits for the interpreter's lock. It has one wait, an epoll over an eventfd
that kernels write, pidfds, sockets and signals; its own work, background sweeping, goes in short slices between events.

Life::

    load kernels → make segments → write records → register the name → fork service and Ps → announce → loop → end everything

Its parts, each with one job: :mod:`~gomp.runtime.events` (what it waits for), :mod:`~gomp.runtime.ps` (processes of Ps, their deaths and
successors), :mod:`~gomp.runtime.stopping` (stops, and who does not), :mod:`~gomp.runtime.limits`, :mod:`~gomp.runtime.resizing`,
:mod:`~gomp.runtime.connected` (other processes), :mod:`~gomp.runtime.answers` and :mod:`~gomp.runtime.ending`.

It is started by ``gomp serve``, or by a script's Runtime with a socket: that runtime ends when the socket hangs up.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import cast

from gomp.cgroup import MemoryCgroup
from gomp.config import AUTO, NO_LIMIT, RuntimeSettings, ServiceSettings, ignored
from gomp.core.gc import pacer
from gomp.core.gc.pacerlog import note
from gomp.core.gc.verify.sizes import check_sizes
from gomp.core.jit import cache_key
from gomp.core.mutator.lifecycle import init_p, init_runtime
from gomp.core.sched.status import end_world
from gomp.core.shm import layout, segments
from gomp.core.shm.records import (
    MEMPROFILE,
    MHEAP,
    PACER_EVENT_SET,
    RUNTIME,
    STACKPOOL,
    layout_version,
    memprofile_dtype,
    mheap_dtype,
    runtime_dtype,
    stackpool_dtype,
    view,
)
from gomp.errors import ConfigError, GompError, RuntimeLost, SegmentError
from gomp.forked import how_it_ended
from gomp.kernels import load_all_kernels
from gomp.runtime import compiled, crash, discovery, orphans, pacerlog, throws
from gomp.runtime.answers import Answers
from gomp.runtime.autolimit import P_TAKES, SERVICE_TAKES
from gomp.runtime.borrowed import BorrowedPs
from gomp.runtime.channel import Channel
from gomp.runtime.collector import Collector, Stuck
from gomp.runtime.connected import CLIENTS, Connected
from gomp.runtime.deadlocks import Deadlocks
from gomp.runtime.dispatcher import Dispatcher
from gomp.runtime.dying import Dying
from gomp.runtime.ending import EXIT_CRASH, Ending
from gomp.runtime.events import Events
from gomp.runtime.family import Child, Family
from gomp.runtime.invitation import Invitation
from gomp.runtime.lazyreturn import LazyReturn
from gomp.runtime.limits import Limits
from gomp.runtime.maxprocs import MaxProcs
from gomp.runtime.oomkills import ADVICE, OomKills
from gomp.runtime.pacertape import PacerTape
from gomp.runtime.ps import Ps
from gomp.runtime.resizing import Resizing
from gomp.runtime.scavenger import Scavenger
from gomp.runtime.stopping import Stopping, p_record
from gomp.runtime.sysmon import Sysmon
from gomp.runtime.tasks import Tasks
from gomp.runtime.tracing import Tracing
from gomp.service import logs, process, stderr

log = logging.getLogger("gomp.coordinator")

_IDLE_S = 0.5


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
        self.owner = Channel(owner) if owner else None
        self.pid = os.getpid()
        self.cgroup = MemoryCgroup.of_this_process()
        self.max_procs = MaxProcs(settings)
        self.owner_p = self.max_procs.slots if owner else None
        self.records = self.max_procs.slots + (owner is not None) + settings.max_attached
        self.events = Events()
        self.ending = Ending()
        self.dying = Dying()
        self.oom_kills = OomKills(self.cgroup)
        self.sysmon = Sysmon()

    # --- starting -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make the runtime and announce it. Raises GompError."""
        s = self.settings
        self._make_segments()
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._init_records()
        name = s.name or f"gomp-{self.pid}"
        self.registration = discovery.Registration(name)
        control = self._bind_control()
        self.info = discovery.RuntimeInfo(
            name, s.procs, s.max_heap, self.pid, self.url, control=process.where(control), gomp=version("gomp"), build=cache_key()
        )  # fmt: skip
        self.registration.describe(self.info)
        self._make_parts()
        p_record(layout.COORDINATOR_P).urgent_fd = self.events.urgent_fd
        self._watch_signals()
        compiled.prepare()
        gc.collect()
        gc.freeze()
        self.limits.auto.expect(s.procs * P_TAKES + (SERVICE_TAKES if self.metrics else 0))
        self._fork_all(control)
        self.limits.follow()
        self.events.watch(self.wake_fd, self._on_wake)
        self.connected.listen(self.registration.listener)
        self._say_what_is_odd()
        if self.owner:
            self._admit(self.owner)
        self.dispatcher.supervise_all(getattr(s, "programs", ()), 0, s.procs)

    def _make_segments(self) -> None:
        s = self.settings
        try:
            self.shared = segments.create(s.max_heap)
            segments.map_segments(self.shared, inherit=True)
            segments.commit_fixed(self.shared, [*range(self.records), layout.COORDINATOR_P])
        except OSError as error:
            raise SegmentError(
                error.errno, f"cannot make the heap of {s.max_heap >> 20} MiB: {error.strerror}"
            ) from None
        segments.map_self(self.shared, layout.COORDINATOR_P)

    def _make_parts(self) -> None:
        s, slots = self.settings, self.max_procs.slots
        events, ending, dying, collector = self.events, self.ending, self.dying, self.collector
        self.family = Family(self.shared, self.wake_fd)
        self.dispatcher = Dispatcher(Tasks(s.procs, slots, self.shared.meta_fd), self.family.channel)
        self.ps = Ps(
            events, ending, self.family, self.dispatcher, collector, dying, self.oom_kills, slots,
            lambda asker: self.answers.give(asker), lambda *p: self.borrowed.has_settled(*p),
        )  # fmt: skip
        self.stopping = Stopping(
            events, ending, self.family, self.dispatcher, collector, dying, self.ps.repair, slots, self.owner_p
        )  # fmt: skip
        self.limits = Limits(s, self.cgroup, collector, self.scavenger, self.stopping.stopped_world)
        collector.on_last_resort = self.limits.set_last_budget
        if self.scavenger.lazy:  # a limit may have been lowered: nobody is to commit what the old one left
            self.scavenger.lazy.on_short = self.limits.set_budget
        self.resizing = Resizing(
            self.max_procs, getattr(s, "programs", ()), collector, self.dispatcher, self.ps, self.stopping, self._describe
        )  # fmt: skip
        deadlocks = Deadlocks(self.family, ending, self.dispatcher, s.name or "")
        tracing = Tracing(slots, self.dispatcher, self.stopping.stopped_world, bool(self.settings.debug.flightrecorder))
        self.answers = Answers(
            collector, self.scavenger, self.dispatcher, self.limits, deadlocks, tracing, self.shared, self.resizing.ask,
            self.stopping.stopped_world, lambda: self.stopping.is_held_up, self._crash,
        )  # fmt: skip
        self.invitation = Invitation(self.registration.name, self.shared, self.wake_fd)
        lent = range(slots + (self.owner is not None), self.records)
        self.borrowed = BorrowedPs(
            lent, self.invitation, events, ending, dying, self.stopping.stopped_world, self.ps, self._tell_who
        )
        self.connected = Connected(
            events, ending, self.dispatcher, self.borrowed, self.answers.give, self._forget, CLIENTS + s.max_attached
        )  # fmt: skip

    def _init_records(self) -> None:
        s = self.settings
        is_limit_auto = s.memory_limit == AUTO
        init_runtime(layout_version(), s.max_heap // layout.PAGE_SIZE, s.procs)
        view(mheap_dtype, MHEAP)[0].huge_pages = segments.huge_page_bytes() // layout.PAGE_SIZE
        rt = view(runtime_dtype, RUNTIME)[0]
        rt.slots, rt.nrecords = self.max_procs.slots, self.records
        rt.coordinator_pid = self.pid
        rt.clobberfree = s.debug.clobberfree
        rt.collect_every = s.debug.gccollectevery
        rt.scavenge_lazily = int(s.debug.madvdontneed == 0)
        rt.keep_free = s.debug.scavengeoff
        rt.stop_the_world = s.debug.gcstoptheworld
        view(memprofile_dtype, MEMPROFILE)[0].rate = max(s.debug.memprofilerate, 0)
        stacks = view(stackpool_dtype, STACKPOOL)[0]
        stacks.never_shrink = s.debug.gcshrinkstackoff
        stacks.start_small = int(s.debug.adaptivestackstart == 0)
        stacks.always_copy = s.debug.stackcopyalways
        rt.limit_is_auto, rt.procs_are_auto = is_limit_auto, self.max_procs.is_auto
        pacer.set_gc_percent(s.gogc)
        pacer.set_memory_limit(NO_LIMIT if is_limit_auto else s.memory_limit)
        pacer.commit(1)
        tape = self._open_tape()
        _init_p(layout.COORDINATOR_P, self.pid, self.shared.heap_fd, self.shared.meta_fd, self.wake_fd)
        for idx in range(self.records):
            _init_p(idx)  # a collection may come before a P's process: it must find no spans there
        lazy = None if s.debug.madvdontneed else LazyReturn(self.cgroup, self.shared.heap_fd)
        self.scavenger = Scavenger(s.debug.scavtrace > 0, lazy)
        self.collector = Collector(s.debug, s.stop_deadline, self.scavenger, tape)
        self.collector.report()

    def _open_tape(self) -> PacerTape | None:
        file = self.settings.pacer_tape
        pacerlog.keep(bool(file or self.settings.debug.gcpacertrace))
        note(PACER_EVENT_SET, 0, 0)
        if file is None:
            return None
        try:
            return PacerTape(file.open("w", encoding="utf-8"), self.settings.name or f"gomp-{self.pid}")
        except OSError as error:
            raise ConfigError(f"pacer_tape: cannot write {file}: {error.strerror}") from None

    def _bind_control(self) -> socket.socket | None:
        """The listener of the service that takes changes of settings."""
        if not self.metrics:
            return None
        return process.bind_control(cast(ServiceSettings, self.settings), self.registration.control_file)

    def _fork_all(self, control: socket.socket | None) -> None:
        if self.metrics:
            settings = cast(ServiceSettings, self.settings)
            service = self.family.fork_service(settings, self.registration.name, self.metrics, control)
            self.events.watch(service.pidfd, lambda: self._on_service_death(service), is_urgent=True)
            view(runtime_dtype, RUNTIME)[0].service_pid = service.pid
        for idx in range(self.settings.procs):
            self.ps.fork(idx)
        view(runtime_dtype, RUNTIME)[0].xready = 1

    def _watch_signals(self) -> None:
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        signal.set_wakeup_fd(writer.fileno())
        for number in (signal.SIGTERM, signal.SIGINT, *((signal.SIGCHLD,) if orphans.is_first() else ())):
            signal.signal(number, lambda *_: None)
        self._signals = (reader, writer)
        self.events.watch(reader.fileno(), self._on_signal, is_urgent=True)

    def _say_what_is_odd(self) -> None:
        if self.shared.backing == "memfd":
            log.info("%s: the heap is in a memfd, which only the cgroup limits", self.shared.why_memfd)
        for sentence in ignored(self.settings):
            log.warning("%s", sentence)
        for problem in self.cgroup.problems():
            log.warning("%s: it counts as no limit; set memory_limit", problem)

    def _admit(self, owner: Channel) -> None:
        """Give the script its P and the segments' descriptors."""
        self.connected.own(owner, cast(int, self.owner_p))
        owner.send(
            "ready",
            descriptors=self.invitation.descriptors,
            **self.invitation.to(cast(int, self.owner_p)),
        )

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until the runtime ends; the exit code."""
        self.limits.set_budget()
        while not self.ending.is_near:
            self.events.wait(self._step())
            self._hear_kernels()
            self.connected.step()
            self.answers.give_due()
            self.limits.relieve()
            with contextlib.suppress(RuntimeLost):  # the runtime ends
                self.resizing.step()
            self.events.flush((*self.family.channels(), *self.ending.peers))
            if self.limits.is_budget_due():
                self._look_around()
        return self.ending.exit_code

    def _step(self) -> float:
        """Do what is due, but not for long; for how many seconds there is nothing then."""
        self.stopping.end_overdue()
        if self.stopping.is_held_up:
            return min(self.dying.rest_s, _IDLE_S)
        if not check_sizes(0):
            self._crash_of_sizes()
            return 0.0
        try:
            with contextlib.suppress(RuntimeLost):  # the runtime ends
                self.borrowed.step()
            self.ps.repair()
            self.ps.start_absent()
            self.limits.force_gc()
            rest = self.collector.step()
            self.scavenger.step()
        except Stuck as stuck:
            self.stopping.on_stuck(stuck.p)
            return 0.0
        if self.collector.problems:
            self._crash("GODEBUG has the heap looked at, which is not sound", self.collector.problems)
        return min(
            _IDLE_S if rest is None else rest,
            self.ps.rest_s,
            self.scavenger.rest_s,
            self.dying.rest_s,
            self.sysmon.step(),
        )

    def _look_around(self) -> None:
        """What the cgroup says now, who can be reaped, and what could not be done before."""
        self.family.reap_late()
        self.oom_kills.look(bool(view(runtime_dtype, RUNTIME)[0].xready), time.monotonic())
        self.registration.describe_again()
        self.limits.set_budget()
        if not self.stopping.is_held_up:
            with contextlib.suppress(RuntimeLost):  # the runtime ends
                self.limits.follow()
        self.limits.warn()

    # --- events -------------------------------------------------------------------------------------------------------

    def _on_wake(self) -> None:
        """Who asks for a cycle waits until it has begun, and all others allocate meanwhile: so that comes first. Who has died unheard is as one who
        dies in the stop with which it begins: that looks at deaths."""
        os.eventfd_read(self.wake_fd)
        if self.collector.is_wanted and not self.ps.has_dead and not self.stopping.is_held_up and check_sizes(0):
            try:
                self.collector.step()
            except Stuck as stuck:
                self.stopping.on_stuck(stuck.p)

    def _hear_kernels(self) -> None:
        """What kernels have told, even if those who did died before they could wake anybody."""
        if why := throws.thrown():
            self._crash("a kernel has found what cannot be", [why])
        elif lost := throws.take_lost_lock():
            self.stopping.on_lost_lock(*lost)

    def _on_signal(self) -> None:
        received = set(self._signals[0].recv(64))
        if signal.SIGCHLD in received:
            orphans.bury_orphans(self.family.pids())
        self.ending.is_near = self.ending.is_near or received != {signal.SIGCHLD}

    def _on_service_death(self, child: Child) -> None:
        self.events.unwatch(child.pidfd)
        status = self.family.reap(child.pid)
        starved = self.oom_kills.explain(status)
        how = f"{starved}; {ADVICE}" if starved else how_it_ended(status)
        self.ending.lose(f"the service (pid {child.pid}) {how}; the runtime ends")

    def _forget(self, channel: Channel) -> None:
        self.answers.forget(channel)
        self.resizing.forget(channel)

    def _describe(self, procs: int) -> None:
        """There are so many Ps now."""
        self.info = replace(self.info, ps=procs)
        self.registration.describe(self.info)

    def _tell_who(self, attached: list[int]) -> None:
        """These processes are attached now."""
        self.info = replace(self.info, attached=attached)
        self.registration.describe(self.info)

    # --- ending -------------------------------------------------------------------------------------------------------

    def _crash(self, how: str, found: Sequence[str]) -> None:
        """The heap is lost: nothing goes on in it, whatever comes of the report. Who has said so says no more."""
        if self.ending.exit_code == EXIT_CRASH:
            return
        try:
            log.error("%s", crash.report(how, found, self._programs))
        finally:
            self.ending.lose(f"fatal: {'; '.join(found)}")

    def _crash_of_sizes(self) -> None:
        from gomp.runtime.verify import verify  # here, as most runtimes need none of it

        self._crash("the heap is not sound", verify(1).problems)

    def _programs(self, p: int) -> list[str]:
        return [task.name for task in self.dispatcher.tasks.of(p)] if p < self.max_procs.slots else []

    def end(self) -> None:
        """End every process of the runtime and leave nothing behind."""
        view(runtime_dtype, RUNTIME)[0].xready = 0
        if hasattr(self, "family"):
            self.family.kill_ps()  # first: they have nothing to say of an end
        end_world()
        if hasattr(self, "family"):
            self.family.end()
        self.registration.remove()


def _init_p(idx: int, pid: int = 0, heap_fd: int = -1, meta_fd: int = -1, wake_fd: int = -1) -> None:
    if not init_p(idx, pid, heap_fd, meta_fd, wake_fd, -1):
        raise SegmentError(errno.ENOMEM, "cannot make the collector's work buffers: shared memory is full")


def main(settings: ServiceSettings) -> int:
    """Be the coordinator of a service until it is told to end; the exit code."""
    stderr.never_wait_for_a_reader()
    logs.configure(settings.log_level, "coordinator")
    metrics = process.bind(settings)
    load_all_kernels()
    process.prepare()
    coordinator = Coordinator(settings, None, metrics, process.url(metrics))
    return _run(coordinator, lambda: print(f"gomp is ready: {coordinator.url}", flush=True))


def _run(coordinator: Coordinator, announce: Callable[[], None]) -> int:
    try:
        with _in_a_line():
            coordinator.start()
        announce()
        return coordinator.run()
    finally:
        if hasattr(coordinator, "registration"):
            coordinator.end()


@contextlib.contextmanager
def _in_a_line() -> Iterator[None]:
    """Where the system allows no more processes, or files, there is no runtime: GompError."""
    try:
        yield
    except GompError:
        raise
    except OSError as error:
        raise GompError(f"the runtime cannot be started: {error.strerror}") from None


def _main() -> int:
    """``python -m gomp.runtime.coordinator FD``: the coordinator of a script, whose settings arrive as the first message on descriptor FD."""
    stderr.never_wait_for_a_reader()
    sock = socket.socket(fileno=int(sys.argv[1]))
    channel = Channel(sock)
    first = channel.next(30.0)
    if first is None:
        return 1
    sys.path[:] = first["path"]
    os.chdir(first["cwd"])
    try:
        settings = RuntimeSettings.model_validate(first["settings"])
        logs.configure(settings.log_level, "coordinator")
        load_all_kernels(lambda done, total: channel.send("progress", done=done, total=total))
        return _run(Coordinator(settings, sock), lambda: None)
    except GompError as error:
        with contextlib.suppress(RuntimeLost):
            channel.send("failed", kind=type(error).__name__, text=str(error))
        return 2


if __name__ == "__main__":
    sys.exit(_main())
