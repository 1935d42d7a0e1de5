"""The service among clients that mean it no good, and beside a coordinator that does not answer: scrapes and probes go on."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from served import Service, environment_in
from service_stand_in import StandIn
from starlette.applications import Starlette
from starlette.requests import Request

from gomp.service import answers, app, control, logs, pprof, process, trace
from gomp.service.live import routes
from gomp.service.live.feed import MAX_FOLLOWERS, Feed
from gomp.service.live.routes import Page
from gomp.service.live.routes import routes as live_routes
from gomp.service.server import Complaints
from gomp.service.shared import Shared

REQUEST_S = 0.3
MOST_CONNECTIONS = 8


# --- a service whose coordinator stands still -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, compiled_kernels: None) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("hostile")
    (directory / "service.toml").write_text("metrics_port = 0\nprocs = 1\n")
    made = Service(directory / "service.toml", environment_in(directory))
    yield made
    made.close()


@pytest.fixture
def still(service: Service) -> Iterator[Service]:
    service.process.send_signal(signal.SIGSTOP)
    yield service
    service.process.send_signal(signal.SIGCONT)


def connect(url: str | httpx.URL) -> socket.socket:
    parts = httpx.URL(url)
    return socket.create_connection((parts.host, parts.port or 0), timeout=10)


def ask(url: str | httpx.URL, path: str) -> socket.socket:
    asked = connect(url)
    asked.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return asked


def status(asked: socket.socket) -> int:
    head = asked.recv(1 << 16)
    return int(head.split()[1])


def test_who_needs_a_coordinator_that_stands_still_holds_up_nobody_else(still: Service) -> None:
    url = still.client.base_url
    asked = [
        ask(url, path) for path in ["/debug/trace"] * 40 + ["/debug/pprof/heap?gc=1", "/debug/pprof/goroutineleak"] * 15
    ]
    time.sleep(0.2)
    began = time.monotonic()
    quick = [
        "/metrics", "/livez", "/readyz", "/", "/static/page.js", "/live/metrics", "/debug/pprof/", "/debug/pprof/heap",
        "/debug/pprof/allocs?debug=1", "/debug/pprof/goroutine?debug=2", "/debug/pprof/profile?seconds=1",
    ]  # fmt: skip
    assert {path: still.client.get(path).status_code for path in quick} == dict.fromkeys(quick, 200)
    assert time.monotonic() - began < 5
    refused = [s for s in asked if _has_answer(s)]
    assert len(refused) >= 38 + 21, "all but those that are served, and wait"
    assert {status(s) for s in refused} == {503}
    for s in asked:
        s.close()


def _has_answer(asked: socket.socket) -> bool:
    asked.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        return bool(asked.recv(1, socket.MSG_PEEK))
    return False


def test_after_that_everything_is_served_again(service: Service) -> None:
    deadline = time.monotonic() + 10
    for path in ("/debug/trace?seconds=0.01", "/debug/pprof/heap?gc=1"):
        while (
            answer := service.client.get(path)
        ).status_code != 200:  # until those who have left are forgotten, one by one
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.05)


def test_so_many_profiles_of_some_seconds_and_no_more(service: Service) -> None:
    asked = [ask(service.client.base_url, "/debug/pprof/heap?seconds=600") for _ in range(9)]
    time.sleep(0.3)
    answered = [s for s in asked if _has_answer(s)]
    assert [status(s) for s in answered] == [429]
    for s in asked:
        s.close()
    deadline = time.monotonic() + 10
    while service.client.get("/debug/pprof/heap?seconds=1").status_code != 200:
        assert time.monotonic() < deadline


@pytest.mark.parametrize("path", ["trace?seconds=30", "pprof/profile?seconds=30", "pprof/heap?seconds=30&gc=1"])
def test_head_records_nothing(service: Service, path: str) -> None:
    began = time.monotonic()
    answer = service.client.head(f"/debug/{path}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert time.monotonic() - began < 2


def test_a_coordinator_that_does_not_answer_in_time_is_said_so(
    still: Service, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (directory,) = tmp_path_factory.getbasetemp().glob("hostile[0-9]*")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    monkeypatch.setattr(pprof, "ANSWER_S", 0.2)
    (name,) = [file.stem for file in Path(directory, "gomp").glob("*.lock")]

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app.make_app(Shared(name), Page(name, "off")))
        async with httpx.AsyncClient(transport=transport, base_url="http://served") as client:
            return await client.get("/debug/pprof/heap?gc=1")

    answer = asyncio.run(get())
    assert (answer.status_code, answer.text) == (503, f"the runtime {name} did not answer within 0.2 s\n")


@pytest.mark.parametrize(
    "make", [lambda shared: app.make_app(shared, Page("x", "off")), lambda shared: control.make_app(shared, None)]
)
def test_that_no_descriptor_is_left_is_said_in_a_line(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[Shared], Starlette]
) -> None:
    def read() -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    shared = Shared("x")
    monkeypatch.setattr(shared.profiles, "prepare", lambda *_, **__: asyncio.to_thread(read))

    async def get() -> list[httpx.Response]:
        transport = httpx.ASGITransport(make(shared))
        async with httpx.AsyncClient(transport=transport, base_url="http://served") as client:
            return [await client.get(path) for path in ("/debug/pprof/goroutine?debug=1", "/control/goroutines")]

    (answer,) = [answer for answer in asyncio.run(get()) if answer.status_code != 404]
    assert answer.status_code == 503
    assert os.strerror(errno.EMFILE) in answer.text


def test_that_nobody_can_be_accepted_is_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = []

    def accept(_: socket.socket) -> None:
        tries.append(time.monotonic())
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def serve() -> None:
        asyncio.get_running_loop().set_exception_handler(Complaints())
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()):
            while not tries:
                await asyncio.sleep(0.01)
        server.close()

    monkeypatch.setattr(socket.socket, "accept", accept)
    asyncio.run(asyncio.wait_for(serve(), 10))
    assert [(record.getMessage(), record.exc_info) for record in caplog.records] == [
        (f"nobody can connect: {os.strerror(errno.EMFILE)}; raise `ulimit -n`", None)
    ]


# --- connections ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> Iterator[StandIn]:
    made = StandIn(REQUEST_S=REQUEST_S, MOST_CONNECTIONS=MOST_CONNECTIONS)
    yield made
    made.close()


def is_closed(connection: socket.socket, within_s: float) -> bool:
    connection.settimeout(within_s)
    try:
        return connection.recv(1 << 16) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def is_cut_off(connection: socket.socket, data: bytes, within_s: float) -> bool:
    """Whether that happens while it goes on to send a little."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            connection.sendall(data)
        except ConnectionError:
            return True
        time.sleep(0.05)
    return False


