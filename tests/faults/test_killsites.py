"""A process is killed before each of its writes in the build that has sites."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gomp.core import COMPILED
from tests.faults.sites import names_of_sites

ROOT = Path(__file__).parents[2]

if not COMPILED:
    pytest.skip("sites are in compiled kernels", allow_module_level=True)


def test_a_process_is_killed_before_each_write_and_at_each_site_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.sites_script"],
        cwd=ROOT, env=os.environ | {"GOMP_KILL_SITES": str(tmp_path)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    names = names_of_sites(str(tmp_path))
    first = next(n for n, name in enumerate(names) if name.endswith(".write_three"))
    killed = -signal.SIGKILL
    assert done.stdout.splitlines() == [
        f"{killed} 0 0 0", f"{killed} 1 0 0", f"{killed} 1 2 0", "0 1 2 3", f"3 0 {first + 2}",
    ], done.stderr  # fmt: skip
    assert names[first : first + 3] == [names[first]] * 3


def test_who_asks_for_sites_without_a_build_of_them_is_told(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_KILL_SITES"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.sites"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (
        1,
        "set GOMP_KILL_SITES to a directory whose kernels have sites: `make sites` does\n",
    )
