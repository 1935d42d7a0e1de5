"""A real Prometheus scrapes the service. This file is collected only where there is a ``prometheus`` binary."""

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from service_stand_in import StandIn

ROOT = Path(__file__).parent.parent
DEADLINE_S = 30


@pytest.fixture
def service():
    made = StandIn()
    made.tell("ready")
    yield made
    made.close()


@pytest.fixture
def prometheus(service, tmp_path):
    """A Prometheus that scrapes the service twice a second; gives a function that asks it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    target = httpx.URL(service.info["url"]).netloc.decode()
    jobs = [{"job_name": "gomp", "static_configs": [{"targets": [target]}]}]
    config = tmp_path / "prometheus.json"  # JSON is YAML
    config.write_text(
        json.dumps({"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}, "scrape_configs": jobs})
    )
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )

    def ask(query):
        """The values of ``query`` by series, or nothing while Prometheus starts."""
        try:
            answer = httpx.get(f"http://{address}/api/v1/query", params={"query": query}, timeout=5)
        except httpx.TransportError:
            return []
        return [float(series["value"][1]) for series in answer.json().get("data", {}).get("result", [])]

    yield ask
    server.kill()
    server.wait()


def eventually(ask, query, accept):
    deadline = time.monotonic() + DEADLINE_S
    while not accept(values := ask(query)):
        assert time.monotonic() < deadline, f"{query} stayed {values}"
        time.sleep(0.1)


def test_cycles_live_heap_and_goal_move(service, prometheus):
    eventually(prometheus, "up{job='gomp'}", lambda values: values == [1.0])
    eventually(prometheus, "go_gc_cycles_total_gc_cycles_total", lambda values: values == [0.0])
    for _ in range(3):
        service.tell("cycle")
    eventually(prometheus, "go_gc_cycles_total_gc_cycles_total", lambda values: values == [3.0])
    assert prometheus("changes(go_memstats_next_gc_bytes[1m])") == [1.0]
    assert prometheus("changes(gomp_heap_live_bytes[1m])") == [1.0]
    assert prometheus("go_gc_duration_seconds_count") == [3.0]
    assert len(prometheus("go_gc_duration_seconds")) == 5
    assert prometheus("scrape_samples_scraped")[0] > 50
    # Three cycles appeared between two scrapes: a rate is never negative, and a counter was never reset.
    assert prometheus("resets(go_gc_cycles_total_gc_cycles_total[1m])") == [0.0]


def test_promtool_finds_nothing_to_complain_about(service):
    promtool = shutil.which("promtool")
    checked = subprocess.run(
        [promtool, "check", "config", ROOT / "configs/prometheus.yml"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    lint = subprocess.run(
        [promtool, "check", "metrics"], input=service.get("/metrics").text, capture_output=True, text=True, check=False
    )
    ours = [line for line in lint.stderr.splitlines() if line.startswith("gomp_")]
    assert ours == []
