"""Ps that attached processes borrow: their records are there from the start, and somebody takes part with one until it says so, hangs up or dies.

Who says that it leaves has nothing mapped any more: its P is taken back (:mod:`gomp.core.gc.takeback`). Who has died is buried and put right as any P
is; and so is who has left while something names it, but when nothing is marked, for that has the marking begin anew. Who hangs up without a word has
died, or has become another program, and has nothing mapped either; who hangs up and has could go on, and so it is killed, as a P that cannot be
understood is.
"""

from __future__ import annotations

import functools
import logging
import os
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
from gomp.core.shm.segments import Segments
from gomp.runtime.channel import Channel, nothing, pid_of
from gomp.runtime.dying import Dying
from gomp.runtime.ending import Ending
from gomp.runtime.events import Events
from gomp.runtime.requests import Asker
from gomp.runtime.stopping import p_record

log = logging.getLogger("gomp.coordinator")


@dataclass
class _Borrower:
    """The process that has P ``idx``. ``has_left``: it says so."""

    idx: int
    pid: int
    pidfd: int
    channel: Channel
    has_left: bool = False


class BorrowedPs:
    """Those with the numbers ``lent``. ``bury(p, how, is_asked_for)`` has a P put right: then it :meth:`has_settled`. ``tell(pids)`` is told who has
    one."""

    def __init__(
        self,
        lent: range,
        shared: Segments,
        wake_fd: int,
        name: str,
        events: Events,
        ending: Ending,
        dying: Dying,
        stopped_world: Callable[[], AbstractContextManager[None]],
        bury: Callable[[int, str, bool], None],
        tell: Callable[[list[int]], None],
    ) -> None:
        self._lent = lent
        self._shared = shared
        self._wake_fd = wake_fd
        self._name = name
        self._events = events
        self._ending = ending
        self._dying = dying
        self._stopped_world = stopped_world
        self._bury = bury
        self._tell = tell
        self._free = list(reversed(lent))
        self._borrowers: dict[int, _Borrower] = {}
        self._waiting: list[Asker] = []
        self._build = cache_key()  # of what runs here, whatever is installed later

    # --- coming -------------------------------------------------------------------------------------------------------

    def attach(self, asker: Asker) -> None:
        """Lend one, now or as soon as there is one."""
        if asker.request["build"] != self._build:
            asker.say("mismatch", gomp=version("gomp"), build=self._build)
        elif self._of(asker.channel) is not None:
            asker.refuse("this connection has a P already")
        elif self._free:
            self._lend(asker)
        elif asker.request["wait"] and self._lent:
            self._waiting.append(asker)
        else:
            asker.say("busy", text=self._why_none())

    def _why_none(self) -> str:
        if not self._lent:
            return f"the runtime {self._name} lends no Ps: start it with max_attached=1 or more"
        pids = ", ".join(str(borrower.pid) for borrower in self._borrowers.values())
        return (
            f"each of the {len(self._lent)} Ps that the runtime {self._name} lends is lent, to the processes {pids}: attach with a timeout, or "
            "start it with a larger max_attached"
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
            self._events.watch(pidfd, lambda: self._on_death(borrower), is_urgent=True)
        except OSError as error:
            os.close(pidfd)
            asker.refuse(f"the process {pid} cannot be watched: {error.strerror}")
            return
        self._free.pop()
        self._borrowers[idx] = borrower
        p_record(idx).pidfd = pidfd
        asker.channel.written = functools.partial(ring, layout.p_addr(idx))
        self._ending.holders.append(asker.channel)
        log.info("the process %d is attached, as P%d", pid, idx)
        self._tell_who()
        asker.hand(
            [self._shared.heap_fd, self._shared.meta_fd, self._wake_fd],
            p=idx,
            heap_bytes=self._shared.heap_bytes,
            backing=self._shared.backing,
            name=self._name,
        )

    # --- going --------------------------------------------------------------------------------------------------------

    def leave(self, channel: Channel) -> None:
        """The process at ``channel`` has nothing mapped any more."""
        if borrower := self._of(channel):
            borrower.has_left = True

    def forget(self, channel: Channel) -> None:
        """``channel`` has hung up."""
        self._waiting = [asker for asker in self._waiting if asker.channel is not channel]
        borrower = self._of(channel)
        if borrower is None or borrower.has_left:
            return
        if self._has_it_mapped(borrower.pid):
            self._dying.has_hung_up(borrower.idx, "it has hung up, and has the heap mapped")
        else:
            self._on_death(borrower)

    def step(self) -> None:
        """Take back what those had who have left. Raises RuntimeLost if the runtime ends meanwhile."""
        left = [borrower for borrower in self._borrowers.values() if borrower.has_left]
        if not left or view(runtime_dtype, RUNTIME)[0].xgcphase == GC_MARK:
            return
        with self._stopped_world():
            taken = [borrower for borrower in left if take_back_stw(layout.p_addr(borrower.idx))]
        for borrower in left:
            self._forget(borrower)
            if borrower in taken:
                record = p_record(borrower.idx)
                record.xpid = record.pidfd = 0
                record.deaths += 1  # what it was about to receive waits for nobody any more
                self.has_settled(borrower.idx, f"the attached process {borrower.pid} has left", "")
            else:
                self._bury(borrower.idx, f"the attached process {borrower.pid} has left", True)

    def _on_death(self, borrower: _Borrower) -> None:
        if borrower.has_left:
            self._events.unwatch(borrower.pidfd)
        else:
            self._forget(borrower)
            self._bury(borrower.idx, f"the attached process {borrower.pid} has died", False)

    def _forget(self, borrower: _Borrower) -> None:
        self._events.unwatch(borrower.pidfd)
        os.close(borrower.pidfd)
        del self._borrowers[borrower.idx]
        borrower.channel.written = nothing
        self._ending.holders.remove(borrower.channel)
        self._dying.forget(borrower.idx)

    def has_settled(self, idx: int, how: str, done: str) -> None:
        """P ``idx`` is as it was before it was lent; ``done`` is what there was to do, in words."""
        log.info("%s%s", how, f"; {done}" if done else "")
        self._free.append(idx)
        self._tell_who()
        while self._waiting and self._free:
            self._lend(self._waiting.pop(0))

    # --- who ----------------------------------------------------------------------------------------------------------

    def _of(self, channel: Channel) -> _Borrower | None:
        return next((b for b in self._borrowers.values() if b.channel is channel), None)

    def _tell_who(self) -> None:
        self._tell([borrower.pid for borrower in self._borrowers.values()])

    def _has_it_mapped(self, pid: int) -> bool:
        """Whether the process maps this runtime's metadata where kernels look for them."""
        inode = os.fstat(self._shared.meta_fd).st_ino
        try:
            lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return False
        except OSError:  # it may have
            return True
        mappings = [line.split(None, 5) for line in lines]
        return any(int(m[4]) == inode and int(m[0].partition("-")[0], 16) >= layout.SELF_BASE for m in mappings)
