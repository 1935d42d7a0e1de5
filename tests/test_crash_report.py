"""The report of a crash, where the words that it is made of are anything."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gomp.core import COMPILED

if not COMPILED:
    pytest.skip("runs a coordinator", allow_module_level=True)

SCRIPT = """
import sys
import gomp
from gomp.core.shm.records import RUNTIME, runtime_dtype, view

with gomp.Runtime(procs=1, max_procs=1, max_heap="64MiB") as rt:
    view(runtime_dtype, RUNTIME)[0].nrecords = int(sys.argv[1])
    try:
        rt.verify()
    except gomp.GompError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize("nrecords", [-5, 3000, 1 << 40])
def test_a_number_of_ps_that_cannot_be_is_found_and_reported(nrecords: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(nrecords)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parent.parent,
    )
    assert "Traceback" not in done.stderr
    found = r"(HeapCorrupt|RuntimeLost fatal:) the table at "  # the coordinator may look before it is asked
    assert re.match(found + rf"\w+ has {nrecords} entries, and room for ", done.stdout), done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("coordinator ")]
    assert len(lines) == 1, done.stderr
