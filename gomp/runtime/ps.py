"""The processes of Ps, from the fork to the burial and to the successor.

One may die at any moment (:mod:`gomp.core.gc.repair`). Its death is noticed at once, also during a stop; what it left is put right before
anything else is done with the heap, and another process takes its place. One whose P is one too many is told to leave: it ends when its
goroutines have, and is settled as a dead one. What nobody waits for, and is started again elsewhere, ends at once.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import cast

from gomp.core.gc import repair
from gomp.core.shm import layout
from gomp.core.shm.records import RUNTIME, runtime_dtype, view
from gomp.errors import RuntimeLost
from gomp.forked import how_it_ended
from gomp.runtime import memstats
from gomp.runtime.channel import Channel, Message
from gomp.runtime.collector import Collector, Stuck
from gomp.runtime.dispatcher import Dispatcher, OnP
from gomp.runtime.dying import Dying
from gomp.runtime.ending import Ending
from gomp.runtime.events import Events
from gomp.runtime.family import Family, has_left
from gomp.runtime.memstats import RepairStats
from gomp.runtime.oomkills import ADVICE, HOPELESS, OomKills
from gomp.runtime.requests import Asker, fault
from gomp.runtime.restarts import Restarts
from gomp.runtime.stopping import NAMES_SHOWN, p_record

log = logging.getLogger("gomp.coordinator")

_RETRY_S = 1.0  # after a fork that the system refused


class Ps:
    """``give(asker)`` answers what one asks of the coordinator itself. A P from ``slots`` on is an attached process's: when it has been put right,
    ``returned(p, how, done)`` is told."""

    def __init__(
        self,
        events: Events,
        ending: Ending,
        family: Family,
        dispatcher: Dispatcher,
        collector: Collector,
        dying: Dying,
        oom_kills: OomKills,
        slots: int,
        give: Callable[[Asker], None],
        returned: Callable[[int, str, str], None],
    ) -> None:
        self._events = events
        self._ending = ending
        self._family = family
        self._dispatcher = dispatcher
        self._collector = collector
        self._dying = dying
        self._oom_kills = oom_kills
        self._restarts = [Restarts() for _ in range(slots)]
        self._give = give
        self._returned = returned
        self._slots = slots
        self._dead: dict[int, str] = {}  # not repaired yet: how they ended
        self._absent: dict[int, float] = {}  # without a process until that time
        self._leaving: set[int] = set()  # Ps that are one too many, and have a process
        self._told: set[int] = set()  # Ps whose processes were told to leave, if only for a while
        self._retired: set[int] = set()  # of the dead: those that ended because they were told to
        self._starved: set[int] = set()  # of the dead: those that the kernel has killed for want of memory

    def fork(self, idx: int) -> None:
        """Start the process of P ``idx``. Raises OSError, and leaves nothing behind, if the system refuses."""
        child = self._family.fork_p(idx)
        channel_fd = cast(Channel, child.channel).fileno()
        try:
            self._events.watch(child.pidfd, lambda: self._on_death(idx), is_urgent=True)
            self._events.watch(channel_fd, lambda: self._on_message(idx))
        except OSError:
            self._events.unwatch(child.pidfd)
            self._events.unwatch(channel_fd)
            self._family.abandon_p(idx)
            raise
        p_record(idx).pidfd = child.pidfd
        child.begin()

    # --- what they say ------------------------------------------------------------------------------------------------

    def _on_message(self, idx: int) -> None:
        """Read and do what P ``idx`` says."""
        child = self._family.ps[idx]
        channel = cast(Channel, child.channel)
        try:
            messages = channel.receive()
        except RuntimeLost as error:
            self._events.unwatch(channel.fileno())
            self._dying.has_hung_up(idx, str(error))
            return
        requests = deque(self._do(idx, channel, messages))
        while requests and not channel.is_clogged:
            self._give(Asker(channel, requests.popleft()))
            if self._family.ps.get(idx) is not child:  # it has died meanwhile
                return
        channel.put_back(requests)

    def _do(self, idx: int, channel: Channel, messages: list[Message]) -> list[Message]:
        """Do what P ``idx`` says; what it asks of the coordinator itself is left: to answer that may be to find the P dead, and to settle what is
        told here."""
        requests = []
        for message in messages:
            if problem := fault(message, from_p=True):
                Asker(channel, message).refuse(problem)
            elif message.op == "go":
                self._dispatcher.go(OnP(idx), message, idx)
            elif message.op == "started":
                self._dispatcher.tasks.started(idx, message["g"])
            elif message.op == "done":
                self._dispatcher.done(idx, message)
            else:
                requests.append(message)
        return requests

    def _hear_last(self, idx: int, channel: Channel) -> None:
        """The results of P ``idx``, which has died: somebody waits for them. What it has asked is left: nobody waits for the answer, and the heap
        is not to be looked at before it is repaired."""
        self._do(idx, channel, channel.receive_rest())
        if channel.has_other_end:
            log.warning("P%d has left a process that has its connection: what that says is not listened to", idx)

    # --- deaths -------------------------------------------------------------------------------------------------------

    def _on_death(self, idx: int) -> None:
        """The process of P ``idx`` is gone. From here nobody waits for it; what it left is put right by :meth:`repair`."""
        child = self._family.ps[idx]
        self._events.unwatch(child.pidfd)
        self._hear_last(idx, cast(Channel, child.channel))
        self._events.unwatch(cast(Channel, child.channel).fileno())
        status = self._family.bury_p(idx)
        self._dying.forget(idx)
        why_killed = self._oom_kills.explain(status)
        if why_killed:
            self._starved.add(idx)
        if idx in self._leaving or (has_left(status) and idx in self._told):
            self._retired.add(idx)
        self._leaving.discard(idx)
        self._told.discard(idx)
        self._dispatcher.tasks.set_absent(idx, True)
        view(runtime_dtype, RUNTIME)[0].xready = 0
        self.bury(idx, f"P{idx} (pid {child.pid}) {why_killed or how_it_ended(status)}", idx in self._retired)

    def bury(self, idx: int, how: str, is_asked_for: bool) -> None:
        """Nobody runs P ``idx`` any more, and it is to be put right; ``how`` that came, in words, and whether somebody has asked for it."""
        record = p_record(idx)
        record.pidfd = 0
        record.xpid = 0
        record.deaths += 1
        record.crashes += not is_asked_for
        if is_asked_for:
            self._retired.add(idx)
        self._dead[idx] = how
        repair.bury(layout.p_addr(idx))

    @property
    def has_dead(self) -> bool:
        """Whether somebody has died, and nothing is put right yet."""
        return bool(self._dead)

    def repair(self) -> None:
        """Put right what the dead have left, and start others in their place. Raises Stuck."""
        if not self._dead:
            return
        before = memstats.read_repairs()
        put_right = repair.retire if self._retired.issuperset(self._dead) else repair.repair
        if code := put_right(self._collector.deadline()):
            raise Stuck(-1 - code)
        self._collector.report()
        dead, self._dead = self._dead, {}
        done = _describe_repair(before, memstats.read_repairs())
        for idx, why in dead.items():
            self._settle(idx, why, done)
        self._retired.difference_update(dead)
        self._starved.difference_update(dead)
        if self._oom_kills.is_hopeless:
            why = next(iter(dead.values()))
            self._ending.lose(f"the runtime ends, for it cannot live here: {HOPELESS} times in a row {why}; {ADVICE}")
            return
        self.start_absent()
        self.have_transits_settled()
        for idx in dead:
            if idx < self._slots and idx not in self._family.ps:
                self._dispatcher.move(self._dispatcher.tasks.of(idx), is_dead=True)

    def _settle(self, idx: int, why: str, done: str) -> None:
        """Tell who waits for P ``idx``, which is dead, and say in the log what has been ``done`` about it."""
        if idx >= self._slots:
            self._returned(idx, why, done)
            return
        delay = self._delay(idx)
        if idx < self._dispatcher.tasks.procs:
            self._absent[idx] = time.monotonic() + delay
        running = self._dispatcher.has_died(idx, why)
        names = ", ".join(task.name for task in running[:NAMES_SHOWN])
        if idx in self._retired:
            log.info("P%d has left%s", idx, f", and ended {names}" if names else "")
            return
        log.error(
            "%s while it ran %s; %s; it is started again%s%s",
            why,
            names or "nothing",
            done,
            f" in {delay:.1f} s: it keeps dying" if delay else "",
            f"; {ADVICE}" if idx in self._starved else "",
        )

    def _delay(self, idx: int) -> float:
        """Seconds until the successor of P ``idx``, which is dead, is to be started."""
        if idx in self._retired:
            return 0.0
        delay = self._restarts[idx].died(time.monotonic())
        return max(delay, self._oom_kills.delay(idx)) if idx in self._starved else delay

    def have_transits_settled(self) -> None:
        """Have everybody take back what processes were sent, or were receiving, that are gone."""
        for channel in (*self._family.channels(), *self._ending.holders):
            with contextlib.suppress(RuntimeLost):
                channel.send("settle")

    # --- successors ---------------------------------------------------------------------------------------------------

    def start_absent(self) -> None:
        """Fork the processes whose time has come."""
        for idx in [idx for idx, at in self._absent.items() if at <= time.monotonic()]:
            try:
                self.fork(idx)
            except OSError as error:
                log.error("P%d cannot be started again: %s; the next try is in %.0f s", idx, error.strerror, _RETRY_S)
                self._absent[idx] = time.monotonic() + _RETRY_S
                continue
            del self._absent[idx]
            self._dispatcher.tasks.set_absent(idx, False)
            self._dispatcher.has_started(idx)
        view(runtime_dtype, RUNTIME)[0].xready = int(not self._absent and not self._dead)

    @property
    def rest_s(self) -> float:
        """For how many seconds no process is to be started."""
        return max(min(self._absent.values(), default=math.inf) - time.monotonic(), 0.0)

    def have_stay(self, idx: int) -> None:
        """There is to be a P ``idx``. If it has left by the time it hears of that, it is started again."""
        self._leaving.discard(idx)
        if channel := self._family.channel(idx):
            with contextlib.suppress(RuntimeLost):
                channel.send("stay")
            self._dispatcher.tasks.set_absent(idx, False)
        elif idx not in self._dead:
            self._absent[idx] = 0.0
            self._dispatcher.tasks.set_absent(idx, True)

    def have_leave(self, idx: int) -> None:
        """P ``idx`` is one too many."""
        self._absent.pop(idx, None)
        channel = self._family.channel(idx)
        self._dispatcher.move(self._dispatcher.tasks.of(idx), is_dead=channel is None)
        if channel:
            self._leaving.add(idx)
            self._told.add(idx)
            with contextlib.suppress(RuntimeLost):
                channel.send("leave")

    def idlers(self) -> list[int]:
        """Ps that are to leave, and only run what is started again elsewhere."""
        return [idx for idx in self._leaving & self._family.ps.keys() if self._dispatcher.runs_only_supervised(idx)]


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
