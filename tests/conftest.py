"""Options and machine checks for the whole suite."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from served import environment_in
from turns import turn

import gomp
from gomp.core.shm import layout, records, segments

# The test that runs a real Prometheus exists only where there is one; .ci/run fetches it.
collect_ignore = [] if shutil.which("prometheus") else ["test_service_prometheus.py"]


_kill = os.kill


def _kill_one(pid: int, number: int) -> None:
    """As ``os.kill``, but never all of this suite: 0 is the P whose process has died and not been replaced."""
    assert pid > 0, "there is no such process now"
    _kill(pid, number)


os.kill = _kill_one
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--run-slow"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if not hasattr(item.config, "workerinput"):  # the only process of the suite
        return (yield)
    with turn(item.get_closest_marker("alone") is not None):
        return (yield)


def pytest_report_header() -> list[str]:
    return [
        f"prometheus: {shutil.which('prometheus') or 'not on this machine, its test is left out'}",
        f"chromium: {shutil.which('chromium') or 'not on this machine, the tests of the live page in a browser are skipped'}",
        f"podman: {shutil.which('podman') or 'not on this machine, the tests of containers are skipped'}",
    ]


@pytest.fixture(scope="session")
def compiled_kernels():
    """The kernels are in the cache, so that processes a test starts are ready at once and print no progress."""
    subprocess.run([sys.executable, "-m", "gomp", "kernels"], check=True, capture_output=True, timeout=300)


@pytest.fixture(scope="module")
def rt(request):
    """A runtime of the test module's own, with 2 Ps unless the module has ``PROCS``. In the end its heap is whole."""
    with gomp.Runtime(procs=getattr(request.module, "PROCS", 2), max_heap="256MiB") as runtime:
        yield runtime
        assert runtime.verify(3).startswith("verified")


@pytest.fixture
def environment(tmp_path, compiled_kernels):
    """For a real command: without settings of Go, and with a directory of runtimes of its own."""
    return environment_in(tmp_path)


@pytest.fixture
def mapped():
    """The segments of a runtime with two Ps that has not begun to run, mapped into this process."""
    made = segments.create(layout.ARENA_SIZE)
    segments.map_segments(made)
    runtime = records.view(records.runtime_dtype, records.RUNTIME)[0]
    runtime.magic, runtime.version = records.MAGIC, records.layout_version()
    runtime.nprocs = runtime.slots = runtime.nrecords = 2
    yield made
    segments.unmap()
    made.close()
