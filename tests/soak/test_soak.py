"""The soak, for some seconds, in which nothing can be said of growth (`make soak` runs an hour); and what its verdict is on figures that grow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gomp.core import COMPILED
from tests.soak.figures import MIB, Report, Sample

ROOT = Path(__file__).parents[2]

needs_kernels = pytest.mark.skipif(not COMPILED, reason="runs a service, which runs compiled kernels")


@needs_kernels
def test_a_service_goes_on_while_ps_are_killed_settings_changed_and_processes_come_and_go(
    compiled_kernels: None,
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak.soak", "--minutes", "0.2", "--seed", "5", "--short"],
        cwd=ROOT, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def report_of(name: str, values: list[float]) -> Report:
    return Report(
        [
            Sample(float(at), {name: value}, {0.001: float(at), float("inf"): float(at)})
            for at, value in enumerate(values)
        ]
    )


@pytest.mark.parametrize(
    "name", ["service: threads", "service: sockets", "service: private bytes", "heap_objects_bytes"]
)
def test_what_grows_all_the_time_is_named(name: str) -> None:
    assert report_of(name, [100 * MIB * (1 + at / 100) for at in range(100)]).growing() == [name]


@pytest.mark.parametrize("name", ["service: threads", "service: private bytes", "heap_objects_bytes"])
def test_what_comes_and_goes_does_not_grow(name: str) -> None:
    assert report_of(name, [100.0 * MIB + at % 2 * MIB for at in range(100)]).growing() == []


def test_what_grows_in_the_second_half_is_named() -> None:
    grows = report_of("service: private bytes", [100.0 * MIB] * 40 + [99.0 * MIB] * 25 + [150.0 * MIB] * 35)
    assert grows.growing() == ["service: private bytes"]


def test_what_was_more_in_the_middle_than_at_the_end_does_not_grow() -> None:
    assert report_of("processes", [3.0] * 40 + [9.0] * 25 + [4.0] * 35).growing() == []
