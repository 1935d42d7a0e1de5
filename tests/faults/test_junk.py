"""Random bytes in the tables of a runtime: a verification notices, and the runtime ends with a report of what it was like."""

from __future__ import annotations

import collections
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gomp
from gomp.core import COMPILED
from gomp.core.shm.records import MHEAP, mheap_dtype, view

ROOT = Path(__file__).parents[2]
# Each word of which something depends on.
ALWAYS_NOTICED = ("span", "list of spans", "heap", "special record", "mcache", "work buffers of a P")

if not COMPILED:
    pytest.skip("needs runtimes, which run compiled kernels", allow_module_level=True)


@pytest.mark.parametrize("seeds", [1, pytest.param(30, marks=pytest.mark.slow)])
def test_it_is_noticed_and_the_runtime_ends_with_a_report(compiled_kernels: None, seeds: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.junk_script", str(seeds)],
        cwd=ROOT, env=os.environ | {"GODEBUG": "flightrecorder=1"}, capture_output=True, text=True, timeout=120 * seeds,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = collections.Counter((table, outcome) for table, outcome in map(json.loads, done.stdout.splitlines()))
    assert {outcome for _, outcome in outcomes} <= {"noticed", "whole"}
    assert {table: outcomes[table, "noticed"] for table in ALWAYS_NOTICED} == dict.fromkeys(ALWAYS_NOTICED, seeds)
    reports = done.stderr.count("the heap is not sound\n")
    assert reports == sum(n for (_, outcome), n in outcomes.items() if outcome == "noticed")
    assert len(re.findall(r"^cycle \d+, .*; heap live [\d,-]+ bytes", done.stderr, re.MULTILINE)) == reports
    assert len(re.findall(r"^coordinator ", done.stderr, re.MULTILINE)) == reports
    assert re.search(r"^ +-[\d.]+ ms  stop why 4?", done.stderr, re.MULTILINE), "the last events of each P"


def test_a_table_that_cannot_be_so_long_is_noticed_before_anybody_goes_through_it(
    compiled_kernels: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """To read memory that nobody has written takes a page of it, too: of a heap that ends far off the collector would use up all there is."""
    with gomp.Runtime(procs=1, max_heap="64MiB") as rt:
        view(mheap_dtype, MHEAP)[0].end_page = 1 << 40
        with pytest.raises(gomp.RuntimeLost):
            rt.gc()
    said = capfd.readouterr().err
    assert re.findall(r"the heap is not sound\n  .* has (\d+) entries, and room for (\d+)\n", said) == [
        ("1099511627776", "8192")
    ]
