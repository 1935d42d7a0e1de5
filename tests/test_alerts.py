"""The alerts of ``configs/prometheus/``: by promtool on stories, and, slow, by a real Prometheus on real scrapes of what goes wrong."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from served import START_S, environment_in

from gomp.demo import scenarios

ROOT = Path(__file__).parent.parent
RULES = ROOT / "configs/prometheus/alerts.yml"
STORIES = Path(__file__).parent / "data/alerts/alerts_test.yml"
ALERTS = {
    rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"] if "alert" in rule
}

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus")


@needs_promtool
def test_each_story_has_its_alerts_and_no_others():
    done = subprocess.run(
        ["promtool", "test", "rules", STORIES], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_its_scenario_and_its_story():
    assert {found.ALERT for found in scenarios().values()} - {None} == ALERTS
    assert ALERTS == set(re.findall(r"alertname: (\w+)\n +exp_alerts", STORIES.read_text()))


# --- on real scrapes: a minute of the rules is a second ---------------------------------------------------------------

RUN_S = 45.0


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def fired(tmp_path: Path) -> Iterator[object]:
    """Gives a function: the alerts that have fired of what answers at an address, so far."""
    processes = []

    def start(target: str) -> object:
        rules, config, address = tmp_path / "alerts.yml", tmp_path / "prometheus.json", free_address()
        rules.write_text(re.sub(r"\b(\d+)m\b", r"\1s", RULES.read_text()))
        jobs = [{"job_name": "gomp", "static_configs": [{"targets": [target]}]}]
        times = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
        config.write_text(json.dumps({"global": times, "rule_files": [str(rules)], "scrape_configs": jobs}))
        with (tmp_path / "prometheus.log").open("w") as log:
            command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
            processes.append(subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log))

        def ask() -> set[str]:
            query = 'max by (alertname) (max_over_time(ALERTS{alertstate="firing"}[5m]))'
            answer = httpx.get(f"http://{address}/api/v1/query", params={"query": query}, timeout=5).json()
            return {series["metric"]["alertname"] for series in answer["data"]["result"]}

        return ask

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.alone
@needs_prometheus
@pytest.mark.parametrize("name", list(scenarios()))
def test_an_alert_fires_in_its_scenario_and_no_other_does(name, fired, tmp_path):
    command = [sys.executable, "-m", "gomp", "demo", name, "--metrics-port", "0", "--no-open", "--seconds", "300"]
    with (tmp_path / "log").open("w") as log:
        demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment_in(tmp_path))
    try:
        url = demo.stdout.readline().rpartition(" ")[2].strip()
        ask = fired(httpx.URL(url).netloc.decode())
        time.sleep(RUN_S)
        assert ask() == {scenarios()[name].ALERT} - {None}
    finally:
        demo.terminate()
        demo.wait(START_S)
        demo.stdout.close()
