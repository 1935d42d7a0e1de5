"""Protocols are tested by real processes that hammer the real kernels. In plain Python nothing is atomic: then only the model is checked."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The cache of kernels knows what a test's kernels depend on by the imports named tests.*.
sys.path.insert(0, str(Path(__file__).parents[2]))

from gomp.core import COMPILED, load_kernels

collect_ignore_glob = [] if COMPILED else ["test_*_raced.py"]
if len(os.sched_getaffinity(0)) < 2:
    collect_ignore_glob.append("test_fences_raced.py")  # one core sees its own stores in order

if COMPILED:
    from tests.protocols.processes import World, new_world

    @pytest.fixture
    def world() -> Iterator[World]:
        """Three Ps that nobody runs yet, and this process their coordinator."""
        load_kernels()
        with new_world(3) as made:
            yield made


@pytest.fixture
def run_ns(request: pytest.FixtureRequest) -> int:
    """How long a driver looks for what must not happen."""
    return 10_000_000_000 if request.config.getoption("--run-slow") else 1_000_000_000