def test_who_asks_for_nothing_or_too_slowly_is_cut_off(small: StandIn) -> None:
    with connect(small.info["url"]) as silent, connect(small.info["url"]) as slow:
        began = time.monotonic()
        assert is_cut_off(slow, b"G", 10)
        assert time.monotonic() - began > REQUEST_S / 2
        assert is_closed(silent, 2)


def test_who_sends_the_rest_of_a_request_for_ever_is_cut_off(small: StandIn) -> None:
    with connect(small.info["url"]) as slow:
        slow.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        assert status(slow) == 200
        assert is_cut_off(slow, b"x", 10)


def test_a_scrape_gets_in_among_idle_connections(small: StandIn) -> None:
    idle = [connect(small.info["url"]) for _ in range(4 * MOST_CONNECTIONS)]
    assert small.get("/metrics").status_code == 200
    assert status(idle[0]) == 503
    for connection in idle:
        connection.close()


def test_where_all_connections_are_in_use_another_is_told_so(small: StandIn) -> None:
    streams = [ask(small.info["url"], "/live") for _ in range(MOST_CONNECTIONS)]
    assert [status(stream) for stream in streams] == [200] * MOST_CONNECTIONS
    with connect(small.info["url"]) as another:
        answer = another.recv(1 << 16).decode()
    assert answer.startswith("HTTP/1.1 503 ")
    assert answer.endswith("\r\n\r\nall connections of this service are in use: close some\n")
    for stream in streams:
        stream.close()


def test_a_stream_lasts_longer_than_a_request_may_take(small: StandIn) -> None:
    with httpx.stream("GET", f"{small.info['url']}live", timeout=10) as answer:
        began = time.monotonic()
        for _ in answer.iter_lines():
            if time.monotonic() - began > 2 * REQUEST_S:
                break
    assert time.monotonic() - began > 2 * REQUEST_S


def test_a_command_line_that_is_not_there_is_a_line(small: StandIn) -> None:
    small.tell("coordinator 999999999")
    answer = small.get("/debug/pprof/cmdline")
    assert (answer.status_code, answer.text.count("\n")) == (503, 1)


# --- parts ------------------------------------------------------------------------------------------------------------


def test_what_an_editor_has_left_beside_the_pages_files_is_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    static = tmp_path / "static"
    static.mkdir()
    for name in ("page.js", "page.js~", ".page.js.swp"):
        (static / name).write_text("x")
    (static / ".#page.js").symlink_to("somebody@somewhere.42")
    monkeypatch.setattr(routes, "_HERE", tmp_path)
    assert [name for name, _ in routes._read_files()] == ["page.js"]


