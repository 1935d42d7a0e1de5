"""``gomp serve`` and ``gomp run`` as their users meet them: real processes, from the command line to the last signal."""

import json
import os
import re
import signal
import time

import pytest
from served import Service, gomp

END_S = 2

CONFIG = """
name = "served"
procs = 2
metrics_port = 0
max_heap = "256MiB"
[[programs]]
program = "binary_trees"
parameters = { depth = 14, goroutines = 2 }
"""


@pytest.fixture
def serve(environment, tmp_path):
    config = tmp_path / "service.toml"
    config.write_text(CONFIG)
    started = []

    def start(*flags):
        started.append(Service(config, environment, *flags))
        return started[-1]

    yield start
    for service in started:
        service.close()


def is_running(pid):
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


def test_a_service_runs_its_programs_is_scraped_listed_verified_and_ends(serve, environment):
    service = serve("--metrics-host", "0.0.0.0")
    assert service.announcement.startswith("gomp is ready: http://127.0.0.1:")
    assert service.client.get("/readyz").status_code == 200

    before, deadline = service.counters(), time.monotonic() + 30
    while service.samples()[("go_gc_cycles_total_gc_cycles_total",)] < 2:
        now = service.counters()
        assert all(now[key] >= value for key, value in before.items()), "a counter went back"
        before = now
        assert time.monotonic() < deadline
    samples = service.samples()
    assert samples[("go_memstats_mallocs_total",)] > 100_000
    assert samples[("go_gc_duration_seconds", "1")] > 0

    (listed,) = json.loads(gomp(environment, "ls", "--json").stdout)["runtimes"]
    assert (listed["name"], listed["ps"], listed["heap_bytes"]) == ("served", 2, 256 << 20)
    assert listed["url"] == str(service.client.base_url)
    assert listed["pid"] == samples[("gomp_coordinator_pid",)] == service.process.pid
    verified = gomp(environment, "verify", "served")
    assert (verified.returncode, verified.stderr) == (0, "")
    assert verified.stdout.startswith("served: verified at level 3: ")

    pids = [samples[key] for key in (("gomp_p_pid", "0"), ("gomp_p_pid", "1"), ("gomp_service_pid",))]
    code, seconds, stderr = service.end(signal.SIGTERM)
    assert code == 0
    assert re.fullmatch(r".* INFO .*memory_limit is .*auto.*\n", stderr)
    assert seconds < END_S
    assert [pid for pid in pids if is_running(pid)] == []
    assert gomp(environment, "ls").stdout == "NAME  PS  HEAP  PID  ATTACHED\n"


def test_a_port_or_a_name_in_use_is_one_line(serve, environment, tmp_path):
    first = serve()
    port = first.client.base_url.port
    for flags, message in (
        (["--metrics-port", str(port), "--name", "other"], f"port {port} on 127.0.0.1 is in use"),
        ([], "served"),
    ):
        second = gomp(environment, "serve", "--config", str(tmp_path / "service.toml"), *flags)
        assert (second.returncode, second.stdout) == (2, "")
        assert second.stderr.startswith("gomp: ")
        assert message in second.stderr
        assert second.stderr.count("\n") == 1
    code, seconds, _ = first.end(signal.SIGINT)
    assert code in (0, 130)
    assert seconds < END_S


def test_a_program_runs_and_its_figures_are_the_last_line(environment):
    done = gomp(environment, "run", "binary_trees", "depth=12", "goroutines=2", "--procs", "2", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["program"], report["result"]) == ("binary_trees", 397039)
    assert report["num_gc"] >= 1
    assert report["mallocs"] >= 397039 - 2048  # what a cache holds is not counted yet
    assert 0 < report["pause_p50_s"] <= report["pause_max_s"]
    assert len(report["mark_cpu_s_per_p"]) == 2


def test_gctrace_prints_gos_line(environment):
    done = gomp(environment | {"GODEBUG": "gctrace=1"}, "run", "binary_trees", "depth=12")
    assert done.returncode == 0
    first = done.stderr.splitlines()[0]
    assert first.startswith("gc 1 @")
    assert " ms clock, " in first
    assert first.endswith(" P")
