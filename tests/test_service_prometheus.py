"""A real Prometheus scrapes the service. This file is collected only where there is a ``prometheus`` binary."""

import json
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from served import Service, environment_in
from service_stand_in import StandIn

from gomp.runtime.metrics.table import TABLE

ROOT = Path(__file__).parent.parent
DEADLINE_S = 30
SCRAPE_S, LONG_S = 0.5, 300
CONFIG = """
metrics_port = 0
metrics = "all"
max_heap = "512MiB"
[[programs]]
program = "mixed"
parameters = { rate = 200, live = "8MiB", stdlib_trees = false }
"""


@pytest.fixture
def scrape(tmp_path):
    """Start a Prometheus that scrapes a URL twice a second; gives a function that asks it."""
    servers = []

    def start(url):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        jobs = [{"job_name": "gomp", "static_configs": [{"targets": [httpx.URL(url).netloc.decode()]}]}]
        config = tmp_path / "prometheus.json"  # JSON is YAML
        config.write_text(
            json.dumps({"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}, "scrape_configs": jobs})
        )
        with (tmp_path / "log").open("w") as log:
            command = [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address={address}",
            ]
            servers.append(subprocess.Popen(command, stdout=log, stderr=log))

        def ask(query):
            """The values of ``query`` by series, or nothing while Prometheus starts."""
            try:
                answer = httpx.get(f"http://{address}/api/v1/query", params={"query": query}, timeout=5)
            except httpx.TransportError:
                return []
            if answer.status_code != 200:  # it is still starting
                return []
            return [float(series["value"][1]) for series in answer.json().get("data", {}).get("result", [])]

        return ask

    yield start
    for server in servers:
        server.kill()
        server.wait()


@pytest.fixture
def stand_in():
    made = StandIn(metrics="all")
    made.tell("ready")
    yield made
    made.close()


@pytest.fixture
def served(tmp_path, compiled_kernels):
    """A ``gomp serve`` that runs ``mixed``."""
    config = tmp_path / "service.toml"
    config.write_text(CONFIG)
    made = Service(config, environment_in(tmp_path))
    yield made
    made.end(signal.SIGTERM)
    made.client.close()


def dashboards():
    """What our own ask, but for the cgroup's figures and PSI's, which not every machine has, and a memory limit and goroutines with a
    place, which this service has not."""
    files = (ROOT / "configs/grafana/provisioning/dashboards").glob("*.json")
    panels = [panel for file in files for panel in json.loads(file.read_text())["panels"]]
    queries = [
        target["expr"].replace("$instance", ".*").replace("$__rate_interval", "10s")
        for panel in panels
        for target in panel["targets"]
    ]
    absent = ("gomp_cgroup", "gomp_memory_pressure", "gomemlimit", "gomp_goroutines{")
    return [q for q in queries if not any(name in q for name in absent)]


def public_dashboards():
    """What other people's ask of any Go program."""
    lines = (ROOT / "tests/data/metrics/public-dashboards.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def eventually(ask, query, accept):
    deadline = time.monotonic() + DEADLINE_S
    while not accept(values := ask(query)):
        assert time.monotonic() < deadline, f"{query} stayed {values}"
        time.sleep(0.1)


def test_cycles_live_heap_and_goal_of_a_service_move(served, scrape):
    ask = scrape(served.client.base_url)
    eventually(ask, "up{job='gomp'}", lambda values: values == [1.0])
    eventually(ask, "increase(go_gc_cycles_total_gc_cycles_total[1m])", lambda values: bool(values) and values[0] > 3)
    for gauge in ("gomp_heap_live_bytes", "go_memstats_next_gc_bytes", "go_gc_heap_live_bytes"):
        eventually(ask, f"changes({gauge}[1m])", lambda values: bool(values) and values[0] > 0)
    for query in dashboards() + public_dashboards():
        eventually(ask, query, bool)
    for metric in TABLE:
        if metric.kind == "counter":
            resets = set(ask(f"resets({metric.prometheus_name}[1m])"))
            assert resets == {0.0} or (metric.label == "pool" and not resets), metric.name  # the service has no pools


@pytest.mark.slow
def test_five_minutes_under_load(served, scrape):
    ask = scrape(served.client.base_url)
    eventually(ask, "up{job='gomp'}", lambda values: values == [1.0])
    time.sleep(LONG_S)
    without = [query for query in dashboards() + public_dashboards() if not ask(query)]
    assert not without
    assert ask("min_over_time(up{job='gomp'}[5m])") == [1.0], "no scrape has failed"
    (scrapes,) = ask("count_over_time(up{job='gomp'}[5m])")
    assert scrapes > 0.9 * LONG_S / SCRAPE_S
    durations = [ask(f"quantile_over_time({q}, scrape_duration_seconds{{job='gomp'}}[5m])")[0] for q in (0.5, 0.99, 1)]
    print(
        f"{scrapes:.0f} scrapes, {durations[0] * 1e3:.1f} ms in the median, 99% in {durations[1] * 1e3:.1f}, the longest {durations[2] * 1e3:.1f}"
    )
    assert durations[0] < 0.02


def test_what_the_service_says_is_what_prometheus_stores(stand_in, scrape):
    ask = scrape(stand_in.info["url"])
    eventually(ask, "go_gc_cycles_total_gc_cycles_total", lambda values: values == [0.0])
    for _ in range(3):
        stand_in.tell("cycle")
    eventually(ask, "go_gc_cycles_total_gc_cycles_total", lambda values: values == [3.0])
    assert ask("go_memstats_next_gc_bytes") == [7 << 20]
    assert ask("go_gc_duration_seconds_count") == [3.0]
    assert len(ask("go_gc_duration_seconds")) == 5
    assert ask("go_info{version=~'go1.*'}") == [1.0]


def test_promtool_finds_nothing_to_complain_about(stand_in):
    promtool = shutil.which("promtool")
    checked = subprocess.run(
        [promtool, "check", "config", ROOT / "configs/prometheus.yml"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    lint = subprocess.run(
        [promtool, "check", "metrics"], input=stand_in.get("/metrics").text, capture_output=True, text=True, check=False
    )
    assert (lint.returncode, lint.stderr) == (0, "")
