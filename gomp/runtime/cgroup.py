"""The memory cgroup that this process is in: how much it may still take before the kernel kills somebody.

cgroup v1, v2 and hybrid hierarchies. A limit counts wherever it stands on the way up to the root, and the one that leaves least decides. Inside a
container the path in ``/proc/self/cgroup`` may not exist below the mount: then the mount itself is the cgroup.

What is used is the *working set*, as for Kubernetes' kubelet: usage less the pages of files on the inactive list, which the kernel drops as soon as
somebody needs the memory. Counted as used, they would fill any container that reads files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# Per version: the limit, the usage, and in memory.stat the pages of files on the inactive list.
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("memory.max", "memory.current", "inactive_file")
_UNLIMITED = 1 << 60  # v1 writes "no limit" as the largest multiple of a page


@dataclass(frozen=True)
class _Files:
    """Where one level says what it may take and what it has taken."""

    limit: Path
    usage: Path
    statistics: Path
    inactive_file: str  # the statistic of that name covers the level and all below, as the usage does


class MemoryCgroup:
    """The levels with a memory controller, from this process's cgroup upwards."""

    def __init__(self, levels: list[_Files]) -> None:
        self._levels = levels

    @classmethod
    def of_this_process(cls, proc: Path = Path("/proc/self"), root: Path = Path("/sys/fs/cgroup")) -> MemoryCgroup:
        """Found from ``/proc/self/cgroup`` and the usual mounts. No cgroup, or an unreadable one, has no levels."""
        try:
            lines = (proc / "cgroup").read_text().splitlines()
        except OSError:
            return cls([])
        for line in lines:
            number, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if "memory" in controllers.split(","):
                return cls(_levels(root / "memory", path, _V1))
            if number == "0" and (root / "cgroup.controllers").exists():
                return cls(_levels(root, path, _V2))
        return cls([])

    def headroom(self) -> int | None:
        """Bytes until the nearest limit, or None if there is none."""
        rooms = [room for files in self._levels if (room := _room(files)) is not None]
        return min(rooms, default=None)

    def limit(self) -> int | None:
        """The strictest limit in bytes, or None."""
        limits = [limit for files in self._levels if (limit := _read(files.limit)) is not None]
        return min(limits, default=None)


def _levels(mount: Path, path: str, names: tuple[str, str, str]) -> list[_Files]:
    limit, usage, inactive_file = names
    leaf = mount / path.lstrip("/")
    if not leaf.is_dir():
        leaf = mount
    ups = [leaf, *(parent for parent in leaf.parents if parent.is_relative_to(mount))]
    return [
        _Files(level / limit, level / usage, level / "memory.stat", inactive_file)
        for level in ups
        if (level / limit).exists()
    ]


def _room(files: _Files) -> int | None:
    limit, usage = _read(files.limit), _read(files.usage)
    if limit is None or usage is None:
        return None
    working_set = max(usage - _inactive_file(files), 0)
    return max(limit - working_set, 0)


def _inactive_file(files: _Files) -> int:
    try:
        lines = files.statistics.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{files.inactive_file} ")), 0)


def _read(file: Path) -> int | None:
    """The number in a cgroup's file; None for "max", for v1's way of saying so, and for what cannot be read."""
    try:
        value = int(file.read_text())
    except (OSError, ValueError):
        return None
    return value if value < _UNLIMITED else None
