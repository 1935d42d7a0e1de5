"""A memory cgroup for one run, below or beside this process's own, of v1 or v2."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gomp.cgroup import ROOT, MemoryCgroup, MemoryLevel, memory_level
from gomp.errors import ConfigError

_END_S = 10.0  # until the last process of a cgroup has ended
_NEEDS = (
    "cannot make a memory cgroup in {where} ({why}): run as root, or where the controller is delegated, as with "
    "`systemd-run --user --scope -p Delegate=yes gomp stress …`"
)


@dataclass(frozen=True)
class OwnCgroup:
    """Sizes in bytes."""

    directory: Path
    is_v2: bool

    def set_limit(self, nbytes: int) -> None:
        self._file("memory.max", "memory.limit_in_bytes").write_text(str(nbytes))

    @property
    def level(self) -> MemoryLevel:
        return memory_level(self.directory, self.is_v2)

    def peak(self) -> int:
        """The most that was ever charged; 0 where the kernel does not say (v2 before Linux 5.19)."""
        try:
            return int(self._file("memory.peak", "memory.max_usage_in_bytes").read_text())
        except OSError:
            return 0

    def oom_kills(self) -> int:
        return self.level.events().get("oom_kill", 0)

    def enter(self) -> None:
        """For a child, between fork and exec."""
        (self.directory / "cgroup.procs").write_text(str(os.getpid()))

    def _file(self, v2: str, v1: str) -> Path:
        return self.directory / (v2 if self.is_v2 else v1)


@contextlib.contextmanager
def own_cgroup(limit: int) -> Iterator[OwnCgroup]:
    """A new one with this limit, removed at the end. Raises ConfigError with what is needed where none can be made."""
    parent, is_v2 = _parent()
    cgroup = OwnCgroup(parent / f"gomp-stress-{os.getpid()}-{time.monotonic_ns()}", is_v2)
    try:
        cgroup.directory.mkdir()
    except OSError as error:
        raise ConfigError(_NEEDS.format(where=parent, why=error.strerror)) from None
    try:
        _limit(cgroup, limit)
        yield cgroup
    finally:
        _remove(cgroup.directory)


def _parent() -> tuple[Path, bool]:
    """Where cgroups can be made: v1's below this process's own, v2's beside it, as one with processes has no children with controllers."""
    own = MemoryCgroup.of_this_process().own()
    is_v2 = (ROOT / "cgroup.controllers").exists() and not (ROOT / "memory").is_dir()
    if own is None:
        return ROOT if is_v2 else ROOT / "memory", is_v2
    return own.directory.parent if is_v2 and own.directory != ROOT else own.directory, is_v2


def _limit(cgroup: OwnCgroup, limit: int) -> None:
    try:
        cgroup.set_limit(limit)
    except OSError as error:
        raise ConfigError(_NEEDS.format(where=cgroup.directory.parent, why=error.strerror)) from None


def _remove(directory: Path) -> None:
    deadline = time.monotonic() + _END_S
    while True:
        try:
            directory.rmdir()
        except OSError:  # a process of it is still ending
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
