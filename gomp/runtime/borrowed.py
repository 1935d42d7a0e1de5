"""Ps that attached processes borrow: their records are there from the start, and somebody takes part with one until it says so, hangs up or dies.

Who says that it leaves has nothing mapped any more: its P is taken back (:mod:`gomp.core.gc.takeback`). Who has died is buried and put right as any P
is; and so is who has left while something names it, but when nothing is marked, for that has the marking begin anew. Who hangs up without a word has
died, or has become another program, and has nothing mapped either; who hangs up and has could go on, and so it is killed, as is who cannot be
understood. That comes before its connection is closed here: whoever finds that hung up takes it for the end of the runtime, and tells all others.

A death while the heap is marked has the marking begin anew. So that it comes to an end, a P that is free again meanwhile is lent after it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from gomp.core.gc.takeback import take_back_stw
from gomp.core.jit import cache_key
from gomp.core.sched.parking import ring
from gomp.core.shm import layout
from gomp.core.shm.records import GC_MARK, RUNTIME, runtime_dtype, view
from gomp.runtime.channel import NOBODYS, Channel, nothing, pid_of
from gomp.runtime.dying import Dying
from gomp.runtime.ending import Ending
from gomp.runtime.events import Events
from gomp.runtime.invitation import Invitation
from gomp.runtime.ps import Ps
from gomp.runtime.requests import Asker
from gomp.runtime.stopping import p_record

log = logging.getLogger("gomp.coordinator")

_RETURN_S = 5.0  # who does not want to wait does so, if a P is about to be free: less than an answer may take


@dataclass
class _Borrower:
    """The process that has P ``idx``. ``has_left``: it says so. ``is_unclear``: it has hung up, and what it has mapped could not be read yet."""

    idx: int
    pid: int
    pidfd: int
    channel: Channel
    has_left: bool = False
    is_unclear: bool = False


class BorrowedPs:
    """Those with the numbers ``lent``, to processes that get an ``invitation``. ``ps`` puts right what the dead have left: then it
    :meth:`has_settled`. ``tell(pids)`` is told who has one."""

    def __init__(
        self,
        lent: range,
        invitation: Invitation,
        events: Events,
        ending: Ending,
        dying: Dying,
        stopped_world: Callable[[], AbstractContextManager[None]],
        ps: Ps,
        tell: Callable[[list[int]], None],
    ) -> None:
        self._lent = lent
        self._invitation = invitation
        self._events = events
        self._ending = ending
        self._dying = dying
        self._stopped_world = stopped_world
        self._ps = ps
        self._tell = tell
        self._free = list(reversed(lent))
        self._resting: list[int] = []  # free when the heap is not marked any more
        self._borrowers: dict[int, _Borrower] = {}
        self._waiting: dict[Channel, tuple[Asker, float]] = {}  # until when
        self._build = cache_key()  # of what runs here, whatever is installed later

    def p_of(self, pid: int) -> int:
        """The P that the process ``pid`` has."""
        return next((borrower.idx for borrower in self._borrowers.values() if borrower.pid == pid), NOBODYS)

    # --- coming -------------------------------------------------------------------------------------------------------

    def attach(self, asker: Asker) -> None:
        """Lend one, now or as soon as there is one."""
        if asker.request["build"] != self._build:
            asker.say("mismatch", gomp=version("gomp"), build=self._build)
        elif asker.channel in self._waiting or self._of(asker.channel) is not None:
            asker.refuse("this connection has a P already, or waits for one")
        elif self._free:
            self._lend(asker)
        elif asker.request["wait"] and self._lent:
            self._waiting[asker.channel] = asker, math.inf
        elif self._is_one_coming_back():
            self._waiting[asker.channel] = asker, time.monotonic() + _RETURN_S
        else:
            asker.say("busy", text=self._why_none())

    def _is_one_coming_back(self) -> bool:
        return len(self._lent) > sum(not borrower.has_left for borrower in self._borrowers.values())

    def _why_none(self) -> str:
        name = self._invitation.name
        if not self._lent:
            return f"the runtime {name} lends no Ps: start it with max_attached=1 or more"
        pids = ", ".join(str(borrower.pid) for borrower in self._borrowers.values() if not borrower.has_left)
        where = ([f"lent, to the processes {pids}"] if pids else []) + (
            ["taken back when the heap has been marked"] if self._is_one_coming_back() else []
        )
        return (
            f"each of the {len(self._lent)} Ps that the runtime {name} lends is {', or '.join(where)}: attach with a timeout, or start it with a "
            "larger max_attached"
        )

    def _lend(self, asker: Asker) -> None:
        pid, idx = pid_of(asker.channel), self._free[-1]
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:  # it is in a namespace from which it cannot be seen here, or it has died
            asker.refuse(f"the process {pid} cannot be watched: {error.strerror}")
            return
        borrower = _Borrower(idx, pid, pidfd, asker.channel)
        try:
            self._events.watch(pidfd, lambda: self._on_exit(borrower), is_urgent=True)
        except OSError as error:
            os.close(pidfd)
            asker.refuse(f"the process {pid} cannot be watched: {error.strerror}")
            return
        self._free.pop()
        self._borrowers[idx] = borrower
        p_record(idx).pidfd = pidfd
        asker.channel.p = idx
        asker.channel.written = functools.partial(ring, layout.p_addr(idx))
        self._ending.holders.append(asker.channel)
        log.info("the process %d is attached, as P%d", pid, idx)
        self._tell_who()
        asker.hand(self._invitation.descriptors, **self._invitation.to(idx))

    # --- going --------------------------------------------------------------------------------------------------------

    def leave(self, channel: Channel) -> None:
        """The process at ``channel`` has nothing mapped any more."""
        if borrower := self._of(channel):
            borrower.has_left = True

    def forget(self, channel: Channel) -> None:
        """``channel`` has hung up, or says what cannot be understood, and is about to be closed."""
        self._waiting.pop(channel, None)
        borrower = self._of(channel)
        if borrower is None or borrower.has_left:
            return
        if channel.has_other_end:
            self._kill(borrower, "it does not speak gomp's protocol")
        else:
            self._judge(borrower)

    def _judge(self, borrower: _Borrower) -> None:
        """It has hung up without a word. Who is not to be seen through keeps its P until it is, or has died."""
        try:
            has_it_mapped = self._has_it_mapped(borrower.pid)
        except OSError as error:
            if not borrower.is_unclear:
                log.error("what the process %d has mapped, which has hung up, cannot be read: %s", borrower.pid, error)
            borrower.is_unclear = True
            return
        borrower.is_unclear = False
        if has_it_mapped:
            self._kill(borrower, "it has hung up, and has the heap mapped")
        else:
            self._on_death(borrower)

    def _kill(self, borrower: _Borrower, why: str) -> None:
        """Its death is heard of later."""
        log.error("P%d (pid %d) is killed: %s", borrower.idx, borrower.pid, why)
        with contextlib.suppress(OSError):  # it has died
            signal.pidfd_send_signal(borrower.pidfd, signal.SIGKILL)
        self._dying.was_killed(borrower.idx)

    def step(self) -> None:
        """Take back what those had who have left, and see to those who wait. Raises RuntimeLost if the runtime ends meanwhile."""
        for borrower in [borrower for borrower in self._borrowers.values() if borrower.is_unclear]:
            self._judge(borrower)
        if not _is_marking():
            self._take_back([borrower for borrower in self._borrowers.values() if borrower.has_left])
            self._free += self._resting
            self._resting.clear()
            self._lend_on()
        self._refuse_overdue()

    def _take_back(self, left: list[_Borrower]) -> None:
        if not left:
            return
        with self._stopped_world():
            taken = [borrower for borrower in left if take_back_stw(layout.p_addr(borrower.idx))]
        for borrower in left:
            self._forget(borrower)
            if borrower in taken:
                self._vacate(borrower.idx)
                self.has_settled(borrower.idx, f"the attached process {borrower.pid} has left", "")
            else:
                self._ps.bury(borrower.idx, f"the attached process {borrower.pid} has left", True)

    def _on_exit(self, borrower: _Borrower) -> None:
        """Its process has ended; perhaps it has left before, and nobody has heard that yet."""
        borrower.has_left = borrower.has_left or _has_said_so(borrower.channel)
        self._on_death(borrower)

    def _on_death(self, borrower: _Borrower) -> None:
        if borrower.has_left:
            self._events.unwatch(borrower.pidfd)
            return
        self._forget(borrower)
        if p_record(borrower.idx).xpid:
            self._ps.bury(borrower.idx, f"the attached process {borrower.pid} has died", False)
        else:  # nor had it ever anything of the heap
            self._vacate(borrower.idx)
            self.has_settled(borrower.idx, f"the process {borrower.pid} has died before it was attached", "")

    def _forget(self, borrower: _Borrower) -> None:
        self._events.unwatch(borrower.pidfd)
        os.close(borrower.pidfd)
        del self._borrowers[borrower.idx]
        borrower.channel.written, borrower.channel.p = nothing, NOBODYS
        self._ending.holders.remove(borrower.channel)
        self._dying.forget(borrower.idx)

    def _vacate(self, idx: int) -> None:
        """Nobody has P ``idx``, and nothing in the heap names who had it; but what they were sent, or were about to receive, waits for nobody now."""
        record = p_record(idx)
        record.xpid = record.pidfd = 0
        record.deaths += 1
        self._ps.have_transits_settled()

    def has_settled(self, idx: int, how: str, done: str) -> None:
        """P ``idx`` is as it was before it was lent; ``done`` is what there was to do, in words."""
        log.info("%s%s", how, f"; {done}" if done else "")
        (self._resting if _is_marking() else self._free).append(idx)
        self._tell_who()
        self._lend_on()

    def _lend_on(self) -> None:
        while self._waiting and self._free:
            asker, _ = self._waiting.pop(next(iter(self._waiting)))
            self._lend(asker)

    def _refuse_overdue(self) -> None:
        now = time.monotonic()
        for channel in [channel for channel, (_, until) in self._waiting.items() if until <= now]:
            asker, _ = self._waiting.pop(channel)
            asker.say("busy", text=self._why_none())

    # --- who ----------------------------------------------------------------------------------------------------------

    def _of(self, channel: Channel) -> _Borrower | None:
        return next((b for b in self._borrowers.values() if b.channel is channel), None)

    def _tell_who(self) -> None:
        self._tell([borrower.pid for borrower in self._borrowers.values()])

    def _has_it_mapped(self, pid: int) -> bool:
        """Whether the process maps this runtime's metadata where kernels look for them. Raises OSError if that is not to be known."""
        file = os.fstat(self._invitation.shared.meta_fd)
        try:
            lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return False
        device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}"
        mappings = [line.split(None, 5) for line in lines]
        return any(
            (m[3], int(m[4])) == (device, file.st_ino) and int(m[0].partition("-")[0], 16) >= layout.SELF_BASE
            for m in mappings
        )


def _has_said_so(channel: Channel) -> bool:
    """Whether the process that had ``channel`` has said that it leaves. What it has said is heard later all the same."""
    if channel.fileno() < 0:  # all of it was heard
        return False
    said = channel.receive_rest()
    channel.put_back(said)
    return any(message.op == "leave" for message in said)


def _is_marking() -> bool:
    return bool(view(runtime_dtype, RUNTIME)[0].xgcphase == GC_MARK)
