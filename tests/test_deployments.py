"""What ``configs/`` has for compose and Kubernetes names what exists: ports, paths, settings, files, and answers that the service gives."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from service_stand_in import StandIn

from gomp.config import ServiceSettings, load, parse_byte_count
from gomp.runtime.metrics.table import TABLE

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
DASHBOARDS = sorted((CONFIGS / "grafana/provisioning/dashboards").glob("*.json"))
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PORT = int(re.search(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE)[1])
GOS = {"GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG"}


def documents(name):
    return list(yaml.safe_load_all((CONFIGS / name).read_text()))


def check_environment(names):
    """Each is Go's or one of ours."""
    ours = {f"GOMP_{option.upper()}" for option in ServiceSettings.model_fields}
    assert set(names) - GOS - ours == set()


@pytest.fixture(scope="module")
def answers():
    stand_in = StandIn()
    stand_in.tell("ready")
    yield stand_in
    stand_in.close()


# --- the image --------------------------------------------------------------------------------------------------------


def test_the_image_exposes_where_its_service_listens(answers):
    assert PORT == load(ServiceSettings, CONFIGS / "service.toml").metrics_port
    path = re.search(r"/(livez)\\?'", DOCKERFILE)[1]
    assert answers.get(f"/{path}").status_code == 200
    check_environment(re.findall(r"\b(GOMP_[A-Z_]+)=", DOCKERFILE.replace("GOMP_CACHE_DIR=", "")))


# --- compose ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def services():
    (composed,) = documents("compose.yaml")
    return composed["services"]


def published(service):
    """The container's ports; all are published for this machine alone."""
    triples = [port.split(":") for port in service["ports"]]
    assert {host for host, _, _ in triples} == {"127.0.0.1"}
    return {int(inside) for _, _, inside in triples}


def test_compose_builds_this_image_and_limits_it(services):
    gomp = services["gomp"]
    assert (CONFIGS / gomp["build"]["context"] / "Dockerfile").is_file()
    assert published(gomp) == {PORT}
    assert gomp["environment"]["GOMEMLIMIT"] == "auto"
    assert gomp["mem_limit"] == gomp["memswap_limit"]
    check_environment(gomp["environment"])


def test_what_compose_mounts_exists(services):
    (composed,) = documents("compose.yaml")
    for service in services.values():
        for source in (volume.split(":")[0] for volume in service.get("volumes", ())):
            assert source in composed["volumes"] or (CONFIGS / source).exists(), source


def test_composes_prometheus_scrapes_gomp_and_grafana_asks_it(services):
    (scraping,) = documents("prometheus-compose.yml")
    (of_this_machine,) = documents("prometheus.yml")
    (job,) = scraping["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"gomp:{PORT}"]}]
    assert scraping["global"] == of_this_machine["global"]
    (source,) = documents("grafana/provisioning/datasources/prometheus.yml")[0]["datasources"]
    assert source["url"] == f"http://prometheus:{published(services['prometheus']).pop()}"
    (provider,) = documents("grafana/provisioning/dashboards/files.yml")[0]["providers"]
    (mounted,) = (v.split(":")[1] for v in services["grafana"]["volumes"] if v.startswith("./grafana"))
    assert provider["options"]["path"] == f"{mounted}/dashboards"


def test_compose_waits_for_a_service_that_lives(services, answers):
    assert services["prometheus"]["depends_on"]["gomp"]["condition"] == "service_healthy"
    asked = re.search(rf"http://127.0.0.1:{PORT}(/\w+)'", services["gomp"]["healthcheck"]["test"][-1])[1]
    assert f"{asked}" in DOCKERFILE
    assert answers.get(asked).status_code == 200


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_asks_for_what_there_is(file, answers):
    dashboard = json.loads(file.read_text())
    known = {
        sample.name
        for family in text_string_to_metric_families(answers.get("/metrics").text)
        for sample in family.samples
    }
    known |= {
        metric.prometheus_name for metric in TABLE if metric.by_default
    }  # of a machine that has no cgroup, or no PSI
    assert len({panel["title"] for panel in dashboard["panels"]}) == len(dashboard["panels"]) > 0
    for panel in dashboard["panels"]:
        assert panel["description"]
        for target in panel["targets"]:
            assert set(re.findall(r"\bgo(?:mp)?_\w+", target["expr"])) <= known, target["expr"]
            windows = set(re.findall(r"\[(.+?)\]", target["expr"]))
            assert windows <= {"$__rate_interval", "5m"}, "a shorter one is empty where scrapes are a minute apart"


@pytest.mark.skipif(not shutil.which("promtool"), reason="there is no promtool here")
@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-compose.yml"])
def test_prometheus_finds_nothing_wrong_with(name):
    checked = subprocess.run(
        ["promtool", "check", "config", CONFIGS / name], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


# --- Kubernetes -------------------------------------------------------------------------------------------------------


@pytest.fixture
def pod():
    deployment, service = documents("kubernetes.yaml")
    template = deployment["spec"]["template"]
    assert (
        deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == template["metadata"]["labels"]
    )
    return template["spec"]


def test_the_pod_is_limited_and_may_do_nothing_else(pod):
    (container,) = pod["containers"]
    resources = container["resources"]
    assert resources["limits"]["memory"] == resources["requests"]["memory"]
    assert f"--uid {pod['securityContext']['runAsUser']} " in DOCKERFILE
    check_environment(variable["name"] for variable in container["env"])


def test_probes_ask_what_the_service_answers(pod, answers):
    (container,) = pod["containers"]
    (port,) = container["ports"]
    assert port["containerPort"] == PORT
    asked = {}
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        get = container[kind]["httpGet"]
        assert get["port"] == port["name"]
        assert answers.get(get["path"]).status_code == 200
        asked[kind] = get["path"]
    assert asked == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    _, service = documents("kubernetes.yaml")
    assert [found["targetPort"] for found in service["spec"]["ports"]] == [port["name"]]


def test_the_heap_fits_its_dev_shm_and_that_the_limit(pod):
    (container,) = pod["containers"]
    (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
    assert (mount["name"], mount["mountPath"], volume["emptyDir"]["medium"]) == (volume["name"], "/dev/shm", "Memory")
    heap = next(v["value"] for v in container["env"] if v["name"] == "GOMP_MAX_HEAP")
    size, limit = (
        parse_byte_count(f"{text}B")
        for text in (volume["emptyDir"]["sizeLimit"], container["resources"]["limits"]["memory"])
    )
    assert parse_byte_count(heap) * 9 // 8 <= size < limit
