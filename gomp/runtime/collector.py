"""The coordinator's part in the collector's cycles: when one begins, whose turn it is to mark, when it is over.

Between two steps the coordinator looks at its sockets and signals, so a step sweeps for two milliseconds and marks for three at most. Each pause
is one kernel; the waiting in it, for Ps to stop, has a deadline.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from gomp.config import Debug
from gomp.core.gc import cycle, leaks, memprofile, sweep, worker
from gomp.core.heap import gs, stackalloc
from gomp.core.mutator.poll import take_request
from gomp.core.sched.status import OK, start_world
from gomp.core.shm.records import (
    GC_MARK,
    GC_TRIGGER_FORCED,
    GC_TRIGGER_LAST_RESORT,
    GC_TRIGGER_TIME,
    GCSTATS,
    PACER,
    RUNTIME,
    SCHED,
    SWEEP_SETS,
    TRACE_CYCLE_SWEPT,
    gcstats_dtype,
    pacer_dtype,
    runtime_dtype,
    sched_dtype,
    view,
)
from gomp.core.shm.tracing import tell_if_tracing
from gomp.errors import OutOfMemory
from gomp.runtime import gctrace, memstats, pacerlog
from gomp.runtime.pacertape import PacerTape
from gomp.runtime.pacertrace import PacerTrace, sweep_line
from gomp.runtime.scavenger import Scavenger

if TYPE_CHECKING:
    from gomp.runtime.checkfinalizers import FinalizerCheck

log = logging.getLogger("gomp.coordinator")

_STEP_NS = 2 * worker.STEP_NS  # of marking, or for whoever waits, before it looks at the rest of the world
_REST_NS = 200_000  # while others mark
_PATIENCE = 500  # steps at which nobody's turn it was, before the coordinator marks all the same
_SWEEP_SLICE = 256  # spans, of a microsecond each or less
_STACK_SLICE = 1024  # stacks, of a tenth of that


class Stuck(Exception):
    """P ``p`` did not stop, or did not answer, in time."""

    def __init__(self, p: int) -> None:
        self.p = p


class Collector:
    """One cycle at a time. ``problems`` is what GODEBUG's checks have found: nothing may go on after that."""

    def __init__(
        self,
        debug: Debug,
        stop_deadline_s: float,
        scavenger: Scavenger,
        tape: PacerTape | None = None,
    ) -> None:
        self.debug = debug
        self.stop_deadline_s = stop_deadline_s
        self._scavenger = scavenger
        self.problems: tuple[str, ...] = ()
        self._runtime = view(runtime_dtype, RUNTIME)[0]
        self._kind = 0
        self._wanted = 0  # the kind of a cycle that could not begin yet
        self._wants_leaks = False
        self._leak_looks = 0  # up to the last cycle that was told of
        self._rests = 0
        self._sweeps_for_waiters = False
        self._is_sweeping = False
        self._dead_stacks = 0  # free records at the end of the last cycle that have not been looked at: those that have stacks are to lose them
        self._tape = tape
        self._trace = PacerTrace() if debug.gcpacertrace else None
        self._last_end = time.monotonic()
        self.on_last_resort: Callable[[], None] = lambda: (
            None
        )  # an allocation has failed, and is tried again after the cycle that begins

    @property
    def idle_s(self) -> float:
        """Seconds since the last cycle ended; 0 while one is on."""
        return 0.0 if self.is_marking else time.monotonic() - self._last_end

    @property
    def is_marking(self) -> bool:
        """Whether a cycle is on, that has not come to its sweep."""
        return int(self._runtime.xgcphase) == GC_MARK

    def deadline(self) -> int:
        """When a stop that begins now has to stand."""
        return time.monotonic_ns() + int(self.stop_deadline_s * 1e9)

    def step(self) -> float | None:
        """Go on with what is to be done; for how many seconds that leaves nothing to do, or None if there is nothing at all."""
        if self.is_marking:
            self._mark()
            return 0.0
        until = time.monotonic_ns() + _STEP_NS
        while self._clean_up():
            if not (self._sweeps_for_waiters or self.is_wanted) or time.monotonic_ns() > until:
                return 0.0
        self._end_sweep()
        if self.is_wanted:
            self.begin(take_request())
            self._mark()
            return 0.0
        return None

    @property
    def is_wanted(self) -> bool:
        """Whether a cycle is to begin."""
        return not self.is_marking and bool(self._wanted or self._runtime.xgc_request)

    def _clean_up(self) -> bool:
        """Free some of what the last cycle has left, stacks first; whether there may be more."""
        if self._free_stacks():
            return True
        if self._sweeps_for_waiters:
            self._sweep()
            return True
        return self._runtime.xsweep_class < SWEEP_SETS and bool(sweep.sweep_step(_SWEEP_SLICE))

    def want(self, kind: int) -> int:
        """Begin a cycle as soon as one can; the number of ended cycles by which it is over."""
        self._wanted = max(self._wanted, kind)
        return int(self._runtime.xcycles) + 1

    def want_leaks(self) -> int:
        """Have the next cycle, which is to begin as soon as it can, look for goroutines that wait for ever; as :meth:`want`."""
        self._wants_leaks = True
        return self.want(GC_TRIGGER_FORCED)

    def begin(self, kind: int) -> None:
        """Start a cycle, if none is on. Raises Stuck."""
        if self.is_marking or self._sweeps_for_waiters:
            return
        kind = max(kind, self._wanted)
        if kind == GC_TRIGGER_TIME and self.debug.gctrace:
            print(gctrace.GC_FORCED, file=sys.stderr, flush=True)
        if kind == GC_TRIGGER_LAST_RESORT:
            self.on_last_resort()
        self._kind, self._rests, self._wanted, self._dead_stacks = kind, 0, kind, 0
        self._end_sweep()
        if self._wants_leaks:
            leaks.want_leaks()
        if self.debug.gcstoptheworld:
            _check(cycle.collect_stopped(kind, time.time_ns(), self.deadline()))
            self._end()
        else:
            _check(cycle.begin_cycle(kind, self.deadline()))
            self.report()
        self._wanted = 0
        self._wants_leaks = False

    def report(self) -> None:
        """Tell what the pacer has decided, where that is wanted."""
        if self._tape is None and self._trace is None:
            return
        for decision in pacerlog.take():
            if self._tape:
                self._tape.write(decision)
            if self._trace and (line := self._trace.line(decision)):
                print(line, file=sys.stderr, flush=True)

    def _mark(self) -> None:
        """Who holds grey objects and is stopped holds up the end of the marking, and no stop that would find it out: so after a while everybody is
        asked, which is all that DRY saves. It goes from one slice to the next, and to the end, without a look at anything else: what is allocated
        meanwhile is not collected. Raises Stuck."""
        until = time.monotonic_ns() + _STEP_NS
        while self.is_marking and time.monotonic_ns() < until:
            is_overdue = self._rests > _PATIENCE
            state = worker.mark_step(is_overdue)
            if state == worker.DRY or (is_overdue and state == worker.RESTING):
                self._rests = 0
                self._try_to_end()
            elif state == worker.WORKING:
                self._rests = 0
            elif not worker.rest(_REST_NS):
                self._rests += 1

    def _try_to_end(self) -> None:
        if _check(cycle.may_be_done(self.deadline())) != OK:
            return
        if self.debug.gccheckmark:
            if _check(cycle.stop_marking(self.deadline())) != OK:
                return
            self._check_marks()
            cycle.finish_cycle(time.time_ns())
        elif _check(cycle.end_marking(time.time_ns(), self.deadline())) != OK:
            return
        self._sweeps_for_waiters = self._kind in (GC_TRIGGER_FORCED, GC_TRIGGER_LAST_RESORT)
        if not self._sweeps_for_waiters:
            cycle.announce_end()
        self._end()

    def _sweep(self) -> None:
        if not sweep.sweep_step(_SWEEP_SLICE):
            self._sweeps_for_waiters = False
            memprofile.publish(1)
            cycle.announce_end()

    def _free_stacks(self) -> bool:
        """Some stacks that no goroutine has go back to the heap; whether there may be more."""
        if self._dead_stacks > 0:
            is_full = gs.free_dead_stacks(_STACK_SLICE) == _STACK_SLICE
            self._dead_stacks = self._dead_stacks - _STACK_SLICE if is_full else 0
            return True
        return bool(stackalloc.free_large_stacks(_STACK_SLICE))

    def _end(self) -> None:
        self._last_end = time.monotonic()
        self._dead_stacks = gs.num_free_gs()
        self._is_sweeping = True
        self.report()
        if self.debug.gctrace:
            print(gctrace.format_cycle(last_cycle(self._has_looked_for_leaks())), file=sys.stderr, flush=True)
        if self.debug.checkfinalizers:
            self._check_finalizers()
        if self.debug.verify:
            self._verify()

    def _has_looked_for_leaks(self) -> bool:
        """Whether the cycle that has just ended has."""
        before, self._leak_looks = self._leak_looks, int(view(sched_dtype, SCHED)[0].leak_looks)
        return self._leak_looks != before

    def _end_sweep(self) -> None:
        """What is left of the sweep, and the line that says that it is done."""
        if self._is_sweeping:
            while sweep.sweep_step(_SWEEP_SLICE):
                pass
            self._is_sweeping = False
            tell_if_tracing(TRACE_CYCLE_SWEPT, int(self._runtime.xcycles), 0)
            self._scavenger.on_swept()
            if self._trace:
                print(sweep_line(int(view(pacer_dtype, PACER)[0].xheap_live)), file=sys.stderr, flush=True)

    def _check_marks(self) -> None:
        with _or_next_time("gccheckmark"):
            from gomp.runtime.verify import check_marks

            self.problems += check_marks()

    def _verify(self) -> None:
        with _or_next_time("verify"):
            from gomp.runtime.verifyaside import verify_aside

            self._with_stopped_world(lambda: self._note(verify_aside(self.debug.verify)["problems"]))

    def _note(self, problems: list[str]) -> None:
        self.problems += tuple(problems)

    @functools.cached_property
    def _finalizer_check(self) -> FinalizerCheck:
        from gomp.runtime.checkfinalizers import FinalizerCheck

        return FinalizerCheck()

    def _check_finalizers(self) -> None:
        with _or_next_time("checkfinalizers"):
            look = self._finalizer_check.look_stw
            self._with_stopped_world(lambda: print("\n".join(look()), file=sys.stderr, flush=True))

    def _with_stopped_world(self, action: Callable[[], None]) -> None:
        from gomp.core.sched.status import stop_world

        try:
            code = stop_world(self.deadline())
            if code == OK:
                action()
        finally:
            start_world()
        _check(code)


