"""The coordinator: forks the Ps and the service, runs the collector's cycles, gives goroutines to Ps, watches for deaths.

It has one thread, for good: forking is sound, and a pause never waits for the interpreter's lock. It has one wait, an epoll over an eventfd
that kernels write, pidfds, sockets and signals; its own work, background sweeping, goes in short slices between events.

Life::

    load kernels → make segments → write records → register the name → fork service and Ps → announce → loop → end everything

A P may die at any moment (:mod:`gomp.core.gc.repair`). Its death is noticed at once, also during a stop; what it left is put right before the loop
goes on with anything else, and another process takes its place. When GOMAXPROCS falls, a P that is one too many is told to leave: its process ends
when its goroutines have, and is settled as a dead one's. What nobody waits for, and is started again elsewhere, ends at once.

It is started by ``gomp serve``, or by a script's Runtime with a socket: that runtime ends when the socket hangs up.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import math
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from gomp.cgroup import MemoryCgroup
from gomp.config import AUTO, NO_LIMIT, RuntimeSettings, ServiceSettings, Setting, ignored, show_setting
from gomp.core.gc import pacer, repair
from gomp.core.gc.cycle import flush_caches_stw, recommit_stw
from gomp.core.gc.pacerlog import note
from gomp.core.mutator.lifecycle import change_procs_stw, init_p, init_runtime
from gomp.core.sched.locks import owner_of
from gomp.core.sched.status import start_world, stop_world
from gomp.core.sched.throw import MESSAGES, THROW_LOST_LOCK
from gomp.core.shm import layout, segments
from gomp.core.shm.commit import budget_left, renew_budget
from gomp.core.shm.records import (
    GC_TRIGGER_FORCED,
    GC_TRIGGER_LAST_RESORT,
    GC_TRIGGER_TIME,
    GCSTATS,
    MHEAP,
    PACER,
    PACER_EVENT_SET,
    RUNTIME,
    STATUS_KERNEL,
    gcstats_dtype,
    layout_version,
    mheap_dtype,
    p_dtype,
    pacer_dtype,
    runtime_dtype,
    view,
)
from gomp.errors import ConfigError, GompError, OutOfMemory, RuntimeLost, SegmentError
from gomp.forked import how_it_ended
from gomp.kernels import load_all_kernels
from gomp.runtime import compiled, discovery, memstats, orphans, pacerlog
from gomp.runtime.autolimit import P_TAKES, SERVICE_TAKES, AutoLimit
from gomp.runtime.channel import Channel
from gomp.runtime.collector import Collector, Stuck
from gomp.runtime.dispatcher import Dispatcher, OnP
from gomp.runtime.dying import KILLED_S, Dying
from gomp.runtime.family import Child, Family, has_left
from gomp.runtime.lazyreturn import LazyReturn
from gomp.runtime.maxprocs import MaxProcs
from gomp.runtime.memstats import MemStats, RepairStats
from gomp.runtime.oomkills import ADVICE, HOPELESS, OomKills
from gomp.runtime.pacertape import PacerTape
from gomp.runtime.requests import Asker, fault
from gomp.runtime.restarts import Restarts
from gomp.runtime.scavenger import Scavenger
from gomp.runtime.tasks import Tasks
from gomp.service import logs, process

log = logging.getLogger("gomp.coordinator")

FORCED_GC_PERIOD_S = 120.0
_TIGHT_GC_PERIOD_S = 5.0  # a cycle of 100 MiB takes a tenth of a second
_TIGHTENING_GC_PERIOD_S = 0.5  # a program that collects more often than that makes its own room
EXIT_CRASH = 3
_IDLE_S = 0.5
_RETRY_S = 1.0  # after a fork that the system refused
_NAMES_SHOWN = 8
_MAX_ATTACHED = 16
_MAX_CONNECTIONS = 64
_CGROUP_RESERVE = 16 << 20
_BUDGET_PERIOD_S = 0.1
_PEER = struct.Struct("iII")  # the kernel's struct ucred: pid, uid, gid


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
        self.handlers: dict[int, Callable[[int], object]] = {}
        self.ending = False
        self.exit_code = 0
        self.attached: list[Attached] = []
        self.collecting: list[tuple[int, Asker]] = []  # who waits for how many cycles to have ended
        self.releasing: list[Asker] = []  # who waits for all free memory to be returned
        self.is_tight = False  # little is left of the cgroup's limit
        self.relieved = 0  # after so many ended cycles all free memory is returned because it is scarce; 0: not now
        self.pid = os.getpid()
        self.cgroup = MemoryCgroup.of_this_process()
        self.warned_limit = -1  # the last that somebody was warned of
        self.auto_limit = AutoLimit(self.cgroup, settings.memory_limit_share)
        self.is_limit_auto = settings.memory_limit == AUTO
        self.max_procs = MaxProcs(settings)
        self.resizing: list[Asker] = []  # who waits for the number of Ps to be what they have asked for
        self.leaving: set[int] = set()  # Ps that are one too many, and have a process
        self.told: set[int] = set()  # Ps whose processes were told to leave, if only for a while
        self.retired: set[int] = set()  # of the dead: those that ended because they were told to
        self.starved: set[int] = set()  # of the dead: those that the kernel has killed for want of memory
        self.oom_kills = OomKills(self.cgroup)
        self.dying = Dying()
        self.deferred: list[Asker] = []  # who asked while somebody was dying, for whom the answer might have to wait

    # --- starting -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make the runtime and announce it. Raises GompError."""
        s = self.settings
        try:
            self.shared = segments.create(s.max_heap)
            segments.map_segments(self.shared, inherit=True)
            segments.commit_fixed(self.shared, [*range(self.max_procs.slots + _MAX_ATTACHED), layout.COORDINATOR_P])
        except OSError as error:
            raise SegmentError(
                error.errno, f"cannot make the heap of {s.max_heap >> 20} MiB: {error.strerror}"
            ) from None
        segments.map_self(self.shared, layout.COORDINATOR_P)
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._init_records()
        name = s.name or f"gomp-{self.pid}"
        self.registration = discovery.Registration(name)
        control = self._bind_control()
        self.info = discovery.RuntimeInfo(name, s.procs, s.max_heap, self.pid, self.url, process.where(control))
        self.registration.describe(self.info)
        self.dispatcher = Dispatcher(Tasks(s.procs, self.max_procs.slots, self.shared.meta_fd), self._channel)
        self.restarts = [Restarts() for _ in range(self.max_procs.slots)]
        self.dead: dict[int, str] = {}  # not repaired yet: how they ended
        self.absent: dict[int, float] = {}  # without a process until that time
        self._watch(self.urgent.fileno(), self._on_urgent)
        view(p_dtype, layout.p_addr(layout.COORDINATOR_P))[0].urgent_fd = self.urgent.fileno()
        self._watch_signals()
        compiled.prepare()
        gc.collect()
        gc.freeze()
        self.auto_limit.expect(s.procs * P_TAKES + (SERVICE_TAKES if self.metrics else 0))
        self._fork_all(control)
        self._follow_cgroup()
        self._watch(self.wake_fd, self._on_wake)
        self._watch(self.registration.listener.fileno(), self._on_connect)
        if self.shared.backing == "memfd":
            log.info("%s: the heap is in a memfd, which only the cgroup limits", self.shared.why_memfd)
        for sentence in ignored(s):
            log.warning("%s", sentence)
        for problem in self.cgroup.problems():
            log.warning("%s: it counts as no limit; set memory_limit", problem)
        if self.owner:
            self._admit(self.owner)
        self.dispatcher.supervise_all(getattr(s, "programs", ()), 0, s.procs)

    def _init_records(self) -> None:
        s = self.settings
        init_runtime(layout_version(), s.max_heap // layout.PAGE_SIZE, s.procs)
        view(runtime_dtype, RUNTIME)[0].nrecords = self.max_procs.slots
        view(mheap_dtype, MHEAP)[0].huge_pages = segments.huge_page_bytes() // layout.PAGE_SIZE
        rt = view(runtime_dtype, RUNTIME)[0]
        rt.coordinator_pid = self.pid
        rt.clobberfree = s.debug.clobberfree
        rt.collect_every = s.debug.gccollectevery
        rt.scavenge_lazily = int(s.debug.madvdontneed == 0)
        rt.keep_free = s.debug.scavengeoff
        rt.stop_the_world = s.debug.gcstoptheworld
        rt.limit_is_auto, rt.procs_are_auto = self.is_limit_auto, self.max_procs.is_auto
        pacer.set_gc_percent(s.gogc)
        pacer.set_memory_limit(NO_LIMIT if self.is_limit_auto else s.memory_limit)
        pacer.commit(1)
        tape = self._open_tape()
        self._init_p(layout.COORDINATOR_P, self.pid, self.shared.heap_fd, self.shared.meta_fd, self.wake_fd)
        for idx in range(
            self.max_procs.slots
        ):  # a collection may come before a P's process: it must find no spans there
            self._init_p(idx)
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

    def _init_p(self, idx: int, pid: int = 0, heap_fd: int = -1, meta_fd: int = -1, wake_fd: int = -1) -> None:
        if not init_p(idx, pid, heap_fd, meta_fd, wake_fd, -1):
            raise SegmentError(errno.ENOMEM, "cannot make the collector's work buffers: shared memory is full")

    def _bind_control(self) -> socket.socket | None:
        """The listener of the service that takes changes of settings."""
        if not self.metrics:
            return None
        return process.bind_control(cast(ServiceSettings, self.settings), self.registration.control_file)

    def _fork_all(self, control: socket.socket | None) -> None:
        self.family = Family(self.shared, self.wake_fd)
        if self.metrics:
            settings = cast(ServiceSettings, self.settings)
            service = self.family.fork_service(settings, self.registration.name, self.metrics, control)
            self._watch(service.pidfd, lambda _: self._on_service_death(service), self.urgent)
        for idx in range(self.settings.procs):
            self._fork_p(idx)
        view(runtime_dtype, RUNTIME)[0].xready = 1

    def _fork_p(self, idx: int) -> None:
        child = self.family.fork_p(idx)
        _p_record(idx).pidfd = child.pidfd
        self._watch(child.pidfd, lambda _: self._on_p_death(idx), self.urgent)
        self._watch(cast(Channel, child.channel).fileno(), lambda _: self._on_p_message(idx))

    def _channel(self, idx: int) -> Channel | None:
        """The connection to P ``idx``, while it has a process."""
        child = self.family.ps.get(idx)
        return child.channel if child else None

    def _watch_signals(self) -> None:
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        signal.set_wakeup_fd(writer.fileno())
        for number in (signal.SIGTERM, signal.SIGINT, *((signal.SIGCHLD,) if orphans.is_first() else ())):
            signal.signal(number, lambda *_: None)
        self._signals = (reader, writer)
        self._watch(reader.fileno(), self._on_signal, self.urgent)

    def _watch(self, fd: int, handler: Callable[[int], object], epoll: select.epoll | None = None) -> None:
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
            for fd, _ in self.epoll.poll(self._step()):
                if fd in self.handlers:
                    self.handlers[fd](fd)
            self._answer_deferred()
            self._answer_collections()
            self._answer_releases()
            with contextlib.suppress(RuntimeLost):  # the runtime ends
                self._resize()
            self._flush_channels()
            if time.monotonic() - self._budget_set > _BUDGET_PERIOD_S:
                self.oom_kills.look(bool(view(runtime_dtype, RUNTIME)[0].xready), time.monotonic())
                self._set_commit_budget()
                with contextlib.suppress(RuntimeLost):  # the runtime ends
                    self._follow_cgroup()
                self._warn_of_limit()
        return self.exit_code

    def _step(self) -> float:
        """Do what is due, but not for long; for how many seconds there is nothing then."""
        self._end_overdue()
        if self._is_held_up:
            return min(self.dying.rest_s, _IDLE_S)
        try:
            self._repair()
            self._start_absent()
            self._force_gc()
            rest = self.collector.step()
            self.scavenger.step()
        except Stuck as stuck:
            self._on_stuck(stuck.p)
            return 0.0
        if self.collector.problems:
            self._crash("; ".join(self.collector.problems))
        due = min(self.absent.values(), default=math.inf) - time.monotonic()
        return min(_IDLE_S if rest is None else rest, max(due, 0.0), self.scavenger.rest_s, self.dying.rest_s)

    def _force_gc(self) -> None:
        """Go's cycle every two minutes that nobody's allocations ask for.

        A container whose memory is nearly all taken does not wait so long, and gets all that comes of it: what died there since the last cycle
        may be most of the heap, and the next process that starts in it, if only for a probe, would have the kernel kill another.
        """
        was_tight, self.is_tight = self.is_tight, budget_left() < _CGROUP_RESERVE
        if self.is_tight and self.collector.idle_s > (_TIGHT_GC_PERIOD_S if was_tight else _TIGHTENING_GC_PERIOD_S):
            self.relieved = self.collector.want(GC_TRIGGER_TIME)
        elif self.collector.idle_s > FORCED_GC_PERIOD_S and view(pacer_dtype, PACER)[0].gc_percent >= 0:
            self.collector.begin(GC_TRIGGER_TIME)

    def _set_commit_budget(self) -> None:
        """How much may be committed before the next look: what the cgroup leaves, less what interpreters and page tables may take."""
        self._budget_set = time.monotonic()
        before = budget_left()
        headroom = self.cgroup.headroom()
        if headroom is not None:
            renew_budget(before, max(headroom - _CGROUP_RESERVE, 0))

    def _flush_channels(self) -> None:
        """Send what peers take now, and be woken when they take more."""
        for channel in (*map(self._channel, self.family.ps), *(a.channel for a in self.attached)):
            if channel and not channel.is_flushed and channel.fileno() in self.handlers:
                with contextlib.suppress(RuntimeLost):
                    channel.flush()
                more = 0 if channel.is_flushed else select.EPOLLOUT
                self.epoll.modify(channel.fileno(), select.EPOLLIN | more)

    def _on_wake(self, fd: int) -> None:
        os.eventfd_read(fd)
        rt = view(runtime_dtype, RUNTIME)[0]
        if rt.xthrow == THROW_LOST_LOCK and int(rt.throw_b) in self.family.ps:
            self._on_lost_lock(int(rt.throw_a), int(rt.throw_b))
            rt.xthrow = 0
        elif rt.xthrow > 0:
            self._crash(MESSAGES[int(rt.xthrow)].format(a=int(rt.throw_a), b=int(rt.throw_b)))
        elif rt.xgc_request == GC_TRIGGER_LAST_RESORT:
            self._set_commit_budget()

    def _describe_stuck(self, idx: int) -> str:
        record = _p_record(idx)
        running = (
            ", ".join(t.name for t in self.dispatcher.tasks.of(idx)[:_NAMES_SHOWN])
            if idx < self.max_procs.slots
            else "an attached script"
        )
        return (
            f"P{idx} (pid {int(record.xpid)}) did not stop within {self.settings.stop_deadline:g} s; it runs {running or 'nothing'}"
            f"{f' and waits for the lock at {int(record.waiting_for):#x}' if record.waiting_for else ''}"
        )

    def _verify(self, level: int) -> dict[str, Any]:
        from gomp.runtime.verify import verify

        with self._stopped_world():
            return asdict(verify(level))

    def _retainers(self, p: int, slot: int) -> dict[str, Any]:
        """What leads to the object in that handle; {"problem": why not} if there is none."""
        from gomp.runtime.retainers import Search, may_search

        with self._stopped_world():
            if not may_search(p, slot):
                return {"problem": f"P{p} has no reference number {slot}"}
            found = Search(p, slot).run()
        if found["root"] and found["root"].get("p", -1) in self.family.ps:
            running = [task.name for task in self.dispatcher.tasks.of(found["root"]["p"]) if task.has_started]
            found["root"]["programs"] = running[:_NAMES_SHOWN]
        return found

    def _stats(self) -> MemStats:
        """Exact counters: as Go's ReadMemStats, with the world stopped and every P's cache given back."""
        with self._stopped_world():
            flush_caches_stw()
            return memstats.read()

    def _set(self, setting: Setting, value: int) -> int:
        """Change a setting, as somebody wants it, from now on; what it was."""
        if setting == "memory_limit":
            self._set_limit_auto(value == AUTO)
        if setting == "memory_limit" and value == AUTO:
            old = int(view(pacer_dtype, PACER)[0].memory_limit)
            self.auto_limit.again()
            self._follow_cgroup()
        else:
            old = self._change(setting, value)
        log.info("%s is %s now; it was %s", setting, show_setting(setting, value), show_setting(setting, old))
        return old

    def _set_limit_auto(self, is_auto: bool) -> None:
        self.is_limit_auto = is_auto
        view(runtime_dtype, RUNTIME)[0].limit_is_auto = is_auto

    def _change(self, setting: Setting, value: int) -> int:
        change = pacer.set_gc_percent if setting == "gogc" else pacer.set_memory_limit
        with self._stopped_world():
            old = int(change(value))
            recommit_stw()
        self.collector.report()
        self._warn_of_limit()
        return old

    def _follow_cgroup(self) -> None:
        """Where the memory limit is auto: set what the cgroup allows now."""
        limit = self.auto_limit.look() if self.is_limit_auto and not self._is_held_up else None
        if limit is None:
            return
        self._change("memory_limit", limit)
        if memstats.read().mapped > limit:  # somebody else takes memory now, and the next allocation may come too late
            self.relieved = self.collector.want(GC_TRIGGER_TIME)

    def _warn_of_limit(self) -> None:
        """A limit that leaves nothing for the heap is accepted, as in Go, but somebody may not have meant it: they are told once.

        What the runtime takes is known when it has begun to work: the first object costs it more than all before.
        """
        heap, limit = view(mheap_dtype, MHEAP)[0], int(view(pacer_dtype, PACER)[0].memory_limit)
        needs = int(heap.xmetadata_bytes + heap.xwbuf_bytes + heap.xtable_bytes)
        if limit >= needs or limit == self.warned_limit:
            return
        self.warned_limit = limit
        log.warning(
            "memory_limit is %d bytes, and beside the heap the runtime itself takes %d: the limit will be passed, and cycles follow one "
            "another, with up to half of the CPU time",
            limit,
            needs,
        )

    @contextlib.contextmanager
    def _stopped_world(self) -> Iterator[None]:
        """Stop the world for the block, whoever dies meanwhile. Raises RuntimeLost if the runtime ends before it stands."""
        try:
            while not self._try_to_stop():
                if self.ending:
                    raise RuntimeLost("the runtime ends")
            yield
        finally:
            start_world()

    def _try_to_stop(self) -> bool:
        try:
            self._repair()
            if code := stop_world(self.collector.deadline()):
                start_world()
                raise Stuck(-1 - code)
        except Stuck as stuck:
            self._on_stuck(stuck.p)
            return False
        return True

    # --- deaths -------------------------------------------------------------------------------------------------------

    def _on_stuck(self, idx: int) -> None:
        """P ``idx`` did not stop: because something urgent came up, or it died, or in time. It has to."""
        if self._on_urgent(self.urgent.fileno()) or self.ending:
            return
        holder = owner_of(int(_p_record(idx).waiting_for))
        idx = holder if holder in self.family.ps else idx  # who waits for a lock is not what the stop waits for
        if self.dying.is_killed(idx):
            self._lose_to_a_zombie(idx)
            return
        log.error("%s; it is killed", self._describe_stuck(idx))
        self._kill(idx)

    def _end_overdue(self) -> None:
        """Kill who has hung up and lives, and end where not even that helps."""
        silent, killed = self.dying.overdue()
        for idx, why in silent.items():
            log.error("P%d (pid %d) cannot be understood: %s; it is killed", idx, self.family.ps[idx].pid, why)
            self._kill(idx)
        for idx in killed:
            self._lose_to_a_zombie(idx)

    @property
    def _is_held_up(self) -> bool:
        """Whether a stop would wait for somebody who was killed and is still there."""
        return any(_p_record(idx).xstatus == STATUS_KERNEL for idx in self.dying.killed)

    def _lose_to_a_zombie(self, idx: int) -> None:
        self._lose(f"P{idx} (pid {self.family.ps[idx].pid}) was killed, but is still there after {KILLED_S:.0f} s")

    def _on_lost_lock(self, lock: int, idx: int) -> None:
        """Somebody has waited too long for a lock of P ``idx``."""
        if owner_of(lock) == idx:
            pid = self.family.ps[idx].pid
            log.error("P%d (pid %d) does not release the lock at %#x; it is killed", idx, pid, lock)
            self._kill(idx)

    def _kill(self, idx: int) -> None:
        child = self.family.ps.get(idx)
        if child is None:  # an attached process, which has to be our owner
            self._lose("a script that does not stop is killed, and its runtime ends")
            with contextlib.suppress(OSError):  # it has died
                signal.pidfd_send_signal(int(_p_record(idx).pidfd), signal.SIGKILL)
            return
        if not self.dying.is_killed(idx):
            os.kill(child.pid, signal.SIGKILL)
            self.dying.was_killed(idx)

    def _on_p_death(self, idx: int) -> None:
        """The process of P ``idx`` is gone. From here nobody waits for it; what it left is put right by :meth:`_repair`."""
        child = self.family.ps[idx]
        self.urgent.unregister(child.pidfd)
        del self.handlers[child.pidfd]
        while self._on_p_message(idx, is_dead=True):  # results, that somebody waits for
            pass
        if cast(Channel, child.channel).fileno() in self.handlers:
            self._unwatch(cast(Channel, child.channel).fileno())
        record = _p_record(idx)
        record.pidfd = 0
        record.xpid = 0
        status = self.family.bury_p(idx)
        self.dying.is_gone(idx)
        why_killed = self.oom_kills.explain(status)
        if why_killed:
            self.starved.add(idx)
        if idx in self.leaving or (has_left(status) and idx in self.told):
            self.retired.add(idx)
        self.leaving.discard(idx)
        self.told.discard(idx)
        record.deaths += 1
        record.retirements += idx in self.retired
        self.dead[idx] = f"P{idx} (pid {child.pid}) {why_killed or how_it_ended(status)}"
        self.dispatcher.tasks.set_absent(idx, True)
        view(runtime_dtype, RUNTIME)[0].xready = 0
        repair.bury(layout.p_addr(idx))

    def _repair(self) -> None:
        """Put right what the dead have left, and start others in their place. Raises Stuck."""
        if not self.dead:
            return
        before = memstats.read_repairs()
        put_right = repair.retire if self.retired.issuperset(self.dead) else repair.repair
        if code := put_right(self.collector.deadline()):
            raise Stuck(-1 - code)
        self.collector.report()
        dead, self.dead = self.dead, {}
        done = _describe_repair(before, memstats.read_repairs())
        for idx, why in dead.items():
            delay = self._delay(idx)
            if idx < self.dispatcher.tasks.procs:
                self.absent[idx] = time.monotonic() + delay
            running = self.dispatcher.has_died(idx, why)
            names = ", ".join(task.name for task in running[:_NAMES_SHOWN])
            if idx in self.retired:
                log.info("P%d has left%s", idx, f", and ended {names}" if names else "")
                continue
            log.error(
                "%s while it ran %s; %s; it is started again%s%s",
                why,
                names or "nothing",
                done,
                f" in {delay:.1f} s: it keeps dying" if delay else "",
                f"; {ADVICE}" if idx in self.starved else "",
            )
        self.retired.difference_update(dead)
        self.starved.difference_update(dead)
        if self.oom_kills.is_hopeless:
            self._lose(
                f"the runtime ends, for it cannot live here: {HOPELESS} times in a row {next(iter(dead.values()))}; {ADVICE}"
            )
        self._start_absent()
        self._have_transits_settled()
        for idx in dead:
            if idx not in self.family.ps:
                self.dispatcher.move(self.dispatcher.tasks.of(idx), is_dead=True)

    def _delay(self, idx: int) -> float:
        """Seconds until the successor of P ``idx``, which is dead, is to be started."""
        if idx in self.retired:
            return 0.0
        delay = self.restarts[idx].died(time.monotonic())
        return max(delay, self.oom_kills.delay(idx)) if idx in self.starved else delay

    def _have_transits_settled(self) -> None:
        """Have everybody take back what the dead were sent, or were receiving."""
        owner = [self.owner.channel] if self.owner else []
        for channel in (*map(self._channel, self.family.ps), *owner):
            if channel:
                with contextlib.suppress(RuntimeLost):
                    channel.send("settle")

    def _start_absent(self) -> None:
        """Fork the processes whose time has come."""
        for idx in [idx for idx, at in self.absent.items() if at <= time.monotonic()]:
            try:
                self._fork_p(idx)
            except OSError as error:
                log.error("P%d cannot be started again: %s; the next try is in %.0f s", idx, error.strerror, _RETRY_S)
                self.absent[idx] = time.monotonic() + _RETRY_S
                continue
            del self.absent[idx]
            self.dispatcher.tasks.set_absent(idx, False)
            self.dispatcher.has_started(idx)
        view(runtime_dtype, RUNTIME)[0].xready = int(not self.absent and not self.dead)

    # --- GOMAXPROCS ---------------------------------------------------------------------------------------------------

    def _resize(self) -> None:
        """Have as many Ps as there are to be, when no cycle is on. Raises RuntimeLost if the runtime ends meanwhile."""
        self.max_procs.look()
        if self.collector.is_marking or self._is_held_up:
            return
        old, procs = self.dispatcher.tasks.procs, self.max_procs.wanted
        if procs != old:
            with self._stopped_world():
                change_procs_stw(procs)
            self.dispatcher.tasks.procs = procs
            for idx in range(old, procs):
                self._have_stay(idx)
            for idx in range(procs, old):
                self._have_leave(idx)
            self._start_absent()
            self.dispatcher.supervise_all(getattr(self.settings, "programs", ()), old, procs)
            self.info = replace(self.info, ps=procs)
            self.registration.describe(self.info)
            log.info("gomaxprocs is %d now; it was %d: %s", procs, old, self.max_procs.reason)
        for asker in self.resizing:
            asker.answer(old=old)
        self.resizing = []
        for idx in self.leaving & self.family.ps.keys():
            if self.dispatcher.runs_only_supervised(idx):
                self._kill(idx)

    def _have_stay(self, idx: int) -> None:
        """There is to be a P ``idx``. If it has left by the time it hears of that, it is started again."""
        self.leaving.discard(idx)
        if channel := self._channel(idx):
            with contextlib.suppress(RuntimeLost):
                channel.send("stay")
            self.dispatcher.tasks.set_absent(idx, False)
        elif idx not in self.dead:
            self.absent[idx] = 0.0
            self.dispatcher.tasks.set_absent(idx, True)

    def _have_leave(self, idx: int) -> None:
        """P ``idx`` is one too many."""
        self.absent.pop(idx, None)
        channel = self._channel(idx)
        self.dispatcher.move(self.dispatcher.tasks.of(idx), is_dead=channel is None)
        if channel:
            self.leaving.add(idx)
            self.told.add(idx)
            with contextlib.suppress(RuntimeLost):
                channel.send("leave")

    # --- events -------------------------------------------------------------------------------------------------------

    def _on_signal(self, fd: int) -> None:
        received = set(self._signals[0].recv(64))
        if signal.SIGCHLD in received:
            orphans.bury_orphans(self.family.pids())
        self.ending = self.ending or received != {signal.SIGCHLD}

    def _on_urgent(self, fd: int) -> bool:
        """Signals and deaths, which a stop does not delay; whether there was anything."""
        events = self.urgent.poll(0)
        for ready, _ in events:
            if ready in self.handlers:
                self.handlers[ready](ready)
        return bool(events)

    def _on_service_death(self, child: Child) -> None:
        del self.handlers[child.pidfd]
        self.urgent.unregister(child.pidfd)
        status = child.wait()
        starved = self.oom_kills.explain(status)
        how = f"{starved}; {ADVICE}" if starved else how_it_ended(status)
        self._lose(f"the service (pid {child.pid}) {how}; the runtime ends")

    def _on_p_message(self, idx: int, is_dead: bool = False) -> bool:
        """Read and do what P ``idx`` says; whether it said anything.

        What a dead one has asked for is left: nobody waits for the answer, and the heap is not to be looked at before it is repaired.
        """
        child = self.family.ps[idx]
        channel = cast(Channel, child.channel)
        try:
            messages = channel.receive()
        except RuntimeLost as error:
            if channel.fileno() in self.handlers:
                self._unwatch(channel.fileno())
            if not is_dead:
                self.dying.has_hung_up(idx, str(error))
            return False
        for message in messages:
            if problem := fault(message, from_p=True):
                Asker(channel, message).refuse(problem)
            elif message.op == "go":
                self.dispatcher.go(OnP(idx), message, idx)
            elif message.op == "started":
                self.dispatcher.tasks.started(idx, message["g"])
            elif message.op == "done":
                self.dispatcher.done(idx, message)
            elif not is_dead and self.family.ps.get(idx) is child:
                self._answer(Asker(channel, message))
        return bool(messages)

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
        self._watch_owner(peer)
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

    def _watch_owner(self, peer: Attached) -> None:
        """A script that is killed may be what a stop waits for, or hold a lock: its process is watched, and not only its socket."""
        pid, _, _ = _PEER.unpack(peer.channel.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # it has died: its socket has hung up
            return
        _p_record(cast(int, peer.p)).pidfd = pidfd
        self._watch(pidfd, self._on_owner_death, self.urgent)

    def _on_owner_death(self, pidfd: int) -> None:
        self.ending = True

    def _on_attached_message(self, peer: Attached) -> None:
        try:
            messages = peer.channel.receive()
        except RuntimeLost:
            self._detach(peer)
            return
        for message in messages:
            if problem := fault(message, from_p=False):
                Asker(peer.channel, message).refuse(problem)
            elif message.op == "go":
                self.dispatcher.go(peer.channel, message)
            else:
                self._answer(Asker(peer.channel, message))

    def _detach(self, peer: Attached) -> None:
        self._unwatch(peer.channel.fileno())
        self.attached.remove(peer)
        self.collecting = [waiter for waiter in self.collecting if waiter[1].channel is not peer.channel]
        self.releasing = [asker for asker in self.releasing if asker.channel is not peer.channel]
        self.resizing = [asker for asker in self.resizing if asker.channel is not peer.channel]
        self.deferred = [asker for asker in self.deferred if asker.channel is not peer.channel]
        peer.channel.close()
        if peer is self.owner:
            self.ending = True

    def _answer(self, asker: Asker, may_wait: bool = True) -> None:
        """Requests to the coordinator itself. Without ``may_wait`` one that needs room gets none made: it has been."""
        message = asker.request
        if self._is_held_up:
            self.deferred.append(asker)
            return
        try:
            self._try_to_answer(asker, may_wait)
        except OutOfMemory as error:
            asker.refuse(f"{message.op}: {error}")
        except RuntimeLost:  # the runtime ends
            pass

    def _try_to_answer(self, asker: Asker, may_wait: bool) -> None:
        message = asker.request
        if message.op in ("verify", "retainers"):
            self._look_through(asker, may_wait)
        elif message.op in ("collect", "free_os_memory"):
            self.collecting.append((self.collector.want(GC_TRIGGER_FORCED), asker))
        elif message.op == "set" and message["setting"] == "procs":
            self._set_procs(asker)
        elif message.op == "set":
            asker.answer(old=self._set(message["setting"], message["value"]))
        else:
            asker.answer(**self._stats().to_json())

    def _look_through(self, asker: Asker, may_wait: bool) -> None:
        """Walk the heap and answer. Where there is no memory for that, once a collection has made some. Raises OutOfMemory if it has not."""
        message = asker.request
        try:
            if message.op == "verify":
                asker.answer(**self._verify(message["level"]))
            else:
                asker.answer(**self._retainers(message["p"], message["slot"]))
        except OutOfMemory:
            if not may_wait:
                raise
            self.collecting.append((self.collector.want(GC_TRIGGER_FORCED), asker))

    def _set_procs(self, asker: Asker) -> None:
        """Change how many Ps there are as soon as may be, and answer then."""
        procs = asker.request["value"]
        if procs > self.max_procs.slots:
            asker.refuse(
                f"gomaxprocs={procs}: there is room for {self.max_procs.slots} Ps; start with max_procs={procs}"
            )
            return
        self.max_procs.set(procs)
        view(runtime_dtype, RUNTIME)[0].procs_are_auto = self.max_procs.is_auto
        self.resizing.append(asker)

    def _answer_deferred(self) -> None:
        if self.deferred and not self._is_held_up:
            deferred, self.deferred = self.deferred, []
            for asker in deferred:
                self._answer(asker)

    def _answer_collections(self) -> None:
        """Tell those whose collection is over, or go on with what they want released."""
        done = int(view(runtime_dtype, RUNTIME)[0].xcycle_done)
        for asker in [asker for target, asker in self.collecting if done >= target]:
            if asker.request.op == "collect":
                asker.answer(num_gc=int(view(gcstats_dtype, GCSTATS)[0].num_gc))
            else:
                self.scavenger.release_all(asker.request.fields.get("now", True))
                self.releasing.append(asker)
        self.collecting = [waiter for waiter in self.collecting if done < waiter[0]]
        if 0 < self.relieved <= done:
            self.relieved = 0
            self.scavenger.release_all(True)

    def _answer_releases(self) -> None:
        """Tell those who waited for all free memory to be returned."""
        if self.releasing and not self.scavenger.releasing:
            self._set_commit_budget()
            for asker in self.releasing:
                if asker.request.op == "free_os_memory":
                    asker.answer(heap_released=memstats.read().heap_released)
                else:
                    self._answer(asker, may_wait=False)
            self.releasing = []

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


def _describe_repair(before: RepairStats, after: RepairStats) -> str:
    """How long it took and what there was to do, in words."""
    counts = {name: getattr(after, name) - getattr(before, name) for name in ("redos", "spans", "handles", "marking")}
    words = {
        "redos": "changes finished",
        "spans": "spans put back",
        "handles": "references dropped",
        "marking": "mark phases started over",
    }
    found = ", ".join(f"{n} {words[name]}" for name, n in counts.items() if n)
    return f"repaired in {1000 * after.last_s:.1f} ms ({found or 'nothing was half done'})"


def _p_record(idx: int) -> Any:
    return view(p_dtype, layout.p_addr(idx))[0]


def _refuse(channel: Channel, problem: str) -> None:
    """Answer a request that cannot be served, so that nobody waits for ever."""
    with contextlib.suppress(RuntimeLost):
        channel.send("error", text=problem)


def main(settings: ServiceSettings) -> int:
    """Be the coordinator of a service until it is told to end; the exit code."""
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
