"""The CPU profile: what each P does, looked at a hundred times a second, and the CPU time that its process had since the last look.

Nobody is interrupted, nothing is written: a look reads a few words of each P's record, and the clock of its process. So the collector and programs
are beside each other, as in Go's profile, but functions of a program are there only as far as shared memory has them: where a goroutine stands, and
with which function the program on a P began.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gomp.core.gc.limiter import EVENT_ASSIST, EVENT_KIND
from gomp.core.gc.worker import DEDICATED
from gomp.core.shm import layout
from gomp.core.shm.records import (
    GC_MARK,
    RESTS_NOT,
    RUNTIME,
    STATUS_KERNEL,
    STATUS_SAFE,
    p_dtype,
    runtime_dtype,
    view,
)
from gomp.runtime.goroutineprofile import frames_of_running
from gomp.runtime.pprof import Sample, ValueKind, encode
from gomp.runtime.sitetable import UNKNOWN, Site, site_of

HZ = 100
PERIOD_NS = 1_000_000_000 // HZ
_UNSEEN_NS = 100 * PERIOD_NS  # nobody knows what they did in so long a time between two looks: who looks was stopped
KINDS: tuple[ValueKind, ...] = (("samples", "count"), ("cpu", "nanoseconds"), ("wall", "nanoseconds"))
# What a P does, where it is not a program: the innermost frame of the sample.
MARK, MARK_DEDICATED, ASSIST, SWEEP = "gc: mark", "gc: mark, dedicated", "gc: assist", "gc: sweep"
STOPPED, AWAITS_CREDIT, IDLE, WAITS, CLAIMED = "stopped", "gc: waits for credit", "idle", "waits", "scanned by another"
COORDINATOR = "coordinator"
_COLLECTS = {Site(doing) for doing in (MARK, MARK_DEDICATED, ASSIST, SWEEP)}
_AT_REST = {Site(doing) for doing in (STOPPED, AWAITS_CREDIT, IDLE, WAITS, CLAIMED)}

Frames = tuple[Site, ...]  # the innermost first


@dataclass(frozen=True)
class _Seen:
    """Of a P's process, what grows."""

    pid: int
    cpu_ns: int
    sweep_ns: int
    mark_ns: int
    assist_ns: int


