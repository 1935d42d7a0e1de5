"""Cgroups of a test's own, on a machine that lets them be made (cgroup v1 or v2); others skip."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gomp.cgroup import ROOT
from gomp.errors import ConfigError
from gomp.stress.cgroup import OwnCgroup, own_cgroup


@contextmanager
def make_cgroup(limit: int) -> Iterator[OwnCgroup]:
    """Skips where there is none to be had."""
    maker = own_cgroup(limit)
    try:
        cgroup = maker.__enter__()
    except ConfigError as error:
        pytest.skip(str(error))
    try:
        yield cgroup
    finally:
        maker.__exit__(None, None, None)


@contextmanager
def no_more_processes(pid: int) -> Iterator[None]:
    """Process ``pid`` can fork nobody meanwhile, nor start a thread. Skips where that is not to be had."""
    with _limited(pid) if os.geteuid() else _in_pids_cgroup(pid):
        yield


@contextmanager
def _limited(pid: int) -> Iterator[None]:
    """Of a user with privileges the kernel counts no processes."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NPROC)
    resource.prlimit(pid, resource.RLIMIT_NPROC, (0, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NPROC, (soft, hard))


@contextmanager
def _in_pids_cgroup(pid: int) -> Iterator[None]:
    before = _pids_cgroup_of(pid)
    own = (before if (ROOT / "pids").is_dir() else before.parent) / f"gomp-test-{os.getpid()}-{time.monotonic_ns()}"
    try:
        own.mkdir()
        try:
            (own / "pids.max").write_text("0")
            (own / "cgroup.procs").write_text(str(pid))
        except OSError:
            own.rmdir()
            raise
    except OSError as error:
        pytest.skip(f"no pids cgroup can be made: {error}")
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            (before / "cgroup.procs").write_text(str(pid))
        deadline = time.monotonic() + 10
        while own.is_dir() and time.monotonic() < deadline:  # a process of it may still be ending
            with contextlib.suppress(OSError):
                own.rmdir()
            time.sleep(0.01)


def _pids_cgroup_of(pid: int) -> Path:
    mount = ROOT / "pids" if (ROOT / "pids").is_dir() else ROOT
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == ("pids" if mount != ROOT else ""):
            return mount / path.lstrip("/")
    pytest.skip("there is no pids cgroup")
