"""The harness of kills, for some seconds; ``make kills`` runs it until it has killed 2,000. And what it finds when something is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gomp.core import COMPILED

ROOT = Path(__file__).parents[2]
SECONDS = 8

if not COMPILED:
    pytest.skip("kills real processes, which run compiled kernels", allow_module_level=True)


def test_ps_are_killed_under_load_and_nothing_is_lost(compiled_kernels):
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.harness", "--seconds", str(SECONDS), "--seed", "11"],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS + 120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
