"""A real /dev/shm of its own that is full again and again: each operation works or has no memory, no process dies, and the heap is whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gomp.core import COMPILED
from tests.faults.full_script import OPERATIONS

if not COMPILED:
    pytest.skip("runs runtimes, which run compiled kernels", allow_module_level=True)

_MOUNT = 'mount -t tmpfs -o size=320m none /dev/shm && exec "$@"'
UNSHARED = ("unshare", "--mount", "sh", "-c", _MOUNT, "sh")
pytestmark = pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run([*UNSHARED, "true"], capture_output=True).returncode != 0,
    reason="may not mount a /dev/shm of its own here: needs root",
)


@pytest.mark.parametrize("seconds", [8, pytest.param(300, marks=pytest.mark.slow)])
def test_whatever_is_done_while_it_is_full_works_or_has_no_memory(seconds: int, compiled_kernels: None) -> None:
    seed = int.from_bytes(os.urandom(4))
    command = [*UNSHARED, sys.executable, "-m", "tests.faults.full_script", str(seconds), str(seed)]
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120 + 3 * seconds)
    assert done.returncode == 0, done.stderr
    failed = json.loads(done.stdout)
    assert len(failed) > len(OPERATIONS) // 2, failed
    if seconds > 100:
        assert set(failed) == {operation.__name__ for operation in OPERATIONS}
