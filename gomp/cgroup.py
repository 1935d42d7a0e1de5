"""The cgroups that this process is in: what memory and processor time they leave it.

cgroup v1, v2 and hybrid hierarchies. A limit counts wherever it stands on the way up to the root, and the strictest decides. Inside a container the
path in ``/proc/self/cgroup`` may not exist below the mount: then the mount itself is the cgroup. Every figure is read when it is asked for, so a
limit that is changed meanwhile is followed.

What is used is the *working set*, as for Kubernetes' kubelet: usage less the pages of files on the inactive list, which the kernel drops as soon as
somebody needs the memory. Counted as used, they would fill any container that reads files. Those on the active list it drops too, but late, and who
uses them reads them again: where they are charged to a container that has just started on a machine which had none of its files in memory, they may
be a fifth of it, most of them used once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC, ROOT = Path("/proc/self"), Path("/sys/fs/cgroup")
LEAST_OF_A_SERVICE = 240 << 20  # with two Ps: with less there is no room for an auto limit beside the interpreters
_UNLIMITED = 1 << 60  # v1 writes "no limit" as the largest multiple of a page
_NO_LIMIT = ("max", "-1")  # v2's word, and that with which v1's is set
_SHOWN = 40  # characters
_V1_MET = ("memory.failcnt", "memory.memsw.failcnt")
_V1_BOTH = "memory.memsw.limit_in_bytes"  # of memory and swap together
_V1_CPU = ("cpu,cpuacct", "cpu")  # where the controller is mounted


@dataclass(frozen=True)
class _Names:
    """What one version calls its files and the statistics in ``memory.stat``, each of a level and all below it."""

    limit: str
    usage: str
    inactive_file: str
    active_file: str
    anonymous: str
    kernel: str  # a file in v1, a statistic in v2


_V1 = _Names(
    "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file", "total_rss", "memory.kmem.usage_in_bytes"
)  # fmt: skip
_V2 = _Names("memory.max", "memory.current", "inactive_file", "active_file", "anon", "kernel")


# --- memory -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MemoryLevel:
    """One cgroup with a memory controller. Sizes in bytes."""

    directory: Path
    _names: _Names

    def limit(self) -> int | None:
        """None: there is none, or it cannot be read."""
        return _read(self.directory / self._names.limit)

    def problem(self) -> str:
        """Why :meth:`limit` is None though there is one, in words; "" if that is not so."""
        file = self.directory / self._names.limit
        try:
            text = file.read_text(errors="replace").strip()
        except OSError as error:
            return f"{file} cannot be read: {error.strerror}"
        return "" if text in _NO_LIMIT or text.isdecimal() else f"{file} is not understood: it says {text[:_SHOWN]!r}"

    def usage(self) -> int | None:
        """What is charged to it: pages of files, shared memory, and the kernel's own included."""
        return _read(self.directory / self._names.usage)

    def headroom(self, at_worst: bool = False) -> int | None:
        """What is left of the limit beside the working set; ``at_worst``, beside what is in no file."""
        limit = self.limit()
        usage = self.usage() if limit is not None else None
        if limit is None or usage is None:
            return None
        found = self._statistics()
        files = found.get(self._names.inactive_file, 0) + (found.get(self._names.active_file, 0) if at_worst else 0)
        return max(limit - max(usage - files, 0), 0)

    def anonymous(self) -> int | None:
        """What its processes have for themselves, and the kernel for them: in a container of gomp's, the interpreters. Shared memory is not in it.

        None: it cannot be read.
        """
        found = self._statistics()
        if self._names.anonymous not in found:
            return None
        kernel = found.get(self._names.kernel) or _read(self.directory / self._names.kernel) or 0
        return found[self._names.anonymous] + kernel

    def events(self) -> dict[str, int]:
        """How often the limit was met: v2's ``memory.events``; in v1 ``max`` (allocations that met it) and ``oom_kill``.

        Where v1 allows no swap beside the limit, it is the limit of both together that is met, which newer kernels do not count: then there is no
        ``max``.
        """
        if self._names is _V2:
            return _read_table(self.directory / "memory.events")
        met = [n for name in _V1_MET if (n := _read(self.directory / name)) is not None]
        limit = self.limit()
        is_counted = any(met) or limit is None or _read(self.directory / _V1_BOTH) != limit
        kills = _read_table(self.directory / "memory.oom_control")
        return ({"max": sum(met)} if met and is_counted else {}) | {k: v for k, v in kills.items() if k == "oom_kill"}

    def _statistics(self) -> dict[str, int]:
        return _read_table(self.directory / "memory.stat")


def memory_level(directory: Path, is_v2: bool) -> MemoryLevel:
    """The cgroup of that directory."""
    return MemoryLevel(directory, _V2 if is_v2 else _V1)


