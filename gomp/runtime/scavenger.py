"""The coordinator's part in giving memory back: when the background scavenger works, and the lines of ``GODEBUG=scavtrace=1``.

It sleeps between pieces of work of a millisecond or two, so that it takes a hundredth of the Ps' time, and for good when it has reached its goals
or finds nothing, until the next sweep is over. What somebody asks to be released at once is released in the same pieces, without the sleep.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from gomp.core.gc import scavenger, scavpace
from gomp.core.shm.records import (
    MHEAP,
    RUNTIME,
    SCAVPACE,
    STACKPOOL,
    mheap_dtype,
    runtime_dtype,
    scavpace_dtype,
    stackpool_dtype,
    view,
)
from gomp.runtime.lazyreturn import EVERYTHING, LazyReturn

_SLICE_NS = 1_000_000


class Scavenger:
    """With ``traces`` each sweep's end has its line; ``lazy``: what is released may stay in memory."""

    def __init__(self, traces: bool, lazy: LazyReturn | None = None) -> None:
        self.traces = traces
        self.lazy = lazy
        self.releasing = False  # everything, because somebody asked
        self._released = 0
        self._due = math.inf
        self._asleep_since: int | None = None  # since when, in ns; None: it is parked
        self._traced = (0, 0)
        self._was_reset = False
        self._wants_all = False
        scavpace.init_pace()
        _pace().swept_in_use = EVERYTHING  # nothing has been swept

    @property
    def rest_s(self) -> float:
        """For how many seconds there is nothing to do."""
        if self.releasing:
            return 0.0
        rest = max(self._due - time.monotonic(), 0.0)
        return min(rest, self.lazy.rest_s) if self.lazy else rest

    def on_swept(self) -> None:
        """A sweep is over: begin anew, as soon as the pace allows, and write the line of what was done until now.

        (Go cuts any sleep short. Where cycles follow one another, thirty a second, each would be a millisecond of work, whatever the pace.)
        """
        self._due = max(time.monotonic(), min(self._due, self._paid_at()))
        record = _pace()
        record.swept_in_use = view(mheap_dtype, MHEAP)[0].xheap_inuse
        if self.traces:
            total = int(record.xbackground_bytes), int(record.xeager_bytes)
            background, eager = (now - before for now, before in zip(total, self._traced, strict=True))
            self._traced = total
            note = " [controller reset]" if self._was_reset else ""
            self._was_reset = False
            print(trace_line(background, eager, note), file=sys.stderr, flush=True)

    def _paid_at(self) -> float:
        """When the last piece of work has been its share of the time since."""
        if self._asleep_since is None:
            return 0.0
        share_ns = max(_pace().worked_ns, scavpace.MIN_WORK_NS) / (scavpace.SHARE * _procs())
        return (self._asleep_since + float(share_ns)) / 1e9

    def release_all(self, now: bool) -> None:
        """Return everything that is free, without the pace, and with ``now`` also what was returned lazily; :attr:`releasing` says whether
        that goes on."""
        self.releasing = True
        self._released = 0
        if now and self.lazy:
            self._wants_all = True

    def step(self) -> None:
        """What is due, for a millisecond at most."""
        if self.releasing:
            self._release()
        elif time.monotonic() >= self._due:
            self._work()
        if self.lazy:
            self.lazy.step()

    def _release(self) -> None:
        released = scavenger.release_some(time.monotonic_ns() + _SLICE_NS)
        self._released += released
        if released == 0 and self.lazy and self._wants_all:
            self.lazy.want_everything()
            self._wants_all = False
        elif released == 0 and not (self.lazy and self.lazy.wanted):
            self.releasing = False
            if self.traces:
                print(trace_line(0, self._released, " (forced)"), file=sys.stderr, flush=True)

    def _work(self) -> None:
        record = _pace()
        if self._asleep_since is not None:
            # A process that was stopped meanwhile has not slept so long: the controller would have it make up for that.
            slept = min(time.monotonic_ns() - self._asleep_since, 2 * scavpace.sleep_time(record.worked_ns))
            scavpace.slept(record.worked_ns, slept, _procs())
            self._was_reset |= record.cooldown_ns > 0
        if scavenger.work() == 0:
            self._asleep_since, self._due = None, math.inf
            return
        self._asleep_since = time.monotonic_ns()
        self._due = time.monotonic() + scavpace.sleep_time(record.worked_ns) / 1e9


def _procs() -> int:
    """Ps, which share the hundredth."""
    return int(view(runtime_dtype, RUNTIME)[0].nprocs)


def _pace() -> Any:
    return view(scavpace_dtype, SCAVPACE)[0]


def trace_line(background: int, eager: int, note: str) -> str:
    """Go's line: released in the background, and by allocations, since the last one; released in all; how much of what is kept is in use."""
    heap = view(mheap_dtype, MHEAP)[0]
    stacks = int(view(stackpool_dtype, STACKPOOL)[0].xspan_bytes)
    in_use, retained = int(heap.xheap_inuse) - stacks, max(int(heap.xheap_committed) - stacks, 1)
    return (
        f"scav {background >> 10} KiB work (bg), {eager >> 10} KiB work (eager), {int(heap.xheap_released) >> 10} KiB now, "
        f"{in_use * 100 // retained}% util{note}"
    )
