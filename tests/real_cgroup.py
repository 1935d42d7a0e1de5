"""A memory cgroup of a test's own, on a machine that lets one be made (cgroup v1 or v2, as root); others skip."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path("/sys/fs/cgroup")
_V1 = {"limit": "memory.limit_in_bytes", "usage": "memory.usage_in_bytes"}
_V2 = {"limit": "memory.max", "usage": "memory.current"}


class RealCgroup:
    """Sizes in bytes."""

    def __init__(self, directory: Path, files: dict[str, str]) -> None:
        self.directory = directory
        self._files = files

    def set_limit(self, nbytes: int) -> None:
        (self.directory / self._files["limit"]).write_text(str(nbytes))

    def usage(self) -> int:
        return int((self.directory / self._files["usage"]).read_text())

    def oom_kills(self) -> int:
        name = "memory.oom_control" if self._files is _V1 else "memory.events"
        lines = (self.directory / name).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def enter(self) -> None:
        """For a child between fork and exec."""
        (self.directory / "cgroup.procs").write_text(str(os.getpid()))


@contextmanager
def make_cgroup(limit: int) -> Iterator[RealCgroup]:
    is_v2 = (ROOT / "cgroup.controllers").exists() and "memory" in (ROOT / "cgroup.subtree_control").read_text().split()
    parent, files = (ROOT, _V2) if is_v2 else (ROOT / "memory", _V1)
    directory = parent / f"gomp-test-{os.getpid()}-{time.monotonic_ns()}"
    try:
        directory.mkdir()
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    cgroup = RealCgroup(directory, files)
    try:
        cgroup.set_limit(limit)
        yield cgroup
    finally:
        _remove(directory)


def _remove(directory: Path) -> None:
    deadline = time.monotonic() + 5
    while True:
        try:
            directory.rmdir()
        except OSError:  # a process of it is still ending
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
