"""A runtime whose processes are all frozen for a while, as with ``podman pause``, goes on as if nothing had been: by a real cgroup of v2."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gomp.core import COMPILED

if not COMPILED:
    pytest.skip("runs processes of its own", allow_module_level=True)

# With cgroup v1 in use as well, v2 is mounted beside it, and has no controller but the freezer.
MOUNTS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
FROZEN_S, RUNS_S, TIMES = 2.0, 0.3, 5

ALLOCATES = """
import time, gomp

@gomp.struct
class Node:
    next: "Node"

@gomp.compiled
def allocate(n: int) -> int:
    kept = gomp.new(Node)
    for i in range(n):
        kept = gomp.new(Node, kept)
        if i % 1000 == 0:
            kept = gomp.new(Node)
    return n

def churn(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        allocate(100_000)

with gomp.Runtime(procs=2, gogc=20, max_heap="256MiB") as rt:
    rt.run(allocate, 1)
    print("runs", flush=True)
    for goroutine in [rt.go(churn, {seconds}) for _ in range(2)]:
        goroutine.wait()
    print(rt.stats().num_gc > 10, sum(p.deaths for p in rt.stats().ps), rt.verify(3), flush=True)
"""


@pytest.fixture
def cgroup() -> Iterator[Path]:
    mount = next((mount for mount in MOUNTS if (mount / "cgroup.controllers").exists()), None)
    if mount is None:
        pytest.skip("cgroup v2 is not mounted here")
    directory = mount / f"gomp-test-{os.getpid()}"
    try:
        directory.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a cgroup in {mount}: {error.strerror}")
    yield directory
    deadline = time.monotonic() + 10
    while (directory / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    directory.rmdir()


def freeze(cgroup: Path, is_frozen: bool) -> None:
    (cgroup / "cgroup.freeze").write_text(str(int(is_frozen)))


@pytest.mark.slow
def test_a_runtime_that_is_frozen_again_and_again_loses_nobody(cgroup: Path) -> None:
    code = ALLOCATES.replace("{seconds}", str(TIMES * (FROZEN_S + RUNS_S)))
    script = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "GOMP_STOP_DEADLINE": "1"}, preexec_fn=lambda: (cgroup / "cgroup.procs").write_text(str(os.getpid())),
    )  # fmt: skip
    try:
        assert script.stdout
        assert script.stdout.readline() == "runs\n"
        for _ in range(TIMES):
            time.sleep(RUNS_S)
            freeze(cgroup, True)
            time.sleep(FROZEN_S)
            freeze(cgroup, False)
        told, log = script.communicate(timeout=60)
    finally:
        freeze(cgroup, False)
        script.kill()
        script.wait()
    assert told.startswith("True 0 verified at level 3"), log
    assert "did not stop" not in log
