"""What is really in memory: the pages of the two segments, what the cgroup is charged, and each process's own.

The sizes of processes that ``top`` shows say little here. A page of the heap counts in each process that has touched it, and one that a process
has dropped from its own page table is still in memory. True are the blocks that the file system holds of a segment, and the charge of the cgroup.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from gomp.cgroup import MemoryCgroup
from gomp.core.shm import records
from gomp.pressure import Pressure, read_pressure

_BLOCK = 512  # bytes, in st_blocks
_SEGMENT = re.compile(
    rb"/(?:dev/shm/|memfd:)gomp-.*\n(?:[A-Z].*\n)+"
)  # the end of a mapping's first line, and what the kernel says of it
_RSS, _PRIVATE = re.compile(rb"\nRss: +(\d+)"), re.compile(rb"\nPrivate_\w+: +([1-9]\d*)")


@dataclass(frozen=True)
class ProcessMemory:
    """Of one process, in bytes. ``private``: what only it has; ``shared``: what others have too, and what it has touched of the segments."""

    private: int
    shared: int


@dataclass(frozen=True)
class CgroupMemory:
    """Of the cgroup that this process is in. ``limit`` is the strictest on the way up; None: there is none, or it cannot be read."""

    usage: int | None
    limit: int | None
    events: dict[str, int]


@dataclass(frozen=True)
class Residency:
    """Bytes in memory, and how long tasks have waited for more."""

    heap: int
    metadata: int
    returnable: int  # of the heap: what a collection, and returning everything that is free, would give back at least
    cgroup: CgroupMemory
    pressure: dict[str, Pressure]


def read(heap_fd: int, meta_fd: int, memory: MemoryCgroup) -> Residency:
    """The figures of the runtime whose segments are mapped here, and open as these descriptors."""
    heap = resident_bytes(heap_fd)
    own, strictest = memory.own(), memory.strictest()
    return Residency(
        heap=heap,
        metadata=resident_bytes(meta_fd),
        returnable=max(heap - _needed(), 0),
        cgroup=CgroupMemory(
            usage=own.usage() if own else None,
            limit=strictest.limit() if strictest else None,
            events=own.events() if own else {},
        ),
        pressure=read_pressure(own.directory if own else None),
    )


def completed(now: Residency, before: Residency) -> Residency:
    """``now``, with what was said ``before`` of the cgroup and of waiting where that cannot be read: no descriptor is left to read it with."""
    is_unread = now.cgroup.usage is None
    return replace(now, cgroup=before.cgroup if is_unread else now.cgroup, pressure=now.pressure or before.pressure)


def resident_bytes(fd: int) -> int:
    """What the file system holds of a segment."""
    return os.fstat(fd).st_blocks * _BLOCK


def _needed() -> int:
    """The heap that a collection now would leave in use, taken to be what the last one left; before the first, all of it."""
    after_last = int(records.view(records.scavpace_dtype, records.SCAVPACE)[0].swept_in_use)
    in_use = int(records.view(records.mheap_dtype, records.MHEAP)[0].xheap_inuse)
    return min(after_last, in_use)


# --- processes --------------------------------------------------------------------------------------------------------


def process_memory(pid: int) -> ProcessMemory | None:
    """What process ``pid`` has in memory; None if there is none such, or it is not ours to look at. Raises OSError where descriptors are exhausted.

    The kernel calls private what only one process has mapped, also in a file; the runtime's segments are everybody's all the same.
    """
    try:
        return _sum_up(Path(f"/proc/{pid}/smaps").read_bytes()) if pid else None
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def _sum_up(smaps: bytes) -> ProcessMemory:
    """By patterns and not line by line: a process has more than a thousand mappings, of 25 lines each, most of them machine code."""
    private = _kib(_PRIVATE, smaps) - sum(_kib(_PRIVATE, mapping[0]) for mapping in _SEGMENT.finditer(smaps))
    return ProcessMemory(private << 10, (_kib(_RSS, smaps) - private) << 10)


def _kib(pattern: re.Pattern[bytes], smaps: bytes) -> int:
    return sum(map(int, pattern.findall(smaps)))


def private_bytes(pid: int) -> int:
    """Memory that process ``pid`` has for itself; 0 where :func:`process_memory` finds none."""
    found = process_memory(pid)
    return found.private if found else 0
