"""The kernels run as plain Python, too, where every access is checked: part of the suite again with ``NUMBA_DISABLE_JIT=1``.

All of it: ``NUMBA_DISABLE_JIT=1 pytest tests/heap tests/gc tests/model tests/faults``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gomp.core import COMPILED

ROOT = Path(__file__).parents[2]
PART = (
    "tests/heap/test_scavenge.py",
    "tests/gc/test_verify.py::test_a_report_counts_what_there_is",
    "tests/gc/test_rebuild.py::test_a_sweep_that_its_process_did_not_finish_is_undone_or_finished",
    "tests/gc/test_collect.py::test_a_global_is_a_root_until_it_is_cleared",
    "tests/gc/test_collect.py::test_a_native_word_into_an_object_keeps_it",
    "tests/faults/test_wait_between_lines.py",
    "tests/faults/test_left_out.py::test_no_step_is_forgotten",
    "tests/faults/test_left_out.py::test_a_repair_without_one_of_its_steps_is_noticed[pages are not forgotten]",
    "tests/model/test_map_model.py",
    "tests/model/test_model.py::test_each_kind_survives_and_dies[7]",
)

EVERY_LINE = (
    "tests/faults/test_every_line.py",
    "tests/faults/test_left_out.py",
    "tests/faults/test_map_between_lines.py",
    "tests/faults/test_pool_between_lines.py",
    "tests/faults/test_leak_between_lines.py",
    "tests/faults/test_wait_between_lines.py",
)

if COMPILED:

    @pytest.mark.parametrize(
        "part", [PART, pytest.param(EVERY_LINE, marks=pytest.mark.slow)], ids=["models", "every_line"]
    )
    def test_part_of_the_suite_passes_as_plain_python(part):
        outcome = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *part],
            cwd=ROOT,
            env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
            capture_output=True,
            text=True,
            timeout=1800,
        )
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
