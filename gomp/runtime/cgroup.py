"""The memory cgroup that this process is in: how much it may still take before the kernel kills somebody.

cgroup v1, v2 and hybrid hierarchies. A limit counts wherever it stands on the way up to the root, and the one that leaves least decides. Inside a
container the path in ``/proc/self/cgroup`` may not exist below the mount: then the mount itself is the cgroup.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 1 << 60  # v1 writes "no limit" as the largest multiple of a page


@dataclass(frozen=True)
class _Files:
    """Where one level says what it may take and what it has taken."""

    limit: Path
    usage: Path


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
                return cls(_levels(root / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes"))
            if number == "0" and (root / "cgroup.controllers").exists():
                return cls(_levels(root, path, "memory.max", "memory.current"))
        return cls([])

    def headroom(self) -> int | None:
        """Bytes until the nearest limit, or None if there is none."""
        rooms = [room for files in self._levels if (room := _room(files)) is not None]
        return min(rooms, default=None)

    def limit(self) -> int | None:
        """The strictest limit in bytes, or None."""
        limits = [limit for files in self._levels if (limit := _read(files.limit)) is not None]
        return min(limits, default=None)


def _levels(mount: Path, path: str, limit: str, usage: str) -> list[_Files]:
    leaf = mount / path.lstrip("/")
    if not leaf.is_dir():
        leaf = mount
    ups = [leaf, *(parent for parent in leaf.parents if parent.is_relative_to(mount))]
    return [_Files(level / limit, level / usage) for level in ups if (level / limit).exists()]


def _room(files: _Files) -> int | None:
    limit, usage = _read(files.limit), _read(files.usage)
    return None if limit is None or usage is None else max(limit - usage, 0)


def _read(file: Path) -> int | None:
    """The number in a cgroup's file; None for "max", for v1's way of saying so, and for what cannot be read."""
    try:
        value = int(file.read_text())
    except (OSError, ValueError):
        return None
    return value if value < _UNLIMITED else None
