"""Ps that trade pointers while the heap is collected without pause and freed memory is clobbered: see ``workers/stress_trade.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest


def trade(seconds: int, godebug: str, gogc: str = "100") -> dict[str, Any]:
    """Run the traders in a runtime of their own; the report of ``gomp run``."""
    command = [
        sys.executable,
        "-m",
        "gomp",
        "run",
        "stress_trade",
        f"seconds={seconds}",
        "--procs",
        "2",
        "--json",
    ]
    environment = os.environ | {"GODEBUG": godebug, "GOGC": gogc}
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 100, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def check(report: dict[str, Any], cycles: int) -> None:
    result = report["result"]
    assert result["trades"] > 0, report
    assert "verified at level 3" in result["heap"], report
    assert report["num_gc"] > cycles, report


@pytest.mark.slow
def test_half_a_minute_of_trade_ends_verified():
    check(trade(30, "clobberfree=1"), 500)


def test_trade_ends_verified_when_every_few_refills_collect():
    """Without GOGC there would be only the cycles that the traders ask for. How many more there are goes by the work, not by the time."""
    report = trade(5, "clobberfree=1,gccollectevery=3", gogc="off")
    check(report, 10)
    assert report["num_gc"] - report["num_forced_gc"] > 5 + report["result"]["trades"] / 50_000, report


@pytest.mark.slow
def test_five_minutes_of_trade_end_verified():
    check(trade(300, "clobberfree=1"), 5000)