@pytest.mark.usefixtures("mapped")
def test_of_pages_that_come_at_once_none_gets_an_empty_stream() -> None:
    feed, shared = Feed(), Shared("x")

    async def come() -> list[int]:
        app = Starlette(routes=live_routes(Page("x", "off"), feed, shared.scrapes))
        scope = {"type": "http", "method": "GET", "path": "/live", "headers": [], "query_string": b""}
        started: list[int] = []

        async def follow() -> None:
            has_begun = asyncio.Event()

            async def receive() -> dict[str, str]:
                await has_begun.wait()
                return {"type": "http.disconnect"}

            async def send(message: dict[str, object]) -> None:
                if message["type"] == "http.response.start":
                    started.append(int(str(message["status"])))
                    await asyncio.sleep(0.05)
                    has_begun.set()

            await app(scope, receive, send)

        await asyncio.gather(*(follow() for _ in range(MAX_FOLLOWERS + 5)))
        return started

    started = asyncio.run(asyncio.wait_for(come(), 10))
    assert sorted(started) == [200] * MAX_FOLLOWERS + [503] * 5
    assert not feed.is_full


def test_a_large_answer_is_sent_as_fast_as_it_is_taken_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "SEND_S", 0.2)
    taken, ended = [], []

    async def give() -> None:
        async def receive() -> dict[str, str]:
            await asyncio.sleep(10)
            return {"type": "http.disconnect"}

        async def send(message: dict[str, object]) -> None:
            taken.append(len(bytes(message.get("body", b""))))
            await asyncio.sleep(0.05)

        answer = answers.sent(bytes(answers.PIECE * 100), "text/plain", {}, lambda: ended.append(True))
        await answer({"type": "http", "method": "GET"}, receive, send)

    began = time.monotonic()
    asyncio.run(give())
    assert time.monotonic() - began < 2
    assert max(taken) == answers.PIECE
    assert 1 < len(taken) < 20
    assert ended == [True]


def test_who_does_not_take_a_trace_gives_up_its_turn_when_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    class Recorded:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def pieces(self) -> Iterator[str]:
            return iter(["x"] * 10)

        def close(self) -> None:
            ended.append(time.monotonic())

    monkeypatch.setattr(trace, "Recording", Recorded)
    monkeypatch.setattr(trace, "choose", str)
    monkeypatch.setattr(trace, "SEND_S", 0.2)
    (route,) = trace.routes("x")
    scope = {"type": "http", "method": "GET", "path": "/debug/trace", "headers": [], "query_string": b"seconds=0.1"}

    async def never(*_: object) -> dict[str, str]:
        await asyncio.sleep(10)
        return {"type": "http.disconnect"}

    began = time.monotonic()
    asyncio.run(Starlette(routes=[route])(scope, never, never))
    assert len(ended) == 1
    assert 0.2 < ended[0] - began < 5


def test_texts_are_made_one_at_a_time_and_hold_up_no_file() -> None:
    now, most, made = 0, 0, []

    def make_text() -> bytes:
        nonlocal now, most
        now += 1
        most = max(most, now)
        time.sleep(0.05)
        now -= 1
        made.append("text")
        return b""

    def make_file() -> bytes:
        made.append("file")
        return b""

    async def make() -> None:
        profiles, request = pprof.Profiles("x"), Request({"type": "http"}, lambda: asyncio.sleep(10))
        texts = [asyncio.ensure_future(profiles.send_text(request, make_text, "")) for _ in range(3)]
        await asyncio.sleep(0.02)
        await profiles.send(request, make_file, "")
        await asyncio.gather(*texts)

    asyncio.run(asyncio.wait_for(make(), 10))
    assert most == 1
    assert made.index("file") <= 1


def test_a_log_socket_for_which_there_is_no_descriptor_is_done_without(caplog: pytest.LogCaptureFixture) -> None:
    coordinator, service = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with coordinator, service, open(os.devnull) as file:
        socket.send_fds(coordinator, [process.LOG_MESSAGE], [file.fileno()])
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        fill = [os.dup(file.fileno()) for _ in range(64)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(fill), limits[1]))
        try:
            with caplog.at_level(logging.WARNING):
                assert process._obey_next(service, logs.Receivers())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for fd in fill:
                os.close(fd)
        assert "raise `ulimit -n`" in caplog.text
        coordinator.close()
        assert not process._obey_next(service, logs.Receivers()), "it ends with the coordinator all the same"


def test_many_scrapers_are_all_served(small: StandIn) -> None:
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: httpx.get(f"{small.info['url']}metrics", timeout=10).status_code, range(24)))
    assert found == [200] * 24