@contextlib.contextmanager
def _or_next_time(what: str) -> Iterator[None]:
    """Leave out what GODEBUG has looked at, where there is no memory for it now, or no descriptor."""
    try:
        yield
    except (OutOfMemory, OSError) as error:
        log.warning("GODEBUG=%s looks again in the next collection: %s", what, error)


def _check(code: int) -> int:
    if code < 0:
        raise Stuck(-1 - code)
    return code


def last_cycle(looked_for_leaks: bool = False) -> gctrace.Cycle:
    """What the records say of the cycle that has just ended."""
    rt, stats, pc = view(runtime_dtype, RUNTIME)[0], view(gcstats_dtype, GCSTATS)[0], view(pacer_dtype, PACER)[0]
    procs, available = int(rt.nprocs), max(memstats.available_cpu_ns(rt, int(stats.last_end_ns)), 1)
    busy = int(stats.assist_ns + stats.dedicated_ns + stats.fractional_ns + stats.pause_cpu_ns)
    first, last = int(stats.last_mark_ns - stats.last_start_ns), int(stats.last_end_ns - stats.last_term_ns)
    return gctrace.Cycle(
        number=int(stats.num_gc),
        since_start_ns=int(stats.last_start_ns - rt.start_ns),
        cpu_fraction=busy / available,
        first_pause_ns=first,
        mark_ns=int(stats.last_term_ns - stats.last_mark_ns),
        last_pause_ns=last,
        first_pause_cpu_ns=first * procs,
        assist_cpu_ns=int(stats.last_assist_ns),
        dedicated_cpu_ns=int(stats.last_dedicated_ns + stats.last_fractional_ns),
        idle_cpu_ns=int(stats.last_idle_ns),
        last_pause_cpu_ns=last * procs,
        heap_start=int(stats.heap0),
        heap_end=int(stats.heap1),
        heap_marked=int(stats.heap2),
        goal=int(stats.last_goal),
        stack_scan=int(pc.last_stack_scan),
        globals_scan=int(pc.globals_scan),
        procs=procs,
        forced=bool(stats.last_forced),
        looked_for_leaks=looked_for_leaks,
    )