class MemoryCgroup:
    """The levels with a memory controller, from this process's cgroup upwards."""

    def __init__(self, levels: list[MemoryLevel]) -> None:
        self.levels = levels

    @classmethod
    def of_this_process(cls, proc: Path = PROC, root: Path = ROOT) -> MemoryCgroup:
        """Found from ``/proc/self/cgroup`` and the usual mounts. No cgroup, or an unreadable one, has no levels."""
        for controllers, path in _lines_of(proc):
            if "memory" in controllers:
                return cls(_memory_levels(root / "memory", path, _V1))
            if not controllers and (mount := _v2_mount(root)):
                return cls(_memory_levels(mount, path, _V2))
        return cls([])

    def headroom(self, at_worst: bool = False) -> int | None:
        """Bytes until the nearest limit, or None if there is none; ``at_worst`` as for a level."""
        return min((room for level in self.levels if (room := level.headroom(at_worst)) is not None), default=None)

    def strictest(self) -> MemoryLevel | None:
        """The level with the lowest limit, or None if no level has one."""
        limits = [(limit, level) for level in self.levels if (limit := level.limit()) is not None]
        return min(limits, key=lambda pair: pair[0])[1] if limits else None

    def is_unlimited(self) -> bool:
        """Whether it is certain that no level has a limit."""
        return self.strictest() is None and not self.problems()

    def problems(self) -> list[str]:
        """What is wrong with the limits' files, in words."""
        return [problem for level in self.levels if (problem := level.problem())]

    def own(self) -> MemoryLevel | None:
        """The level that a container is charged to."""
        return self.levels[0] if self.levels else None


def _memory_levels(mount: Path, path: str, names: _Names) -> list[MemoryLevel]:
    """The root of a hierarchy has no limit, and in v2 no usage."""
    return [MemoryLevel(level, names) for level in _upwards(mount, path) if (level / names.limit).exists()]


# --- processors -------------------------------------------------------------------------------------------------------


class CpuCgroup:
    """The levels with a CPU controller, from this process's cgroup upwards."""

    def __init__(self, levels: list[Path], is_v2: bool) -> None:
        self._levels = levels
        self._is_v2 = is_v2

    @classmethod
    def of_this_process(cls, proc: Path = PROC, root: Path = ROOT) -> CpuCgroup:
        """As :meth:`MemoryCgroup.of_this_process`."""
        for controllers, path in _lines_of(proc):
            if "cpu" in controllers:
                mount = next((root / name for name in _V1_CPU if (root / name).is_dir()), root / "cpu")
                return cls(_upwards(mount, path), is_v2=False)
            if not controllers and (v2 := _v2_mount(root)):
                return cls(_upwards(v2, path), is_v2=True)
        return cls([], is_v2=True)

    def quota(self) -> float | None:
        """Processors' worth of time that the strictest level allows, or None."""
        read = _read_v2_quota if self._is_v2 else _read_v1_quota
        return min((quota for level in self._levels if (quota := read(level)) is not None), default=None)


def _read_v2_quota(level: Path) -> float | None:
    try:
        quota, period = (level / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number
        return None


def _read_v1_quota(level: Path) -> float | None:
    quota, period = _read(level / "cpu.cfs_quota_us"), _read(level / "cpu.cfs_period_us")
    return quota / period if quota is not None and quota > 0 and period else None


# --- files ------------------------------------------------------------------------------------------------------------


def can_look() -> bool:
    """Whether a descriptor is left to look with: without one no quota can be told from none that there is."""
    try:
        os.close(os.open("/", os.O_PATH | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _lines_of(proc: Path) -> Iterable[tuple[set[str], str]]:
    """Controllers and path of each hierarchy; v2's names no controller. v1's come first: what they have a hybrid's v2 has not."""
    try:
        lines = (proc / "cgroup").read_text().splitlines()
    except OSError:
        return
    found = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        found.append((set(controllers.split(",")) - {""}, path))
    yield from sorted(found, key=lambda pair: not pair[0])


def _v2_mount(root: Path) -> Path | None:
    """In a hybrid it has a directory of its own beside those of v1."""
    return next((mount for mount in (root, root / "unified") if (mount / "cgroup.controllers").exists()), None)


def _upwards(mount: Path, path: str) -> list[Path]:
    leaf = mount / path.lstrip("/")
    if not leaf.is_dir():
        leaf = mount
    return [leaf, *(parent for parent in leaf.parents if parent.is_relative_to(mount))]


def _read(file: Path) -> int | None:
    """The number in a cgroup's file; None for "max", for the ways of v1 to say so, and for what cannot be read."""
    try:
        value = int(_contents(file))
    except (OSError, ValueError):
        return None
    return value if 0 <= value < _UNLIMITED else None


def _read_table(file: Path) -> dict[str, int]:
    """Lines of a name and a number; nothing for what cannot be read."""
    try:
        pairs = (line.split() for line in _contents(file).decode().splitlines())
        return {name: int(value) for name, value in pairs}
    except (OSError, ValueError):
        return {}


def _contents(file: Path) -> bytes:
    """Without the layers of a text file, which take three times as long as the kernel: the coordinator looks ten times a second."""
    with open(file, "rb", buffering=0) as opened:
        return opened.read()