class CpuProfile:
    """What was seen so far. Each :meth:`look` stands for the time since the last, unless that is too long."""

    def __init__(self) -> None:
        self._runtime = view(runtime_dtype, RUNTIME)[0]
        self._counts: Counter[tuple[str, Frames]] = Counter()
        self._cpu_ns: Counter[tuple[str, Frames]] = Counter()
        self._wall_ns: Counter[tuple[str, Frames]] = Counter()
        self._seen: dict[int, _Seen] = {}  # by P, at the last look
        self._worked: dict[int, Frames] = {}  # by process, the program that it was last seen to run
        self._began_ns = self._looked_ns = time.monotonic_ns()

    @property
    def duration_ns(self) -> int:
        return self._looked_ns - self._began_ns

    def look(self) -> None:
        now_ns = time.monotonic_ns()
        passed_ns, self._looked_ns = now_ns - self._looked_ns, now_ns
        seen_before, self._seen = self._seen, {}
        if passed_ns > _UNSEEN_NS:
            seen_before, passed_ns = {}, 0
        for idx in (*range(int(self._runtime.nrecords)), layout.COORDINATOR_P):
            p = view(p_dtype, layout.p_addr(idx))[0]
            seen = _see(p)
            if seen is None:
                continue
            self._seen[idx] = seen
            before = seen_before.get(idx, seen)
            self._take(idx, p, before if before.pid == seen.pid else seen, seen, passed_ns)

    def _take(self, idx: int, p: Any, before: _Seen, seen: _Seen, passed_ns: int) -> None:
        if idx == layout.COORDINATOR_P:
            name, frames = COORDINATOR, self._coordinator(before, seen)
        else:
            name, frames = f"P{idx}", self._p(p, before, seen)
        self._counts[name, frames] += 1
        self._wall_ns[name, frames] += passed_ns
        for done, took_ns in self._work(name, frames, before, seen).items():
            self._cpu_ns[name, done] += took_ns

    def samples(self) -> Iterator[Sample]:
        """By P and frames; what took most CPU time first."""
        for key in sorted(self._cpu_ns, key=lambda key: -self._cpu_ns[key]):
            p, frames = key
            yield Sample(frames, (self._counts[key], self._cpu_ns[key], self._wall_ns[key]), (("p", p),))

    def encode(self) -> bytes:
        """For ``go tool pprof``."""
        return encode(KINDS, self.samples(), (KINDS[1], PERIOD_NS), "cpu", self.duration_ns)

    def _coordinator(self, before: _Seen, seen: _Seen) -> Frames:
        doing = IDLE
        if self._runtime.xstop:
            doing = STOPPED
        elif seen.mark_ns > before.mark_ns or (
            self._runtime.xgcphase == GC_MARK and self._runtime.xresting == RESTS_NOT
        ):
            doing = MARK
        elif seen.sweep_ns > before.sweep_ns:
            doing = SWEEP
        return Site(doing), Site(COORDINATOR)

    def _p(self, p: Any, before: _Seen, seen: _Seen) -> Frames:
        program = _program(p)
        doing = self._doing(p, before, seen)
        return (Site(doing), *program) if doing else program

    def _work(self, name: str, frames: Frames, before: _Seen, seen: _Seen) -> dict[Frames, int]:
        """For what a P that is found at ``frames`` has spent its CPU time since the last look.

        At rest it takes none: that was for work which is over by now. Of the collector's there are totals, the rest was the program's, or that of the
        last one which was seen there.
        """
        left_ns = max(seen.cpu_ns - before.cpu_ns, 0)
        program = frames[1:] if frames[0] in _COLLECTS | _AT_REST else frames
        if program != (Site(name),):
            self._worked[seen.pid] = program
        if frames[0] not in _AT_REST:
            return {frames: left_ns}
        program = self._worked.get(seen.pid, program)
        work = {frames: 0}
        for doing, total_ns in (
            (MARK, seen.mark_ns - before.mark_ns),
            (ASSIST, seen.assist_ns - before.assist_ns),
            (SWEEP, seen.sweep_ns - before.sweep_ns),
        ):
            if took_ns := min(total_ns, left_ns):
                work[Site(doing), *program] = took_ns
                left_ns -= took_ns
        return work | {program: left_ns} if left_ns else work

    def _doing(self, p: Any, before: _Seen, seen: _Seen) -> str:
        """ "" if it is the program's time."""
        status = int(p.xstatus)
        if status == STATUS_KERNEL:
            if p.xmarking:
                is_assist = int(p.xevent) & EVENT_KIND == EVENT_ASSIST
                return ASSIST if is_assist else MARK_DEDICATED if p.xmarking == DEDICATED else MARK
            return SWEEP if 2 * (seen.sweep_ns - before.sweep_ns) > PERIOD_NS else ""
        if status != STATUS_SAFE:
            return CLAIMED
        if p.xidle or p.xparked:
            return IDLE
        if p.xawaits_credit:
            return AWAITS_CREDIT
        if self._runtime.xstop:
            return STOPPED
        return "" if seen.cpu_ns > before.cpu_ns else WAITS


def _program(p: Any) -> Frames:
    """Where the goroutine on a P stands, and the program, the innermost first."""
    frames = frames_of_running(int(p.curg))  # read once: it comes and goes meanwhile
    site = site_of(int(p.program_site))
    return (*frames, site) if site != UNKNOWN else (*frames, Site(f"P{int(p.idx)}"))


def _see(p: Any) -> _Seen | None:
    """None if nobody is there."""
    pid = int(p.xpid)
    cpu_ns = _cpu_ns(pid) if pid else -1
    return None if cpu_ns < 0 else _Seen(pid, cpu_ns, int(p.sweep_ns), int(p.mark_ns), int(p.assist_ns))


def _cpu_ns(pid: int) -> int:
    """CPU time of a process, all its threads; -1 if it is gone."""
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)  # MAKE_PROCESS_CPUCLOCK of Linux, as clock_getcpuclockid makes it
    except OSError:
        return -1
