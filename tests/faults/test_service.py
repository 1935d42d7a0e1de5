"""A service whose Ps are killed while it works and is scraped: it counts on, keeps nothing of the dead, and says truly whether it is ready."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from served import Service

from gomp.core import COMPILED
from gomp.runtime.restarts import TOLERATED

if not COMPILED:
    pytest.skip("needs compiled kernels", allow_module_level=True)

ROOT = Path(__file__).parents[2]
CONFIG = """
name = "faults"
procs = 2
metrics_port = 0
max_heap = "256MiB"
[[programs]]
program = "tests.faults.load:chatter"
everywhere = true
"""


@pytest.fixture
def service(tmp_path, compiled_kernels):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GO")}
    config = tmp_path / "service.toml"
    config.write_text(CONFIG)
    environment = kept | {"XDG_RUNTIME_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    started = Service(config, environment)
    yield started
    started.client.close()
    started.process.kill()
    started.process.wait()
    started.process.stdout.close()


class Log:
    """What the service writes, read as it comes."""

    def __init__(self, stream):
        self.lines = []
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream):
        with stream:
            for line in stream:
                self.lines.append(line)

    def count(self, pattern):
        return sum(1 for line in self.lines if re.search(pattern, line))


def family(pid):
    """The coordinator's children that are processes of the runtime."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]


def footprint(samples):
    """Descriptors of coordinator and service, processes, segments."""
    pids = [int(samples["gomp_coordinator_pid",]), int(samples["gomp_service_pid",])]
    return {
        "descriptors": [descriptors(pid) for pid in pids],
        "processes": len(family(pids[0])),
        "segments": sorted(name for name in os.listdir("/dev/shm") if name.startswith("gomp")),
    }


def descriptors(pid):
    """How many a process has open, but for files of /proc, which it may just be reading."""
    found = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += not os.readlink(fd).startswith("/proc/")
    return found


def wait_until(condition, what, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain until {what}"
        time.sleep(0.01)


def is_ready(service):
    return service.client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("kills", "seconds"), [(12, 8.0), pytest.param(100, 300.0, marks=pytest.mark.slow)], ids=["12", "100 in 5 minutes"]
)
def test_a_service_takes_kills_under_load_and_scraping(service, kills, seconds):
    log = Log(service.process.stderr)
    wait_until(lambda: is_ready(service), "it is ready")
    wait_until(lambda: log.count("share 1 of 2") and log.count("share 2 of 2"), "both shares say something")
    rng = random.Random(3)
    before = service.counters()
    first = footprint(service.samples())
    for n in range(kills):
        time.sleep(rng.uniform(0.5, 1.5) * seconds / kills)
        idx = rng.randrange(2)
        wait_until(lambda: ("gomp_p_pid", str(idx)) in service.samples(), f"P{idx} has a process")  # noqa: B023
        pid = int(service.samples()["gomp_p_pid", str(idx)])
        said = [log.count(f"share {i} of 2") for i in (1, 2)]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: service.samples().get(("gomp_p_pid", str(idx)), pid) != pid, "there is another")  # noqa: B023
        wait_until(lambda: is_ready(service), "it is ready again")
        for i in (1, 2):
            wait_until(lambda: log.count(f"share {i} of 2") > said[i - 1], f"share {i} goes on")  # noqa: B023
        now = service.counters()
        assert [key for key in before if now[key] < before[key]] == []
        before = now
        assert sum(value for key, value in now.items() if key[0] == "gomp_p_restarts_total") == n + 1
    time.sleep(0.5)
    assert footprint(service.samples()) == first
    assert (
        log.count(r"P\d \(pid \d+\) was killed by SIGKILL while it ran tests.faults.load:chatter; repaired in ")
        == kills
    )
    assert log.count("Traceback") == 0
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(2) == 0


@pytest.mark.slow
def test_a_service_is_not_ready_while_a_p_that_keeps_dying_is_held_back(service):
    log = Log(service.process.stderr)
    wait_until(lambda: is_ready(service), "it is ready")
    for n in range(TOLERATED + 4):
        wait_until(lambda: service.samples().get(("gomp_p_pid", "0")), "P0 has a process")
        os.kill(int(service.samples()["gomp_p_pid", "0"]), signal.SIGKILL)
        wait_until(lambda: log.count("while it ran") > n, "it is noticed")  # noqa: B023
    assert log.count("it is started again in 0.8 s: it keeps dying") == 1
    answer = service.client.get("/readyz")
    assert answer.status_code == 503
    wait_until(lambda: is_ready(service), "it is ready again")
