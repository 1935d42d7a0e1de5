"""A service follows the CPU quota of its cgroup, a real one, and the processors that it may run on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from served import Service, gomp

from gomp.core import COMPILED

if not COMPILED:
    pytest.skip("runs processes of its own", allow_module_level=True)

CPU = Path("/sys/fs/cgroup/cpu")
FOLLOWS_S = 5  # it looks each second; and then processes start
CONFIG = """
name = "resized"
metrics_port = 0
max_heap = "256MiB"
[[programs]]
program = "mixed"
everywhere = true
parameters = { rate = 40, live = 8388608, stdlib_trees = false }
"""
# A machine of two processors could not tell one quota from another: by Go's rounding there are two Ps at least.
FOUR_PROCESSORS = "import os; os.sched_getaffinity = lambda pid: set(range(4)); from gomp.cli import main; main()"


@contextmanager
def cpu_cgroup():
    """A directory of cgroup v1's CPU controller, into which this process may write."""
    directory = CPU / f"gomp-test-{os.getpid()}"
    try:
        directory.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a CPU cgroup: {error}")
    if not (directory / "cpu.cfs_quota_us").exists():
        directory.rmdir()
        pytest.skip("no CFS quota in this kernel's CPU controller")
    try:
        yield directory
    finally:
        deadline = time.monotonic() + 10
        while (directory / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        directory.rmdir()


class Quota:
    def __init__(self, directory):
        self._directory = directory

    def set(self, percent):
        (self._directory / "cpu.cfs_quota_us").write_text("-1" if percent is None else str(percent * 1000))

    def enter(self):
        (self._directory / "cgroup.procs").write_text(str(os.getpid()))

    def ps(self):
        """Processes of Ps in it."""
        names = (Path(f"/proc/{pid}/comm") for pid in (self._directory / "cgroup.procs").read_text().split())
        return sorted(name.read_text().strip() for name in names if name.read_text().startswith("gomp-p"))


class Resized(Service):
    """As a service, in a cgroup, on a machine that is said to have four processors."""

    def __init__(self, config, environment, quota):
        def enter_and_serve(command, **kwargs):
            return real([sys.executable, "-c", FOUR_PROCESSORS, *command[3:]], preexec_fn=quota.enter, **kwargs)

        real, subprocess.Popen = subprocess.Popen, enter_and_serve
        try:
            super().__init__(config, environment)
        finally:
            subprocess.Popen = real


@pytest.mark.slow
def test_gomaxprocs_follows_the_quota_up_and_down(environment, tmp_path):
    config = tmp_path / "service.toml"
    config.write_text(CONFIG)
    with cpu_cgroup() as directory:
        quota = Quota(directory)
        quota.set(250)
        service = Resized(config, environment, quota)
        try:
            before = service.counters()
            for percent, procs in ((250, 3), (350, 4), (120, 2), (None, 4)):
                quota.set(percent)
                deadline = time.monotonic() + FOLLOWS_S
                expected = [f"gomp-p{i}" for i in range(procs)]
                while service.samples()[("go_sched_gomaxprocs_threads",)] != procs or quota.ps() != expected:
                    assert time.monotonic() < deadline, (percent, quota.ps())
                    time.sleep(0.1)
                now = service.counters()
                assert all(now[key] >= value for key, value in before.items()), "a counter went back"
                before = now
            assert service.client.get("/readyz").status_code == 200
            assert not any(value for (name, *_), value in service.samples().items() if name == "gomp_p_restarts_total")
            verified = gomp(environment, "verify", "resized", "--level", "3")
            assert verified.returncode == 0, verified.stderr
        finally:
            service.client.close()
            code, _, stderr = service.end(signal.SIGTERM)
        assert code == 0
        assert "gomaxprocs is 4 now; it was 3: so many processors there are, by affinity and the CPU quota" in stderr
