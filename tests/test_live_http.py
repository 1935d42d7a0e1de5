"""The live page as clients get it: the document and its files, and the stream, for many, for slow ones and while the world is stopped."""

import contextlib
import fcntl
import json
import os
import re
import resource
import socket
import sys
import termios
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
from service_stand_in import StandIn

from gomp.runtime.metrics.table import TABLE
from gomp.service.live.feed import MAX_FOLLOWERS

UNREAD_S = 1
FILE = re.compile(r'(?:href|src)="(static/[^"]+)"|from "\./([^"]+)"')


@pytest.fixture(scope="module")
def service():
    made = StandIn(UNREAD_S=UNREAD_S)
    yield made
    made.close()


@contextmanager
def stream(service):
    """The events of a stream, as (kind, data)."""
    with httpx.stream("GET", f"{service.info['url']}live", timeout=10) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events(answer.iter_lines())


def events(lines):
    for line in lines:
        if line.startswith("event: "):
            yield line.removeprefix("event: "), json.loads(next(lines).removeprefix("data: "))


def frames(events, n):
    found = []
    while len(found) < n:
        kind, data = next(events)
        if kind == "frame":
            found.append(data)
    return found


def open_files(service):
    """What the service process has open."""
    directory = f"/proc/{service.info['service']}/fd"
    found = []
    for fd in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):  # it has been closed since
            found.append(os.readlink(f"{directory}/{fd}"))
    return found


def sockets(service):
    return sum(name.startswith("socket:") for name in open_files(service))


def waits_to_be_read(connection):
    """Whether nothing more comes as long as nothing is read."""
    before = unread(connection)
    time.sleep(0.2)
    return unread(connection) == before > 0


def unread(connection):
    buffer = bytearray(4)
    fcntl.ioctl(connection, termios.FIONREAD, buffer)
    return int.from_bytes(buffer, sys.byteorder)


def wait_until(holds, seconds=10):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_page_and_its_files_come_from_here_alone(service):
    document = service.get("/")
    assert "<title>gomp · stand-in</title>" in document.text
    todo = [path for path, _ in FILE.findall(document.text)]
    seen = set()
    while todo:
        path = todo.pop()
        seen.add(path)
        answer = service.get(f"/{path}")
        assert answer.status_code == 200, path
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        if "uPlot" not in path:
            assert set(re.findall(r"https?://([^/\"]*)", answer.text)) <= {"www.w3.org"}, "the name of SVG"
            todo += [f"static/{name}" for _, name in FILE.findall(answer.text) if f"static/{name}" not in seen]
    assert {
        "static/page.js",
        "static/charts.js",
        "static/map.js",
        "static/page.css",
        "static/uPlot.iife.min.js",
    } <= seen
    assert document.headers["content-security-policy"].startswith("default-src 'self';")
    assert "http" not in document.text
    assert "style=" not in document.text, "its policy allows none"
    assert (service.get("/nothing").status_code, service.get("/static/../app.py").status_code) == (404, 404)


def test_a_file_that_a_browser_has_is_not_sent_again(service):
    first = service.get("/static/page.js")
    again = service.get("/static/page.js", **{"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert first.headers["content-type"] == "text/javascript; charset=utf-8"


def test_who_does_not_take_a_file_keeps_none_open(service):
    """Not even one that has asked for parts of it."""
    path = "static/uPlot.iife.min.js"
    url = httpx.URL(service.info["url"])
    with socket.create_connection((url.host, url.port), timeout=10) as slow:
        ranges = ",".join(f"{i * 5000}-{i * 5000 + 4990}" for i in range(10))
        slow.sendall(f"GET /{path} HTTP/1.1\r\nHost: x\r\nRange: bytes={ranges}\r\n\r\n".encode() * 300)
        wait_until(lambda: waits_to_be_read(slow))
        assert not [name for name in open_files(service) if name.endswith(path)]


def test_the_page_can_be_had_where_no_descriptor_is_left(service):
    paths = ("/", "/static/page.js", "/static/page.css", "/static/icon.svg")
    assert service.get("/livez").status_code == 200, "there is a connection"
    pid, limit = service.info["service"], resource.RLIMIT_NOFILE
    before = resource.prlimit(pid, limit)
    resource.prlimit(pid, limit, (3, before[1]))
    try:
        assert [service.get(path).status_code for path in paths] == [200] * len(paths)
    finally:
        resource.prlimit(pid, limit, before)


def test_nothing_can_be_changed_here(service):
    assert 'data-control="off"' in service.get("/").text
    assert service.client.put("/control/gogc", content="200").status_code == 404


def test_readings_go_on_while_the_world_is_stopped(service):
    service.tell("ready")
    service.tell("stop")
    with stream(service) as found:
        first, second = frames(found, 2)
        assert (first["state"], second["state"]) == ("stopped", "stopped")
        assert second["uptime_s"] > first["uptime_s"]
        service.tell("start")
        assert frames(found, 2)[1]["state"] == "running"


def test_ten_streams_and_ten_scrapers_at_once(service):
    got, scraped = [], []

    def follow():
        with stream(service) as found:
            got.append([frame["now"] for frame in frames(found, 2)])

    def scrape():
        scraped.extend(httpx.get(f"{service.info['url']}metrics", timeout=10).status_code for _ in range(2))

    threads = [threading.Thread(target=task) for task in (follow, scrape) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert scraped == [200] * 20
    assert len(got) == 10
    assert all(times == sorted(set(times)) for times in got)
    assert len({time for times in got for time in times}) <= 10, "twenty, if each had readings of its own"


def test_one_too_many_is_told_so_and_gets_a_place_when_another_leaves(service):
    before = sockets(service)
    url = httpx.URL(service.info["url"])
    clients = [socket.create_connection((url.host, url.port)) for _ in range(MAX_FOLLOWERS)]
    for client in clients:
        client.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
    for client in clients:
        client.recv(1)
    refused = service.get("/live")
    assert (refused.status_code, refused.text) == (503, f"{MAX_FOLLOWERS} pages are open already: close one\n")
    clients.pop().close()
    wait_until(lambda: service.client.head("/live").status_code == 200)
    for client in clients:
        client.close()
    wait_until(lambda: sockets(service) <= before + 1)


def test_who_reads_nothing_is_cut_off_and_holds_up_nobody(service, request):
    before = sockets(service)
    url = httpx.URL(service.info["url"])
    sleeper = socket.socket()
    request.addfinalizer(sleeper.close)
    sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sleeper.connect((url.host, url.port))
    sleeper.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_until(lambda: sockets(service) == before + 1)
    began = time.monotonic()
    with stream(service) as found:
        assert len(frames(found, 2)) == 2, "others do not wait for it"
    wait_until(lambda: sockets(service) <= before, 5 * UNREAD_S)
    assert time.monotonic() - began > UNREAD_S / 2


def test_all_metrics_are_told_with_what_their_descriptions_say(service):
    answer = httpx.get(f"{service.info['url']}live/metrics", timeout=10)
    told = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert abs(told["now"] / 1e3 - time.time()) < 5
    of_table = {metric.name: metric for metric in TABLE}
    rows = {row["name"]: row for row in told["rows"]}
    assert {
        "/gc/heap/live:bytes",
        "go_gc_duration_seconds",
        "gomp_mapped_bytes",
        "/sched/latencies:seconds",
    } <= rows.keys()
    for name, row in rows.items():
        metric = of_table[name]
        assert (row["kind"], row["unit"], row["help"], row["plot"]) == (
            metric.kind,
            metric.unit,
            metric.help,
            metric.plot,
        )
        assert (metric.plot == "quantiles") == isinstance(row["value"], dict)
