"""The limits on memory that the coordinator keeps.

What may be committed, the memory limit where it follows the cgroup's, and cycles when memory is scarce.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from gomp.cgroup import MemoryCgroup
from gomp.config import AUTO, RuntimeSettings, Setting, show_setting
from gomp.core.gc import pacer
from gomp.core.gc.cycle import recommit_stw
from gomp.core.shm.commit import ENDLESS, budget_left, committed_so_far, renew_budget
from gomp.core.shm.records import (
    GC_TRIGGER_TIME,
    MHEAP,
    PACER,
    RUNTIME,
    mheap_dtype,
    pacer_dtype,
    runtime_dtype,
    view,
)
from gomp.runtime import memstats
from gomp.runtime.autolimit import AutoLimit
from gomp.runtime.collector import Collector
from gomp.runtime.scavenger import Scavenger

log = logging.getLogger("gomp.coordinator")

FORCED_GC_PERIOD_S = 120.0
BUDGET_PERIOD_S = 0.1
_TIGHT_GC_PERIOD_S = 5.0  # a cycle of 100 MiB takes a tenth of a second
_TIGHTENING_GC_PERIOD_S = 0.5  # a program that collects more often than that makes its own room
_CGROUP_RESERVE = 16 << 20
_WORST_S = 5.0  # longer than the collection of a last resort, and its sweep


class Limits:
    """``stopped_world()`` stops the world for a block."""

    def __init__(
        self,
        settings: RuntimeSettings,
        cgroup: MemoryCgroup,
        collector: Collector,
        scavenger: Scavenger,
        stopped_world: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.auto = AutoLimit(cgroup, settings.memory_limit_share)
        self._is_auto = settings.memory_limit == AUTO
        self._cgroup = cgroup
        self._collector = collector
        self._scavenger = scavenger
        self._stopped_world = stopped_world
        self._budget_set = 0.0
        self._has_budget = False  # by the cgroup's limit, which may be lifted
        self._worst_until = 0.0  # so long pages of files are memory that can be had
        self._is_tight = False  # little is left of the cgroup's limit
        self._relieved = 0  # after so many ended cycles all free memory is returned because it is scarce; 0: not now
        self._warned_of = -1  # the last limit that somebody was warned of

    # --- what may be committed ----------------------------------------------------------------------------------------

    def is_budget_due(self) -> bool:
        return time.monotonic() - self._budget_set > BUDGET_PERIOD_S

    def set_budget(self) -> None:
        """How much may be committed before the next look: what the cgroup leaves, less what interpreters and page tables may take."""
        self._budget_set = time.monotonic()
        before = committed_so_far()
        headroom = self._cgroup.headroom(at_worst=self._budget_set < self._worst_until)
        if headroom is not None:
            renew_budget(before, max(headroom - _CGROUP_RESERVE, 0))
            self._has_budget = True
        elif self._has_budget and self._cgroup.is_unlimited():
            renew_budget(before, ENDLESS)
            self._has_budget = False

    def set_last_budget(self) -> None:
        """Before a program is told that the heap is full: programs that run need less of the libraries than was read when they were loaded."""
        self._worst_until = time.monotonic() + _WORST_S
        self.set_budget()

    # --- cycles -------------------------------------------------------------------------------------------------------

    def force_gc(self) -> None:
        """Go's cycle every two minutes that nobody's allocations ask for. Raises Stuck.

        A container whose memory is nearly all taken does not wait so long, and gets all that comes of it: what died there since the last cycle
        may be most of the heap, and the next process that starts in it, if only for a probe, would have the kernel kill another.
        """
        was_tight, self._is_tight = self._is_tight, budget_left() < _CGROUP_RESERVE
        if self._is_tight and self._collector.idle_s > (_TIGHT_GC_PERIOD_S if was_tight else _TIGHTENING_GC_PERIOD_S):
            self._relieved = self._collector.want(GC_TRIGGER_TIME)
        elif self._collector.idle_s > FORCED_GC_PERIOD_S and view(pacer_dtype, PACER)[0].gc_percent >= 0:
            self._collector.begin(GC_TRIGGER_TIME)

    def relieve(self) -> None:
        """Return all free memory when the cycle is over that was wanted because memory is scarce."""
        if 0 < self._relieved <= int(view(runtime_dtype, RUNTIME)[0].xcycle_done):
            self._relieved = 0
            self._scavenger.release_all(True)

    # --- settings -----------------------------------------------------------------------------------------------------

    def set(self, setting: Setting, value: int) -> int:
        """Change a setting, as somebody wants it, from now on; what it was. Raises RuntimeLost if the runtime ends meanwhile, as all below."""
        if setting == "memory_limit":
            self._is_auto = value == AUTO
            view(runtime_dtype, RUNTIME)[0].limit_is_auto = self._is_auto
        if setting == "memory_limit" and value == AUTO:
            old = int(view(pacer_dtype, PACER)[0].memory_limit)
            self.auto.again()
            self.follow()
        else:
            old = self._change(setting, value)
        log.info("%s is %s now; it was %s", setting, show_setting(setting, value), show_setting(setting, old))
        return old

    def follow(self) -> None:
        """Where the memory limit is auto: set what the cgroup allows now."""
        limit = self.auto.look() if self._is_auto else None
        if limit is None:
            return
        self._change("memory_limit", limit)
        if memstats.read().mapped > limit:  # somebody else takes memory now, and the next allocation may come too late
            self._relieved = self._collector.want(GC_TRIGGER_TIME)

    def _change(self, setting: Setting, value: int) -> int:
        change = pacer.set_gc_percent if setting == "gogc" else pacer.set_memory_limit
        with self._stopped_world():
            old = int(change(value))
            recommit_stw()
        self._collector.report()
        self.warn()
        return old

    def warn(self) -> None:
        """A limit that leaves nothing for the heap is accepted, as in Go, but somebody may not have meant it: they are told once.

        What the runtime takes is known when it has begun to work: the first object costs it more than all before.
        """
        heap, limit = view(mheap_dtype, MHEAP)[0], int(view(pacer_dtype, PACER)[0].memory_limit)
        needs = int(heap.xmetadata_bytes + heap.xwbuf_bytes + heap.xtable_bytes)
        was_warned_of, self._warned_of = self._warned_of, limit if limit < needs else -1
        if self._warned_of in (-1, was_warned_of):
            return
        log.warning(
            "memory_limit is %d bytes, and beside the heap the runtime itself takes %d: the limit will be passed, and cycles follow one "
            "another, with up to half of the CPU time",
            limit,
            needs,
        )
