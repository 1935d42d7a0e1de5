"""What the metrics are read from: shared memory and the operating system, each part of it once, and only if a metric asks for it.

What adds up comes from one part: objects and memory from ``stats``, CPU time from ``cpu``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gomp.cgroup import MemoryCgroup
from gomp.core.shm import layout, records
from gomp.core.shm.atomics import load_acquire
from gomp.core.shm.records import (
    CPU_ASSIST,
    CPU_DEDICATED,
    CPU_IDLE,
    CPU_MARK_IDLE,
    CPU_PAUSE,
    CPU_SCAVENGE_ASSIST,
    CPU_SCAVENGE_BACKGROUND,
    CPU_STATS,
    CPU_USER,
    CPU_XPUBLISHED,
)
from gomp.core.shm.seqlock import load_after_reads
from gomp.runtime import gcstats, memstats, residency
from gomp.runtime.gcstats import GCStats
from gomp.runtime.memstats import MemStats
from gomp.runtime.metrics.histograms import Float64Histogram, read_times
from gomp.runtime.processes import ProcessMemories
from gomp.runtime.residency import ProcessMemory, Residency
from gomp.runtime.sitecounts import SiteCounts
from gomp.runtime.usage import Usage, UsageReader


@dataclass(frozen=True)
class CpuClasses:
    """CPU time of the Ps in ns, up to the end of the last marking (:mod:`gomp.core.gc.cpuclasses`). The classes add up to ``total``."""

    pause: int
    dedicated: int
    mark_idle: int
    assist: int
    scavenge_background: int
    scavenge_assist: int
    idle: int
    user: int

    @property
    def gc(self) -> int:
        """Collection: all marking, and pauses."""
        return self.pause + self.dedicated + self.mark_idle + self.assist

    @property
    def scavenge(self) -> int:
        """Returning memory to the system."""
        return self.scavenge_background + self.scavenge_assist

    @property
    def total(self) -> int:
        """GOMAXPROCS times the time."""
        return self.gc + self.scavenge + self.idle + self.user


def read_cpu() -> CpuClasses:
    """The last account of the runtime whose segments are mapped here."""
    while True:
        published = load_acquire(CPU_XPUBLISHED)
        place: Any = records.view(records.cpu_dtype, CPU_STATS + published % 2 * records.cpu_dtype.itemsize)[0]
        ns = place.ns.tolist()
        if load_after_reads(CPU_XPUBLISHED) == published:  # else what was read may be half of the one after
            return CpuClasses(
                pause=ns[CPU_PAUSE],
                dedicated=ns[CPU_DEDICATED],
                mark_idle=ns[CPU_MARK_IDLE],
                assist=ns[CPU_ASSIST],
                scavenge_background=ns[CPU_SCAVENGE_BACKGROUND],
                scavenge_assist=ns[CPU_SCAVENGE_ASSIST],
                idle=ns[CPU_IDLE],
                user=ns[CPU_USER],
            )


def is_ready() -> bool:
    """Whether the runtime takes programs: it has begun, not begun to end, and each P has a process."""
    runtime = records.view(records.runtime_dtype, records.RUNTIME)[0]
    return bool(runtime.xready) and not runtime.xshutdown


@dataclass
class Sources:
    """Where snapshots look beside shared memory. What took long to find is kept for the next."""

    cgroup: MemoryCgroup = field(default_factory=MemoryCgroup.of_this_process)
    memories: ProcessMemories = field(default_factory=ProcessMemories)
    sites: SiteCounts = field(default_factory=SiteCounts)
    usage: UsageReader = field(default_factory=UsageReader)
    most_created: int = field(default=0, init=False)
    last_residency: Residency | None = field(default=None, init=False)


class Snapshot:
    """The runtime whose segments are mapped here, and open as these descriptors: each part is of the moment at which it is first asked for."""

    def __init__(self, sources: Sources, heap_fd: int, meta_fd: int) -> None:
        self._sources = sources
        self._descriptors = heap_fd, meta_fd
        self.runtime: Any = records.view(records.runtime_dtype, records.RUNTIME)[0]
        self.pacer: Any = records.view(records.pacer_dtype, records.PACER)[0]
        self.gc: Any = records.view(records.gcstats_dtype, records.GCSTATS)[0]

    @cached_property
    def stats(self) -> MemStats:
        """Objects, memory, goroutines, Ps."""
        return memstats.read()

    @cached_property
    def goroutines_created(self) -> int:
        """Those ever started. While a P is given more ids it may look as if there were some less than before."""
        self._sources.most_created = max(self._sources.most_created, self.stats.goroutines.created)
        return self._sources.most_created

    @cached_property
    def gc_stats(self) -> GCStats:
        """The last pauses: of those cycles that ``stats`` count."""
        return gcstats.of(self.stats)

    @cached_property
    def cpu(self) -> CpuClasses:
        """CPU time by what it was spent on."""
        return read_cpu()

    @cached_property
    def scan(self) -> tuple[int, int, int]:
        """Bytes that a marking has to look at: globals, stacks as the last one found them, heap."""
        return int(self.pacer.globals_scan), int(self.pacer.last_stack_scan), int(self.pacer.xheap_scan)

    @cached_property
    def latencies(self) -> Float64Histogram:
        """How long goroutines were ready before they ran, one time in eight; of all Ps."""
        return read_times(layout.p_addr(p.idx) + records.P_LATENCIES for p in self.stats.ps)

    def stops(self, histogram: int) -> Float64Histogram:
        """STOPPING_* or STOPPED_*."""
        return read_times([histogram])

    @property
    def ready(self) -> bool:
        """Whether the runtime takes programs."""
        return is_ready()

    @property
    def coordinator_pid(self) -> int:
        return int(self.runtime.coordinator_pid)

    @property
    def service_pid(self) -> int:
        """0 without a service."""
        return int(self.runtime.service_pid)

    @property
    def heap_max(self) -> int:
        """Bytes that the heap may ever have."""
        return int(self.runtime.max_pages) * layout.PAGE_SIZE

    @cached_property
    def processes(self) -> list[tuple[str, ProcessMemory]]:
        """What each process had in memory at the read before, or less than five seconds ago: Ps, coordinator, service."""
        found = [(f"P{p.idx}", p.pid) for p in self.stats.ps[:-1]]
        return self._sources.memories.of([*found, ("coordinator", self.coordinator_pid), ("service", self.service_pid)])

    @cached_property
    def usage(self) -> Usage | None:
        """What the system says of coordinator, Ps and service together; None if the coordinator is gone. Ps that are to leave count until they have:
        their CPU time would be missing."""
        ps = [p.pid for p in self.stats.ps if p.pid and p.idx < self.runtime.slots]
        return self._sources.usage.read(self.coordinator_pid, [*ps, self.service_pid])

    @cached_property
    def residency(self) -> Residency:
        """Pages of the segments in memory, and the charge of this process's cgroup."""
        found, before = residency.read(*self._descriptors, self._sources.cgroup), self._sources.last_residency
        self._sources.last_residency = residency.completed(found, before) if before else found
        return self._sources.last_residency

    @property
    def resident_bytes(self) -> int:
        """Memory that the runtime takes: both segments, and each process's own."""
        return self.residency.heap + self.residency.metadata + sum(memory.private for _, memory in self.processes)

    @cached_property
    def goroutine_sites(self) -> list[tuple[str, int]]:
        """Places at which goroutines were started, with how many there are."""
        return self._sources.sites.read()

    @property
    def starting_stack(self) -> int:
        """Bytes of the stack of a new goroutine."""
        return int(records.view(records.stackpool_dtype, records.STACKPOOL)[0].start_size)
