"""The service as its clients see it: Prometheus, an orchestrator's probes, a browser, and the coordinator."""

import json
import os
import select
import signal
import socket
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families
from service_stand_in import StandIn

from gomp.config import ServiceSettings, load
from gomp.core.shm import layout
from gomp.errors import ConfigError
from gomp.runtime import units
from gomp.runtime.metrics.table import TABLE
from gomp.service import process

GO_METRICS = {
    m["name"]: m for m in json.loads((Path(__file__).parent / "data/metrics/prometheus-go-names.json").read_text())
}


@pytest.fixture(scope="module")
def shared():
    made = StandIn()
    yield made
    made.close()


@pytest.fixture
def service():
    made = StandIn()
    yield made
    made.close()


def wait_for_end(pid, seconds):
    """Whether ``pid``, which need not be a child, ends in time."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)


def test_go_metrics_have_the_names_and_types_of_gos_own_client(shared):
    families = list(text_string_to_metric_families(shared.get("/metrics").text))
    ours = {
        f.name + ("_total" if f.type == "counter" else ""): f.type for f in families if not f.name.startswith("gomp_")
    }
    assert ours.pop("go_memstats_lookups_total") == "counter", "which older versions of that client give"
    assert ours == {name: GO_METRICS[name]["type"] for name in ours}
    assert {name for name, m in GO_METRICS.items() if m["in_default_set"] and name not in ours} == set()
    assert "go_sched_latencies_seconds" not in ours


def test_all_of_gos_metrics_are_there_for_who_wants_them():
    made = StandIn(metrics="all")
    try:
        families = {f.name: f for f in text_string_to_metric_families(made.get("/metrics").text)}
    finally:
        made.close()
    known = {
        metric.prometheus_name.removesuffix("_total")
        for metric in TABLE
        if not metric.prometheus_name.startswith("gomp_")
    }
    assert known - families.keys() == set()
    histogram = families["go_sched_latencies_seconds"]
    assert histogram.type == "histogram"
    assert len(histogram.samples) == len(GO_METRICS[histogram.name]["le"]) + 3  # and +Inf, sum and count


def test_the_summary_of_pauses_has_gos_quantiles(shared):
    samples = shared.samples()
    quantiles = [key[1] for key in samples if key[0] == "go_gc_duration_seconds" and len(key) == 2]
    assert quantiles == GO_METRICS["go_gc_duration_seconds"]["quantiles"]
    assert {("go_gc_duration_seconds_sum",), ("go_gc_duration_seconds_count",)} <= set(samples)


def test_a_scrape_reads_what_is_true_now(service):
    before = service.samples()
    service.tell("cycle")
    service.tell("cycle")
    service.tell("p 1 4242")
    after = service.samples()
    cycles = ("go_gc_cycles_total_gc_cycles_total",)
    assert after[cycles] == before[cycles] + 2
    assert after[("go_memstats_next_gc_bytes",)] == 6 << 20
    assert after[("gomp_heap_live_bytes",)] == 3 << 20
    assert after[("go_gc_duration_seconds", "1")] == 0.001
    assert after[("gomp_p_pid", "1")] == 4242
    assert ("gomp_p_pid", "0") not in after
    assert after[("gomp_coordinator_pid",)] == service.info["pid"]
    assert after[("gomp_service_pid",)] == service.info["service"]
    assert after[("gomp_heap_max_bytes",)] == layout.ARENA_SIZE
    assert after[("gomp_p_refills_total", "coordinator")] == 0


def test_open_metrics_is_spoken_to_who_asks_for_it(shared):
    assert shared.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")
    answer = shared.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    families = {family.name: family.type for family in open_families(answer.text)}
    assert families["go_memstats_alloc_bytes"] == "gauge"
    assert families["go_memstats_alloc_bytes_total"] == "unknown", "as a counter it would have that name"
    assert families["go_memstats_mallocs"] == "counter"


def test_whoever_asks_for_what_there_is_not_gets_the_usual(shared):
    for accept in ("application/openmetrics-text;version=abc", ";;,", "image/png"):
        answer = shared.get("/metrics", Accept=accept)
        assert (answer.status_code, answer.headers["content-type"][:10]) == (200, "text/plain"), accept


def test_a_scrape_does_not_wait_for_a_stopped_world(service):
    service.tell("stop")
    assert service.samples()[("go_gc_gogc_percent",)] == 100


def test_the_probes_follow_the_runtime(service):
    assert (service.get("/livez").status_code, service.get("/readyz").status_code) == (200, 503)
    service.tell("ready")
    assert (service.get("/readyz").status_code, service.samples()[("gomp_ready",)]) == (200, 1)
    service.tell("shutdown")
    assert (service.get("/readyz").status_code, service.get("/livez").status_code) == (503, 200)


def test_signals_to_the_group_do_not_end_the_service(service):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(service.info["service"], number)
    assert service.get("/livez").status_code == 200


def test_the_service_ends_with_the_coordinator_though_a_page_is_open(service):
    pid = service.info["service"]
    with service.client.stream("GET", "/live") as answer:
        next(answer.iter_raw())
        assert not wait_for_end(pid, 0)
        service.process.kill()
        assert wait_for_end(pid, 5)


def test_a_port_in_use_is_one_line_that_names_the_fix():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"^port {port} on 127.0.0.1 is in use: .*choose another metrics_port$"):
            process.bind(load(ServiceSettings, metrics_port=port))


def test_a_host_that_is_not_ours_is_one_line():
    with pytest.raises(ConfigError, match=r"^cannot listen on 192\.0\.2\.1 port 0: "):
        process.bind(load(ServiceSettings, metrics_host="192.0.2.1", metrics_port=0))
    for host in ("no such host", "a..b", "x" * 70):
        with pytest.raises(ConfigError, match="is no address of this machine") as caught:
            process.bind(load(ServiceSettings, metrics_host=host, metrics_port=0))
        assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")])
def test_the_url_can_be_opened_on_this_machine(host, shown):
    with process.bind(load(ServiceSettings, metrics_host=host, metrics_port=0)) as listener:
        assert process.url(listener) == f"http://{shown}:{listener.getsockname()[1]}/"


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 B"), (999, "999 B"), (1024, "1 KiB"), (1 << 20, "1 MiB"), (3 << 29, "1.5 GiB"), (1 << 63, "8.389e+06 TiB")],
)
def test_bytes_are_shown_with_a_unit(n, text):
    assert units.format_bytes(n) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0"), (19e-6, "19 µs"), (0.0015, "1.5 ms"), (2, "2 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")],
)
def test_times_are_shown_with_a_unit(seconds, text):
    assert units.format_time(seconds) == text
