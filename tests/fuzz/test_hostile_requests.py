"""Requests of every kind to both listeners: each is answered, shortly, and with no failure of ours; after bytes that are no HTTP, too."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_stand_in import StandIn
from starlette.applications import Starlette

from gomp.service import app, control
from gomp.service.live.routes import Page
from gomp.service.shared import Shared

MOST_ANSWER = 1 << 20
ANSWER_S = 10.0
REFUSED = (503, 504)  # what needs a coordinator, where there is none
TOKEN = b"a-long-random-word"

few = settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
many = settings(max_examples=3000, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))


Request = tuple[str, str, bytes, list[tuple[bytes, bytes]], list[bytes]]


# --- what is asked ------------------------------------------------------------------------------------------------------

PATHS = [
    "/", "/metrics", "/livez", "/readyz", "/live", "/live/metrics", "/static/page.js", "/static/", "/static/../page.html",
    "/debug/pprof/", "/debug/pprof", "/debug/pprof/heap", "/debug/pprof/allocs", "/debug/pprof/goroutine", "/debug/pprof/goroutineleak",
    "/debug/pprof/cmdline", "/debug/pprof/profile", "/debug/pprof/trace", "/debug/trace", "/control", "/control/gogc", "/control/memory-limit",
    "/control/procs", "/control/gc", "/control/free-os-memory", "/control/goroutines",
]  # fmt: skip
words = st.text(max_size=12) | st.sampled_from(
    ["0", "1", "2", "true", "false", "-1", "nan", "1e-9", "9" * 5000, "x" * 5000, "\0", "\ud800", "٣"]
)
methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"]) | st.text(
    "ABCXYZ", min_size=1, max_size=9
)
paths = st.sampled_from(PATHS) | st.builds("{}/{}".format, st.sampled_from(PATHS), words) | words.map("/{}".format)
queries = st.dictionaries(st.sampled_from(["seconds", "debug", "gc", "now", "leaked"]) | words, words, max_size=3)
queries_of_bytes = queries.map(
    lambda found: "&".join(
        f"{quote(k, errors='replace')}={quote(v, errors='replace')}" for k, v in found.items()
    ).encode()
) | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30).map(str.encode)  # a server takes no others
headers = st.dictionaries(
    st.sampled_from(
        [
            b"accept",
            b"authorization",
            b"content-type",
            b"content-length",
            b"host",
            b"range",
            b"if-none-match",
            b"if-modified-since",
            b"accept-encoding",
        ]
    ),
    st.sampled_from(
        [
            b"application/json",
            b"application/openmetrics-text;version=abc",
            b"Bearer " + TOKEN,
            b"Bearer x",
            b"bytes=0-1,3-4,9999999999-",
            b"bytes=" + b"0-0," * 500,
        ]
    )
    | st.binary(max_size=30),
    max_size=4,
).map(lambda found: list(found.items()))
json_parts = st.sampled_from([b'{"value": ', b"100}", b'{"value": 100}', b"[" * 900, b"off", b"1" * 1000])
bodies = st.lists(
    st.binary(max_size=30) | words.map(lambda word: word.encode(errors="replace")) | json_parts, max_size=3
)


def takes_long(request: Request) -> bool:
    """A profile of some seconds and the stream of the live page: those are others' tests."""
    _, path, query, *_ = request
    return path.rstrip("/") in ("/live", "/debug/pprof/profile") or b"seconds" in query


# --- in process ---------------------------------------------------------------------------------------------------------


async def ask(make: Callable[[], Starlette], request: Request) -> tuple[int, int]:
    """The status of the answer and how long it is."""
    method, path, query, headers, body = request
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": path, "raw_path": path.encode(errors="replace"),
        "query_string": query, "root_path": "", "headers": headers, "client": ("127.0.0.1", 1), "server": ("x", 80),
    }  # fmt: skip
    parts = iter([*body, b""])
    status, size = [], 0

    async def receive() -> dict[str, Any]:
        part = next(parts, None)
        if part is None:
            await asyncio.sleep(ANSWER_S)
        return {"type": "http.request", "body": part or b"", "more_body": part != b""}

    async def send(message: dict[str, Any]) -> None:
        nonlocal size
        if message["type"] == "http.response.start":
            status.append(message["status"])
        size += len(message.get("body", b""))

    await asyncio.wait_for(make()(scope, receive, send), ANSWER_S)
    (only,) = status
    return only, size


def try_request(make: Callable[[], Starlette], request: Request) -> None:
    if not takes_long(request):
        status, size = asyncio.run(ask(make, request))
        assert 200 <= status < 500 or status in REFUSED
        assert size < MOST_ANSWER


LISTENERS: dict[str, Callable[[], Starlette]] = {
    "metrics": lambda: app.make_app(Shared("nobody"), Page("nobody", "off")),
    "control on a socket": lambda: control.make_app(Shared("nobody"), None),
    "control on a port": lambda: control.make_app(Shared("nobody"), TOKEN),
}


@pytest.fixture
def no_runtimes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


requests = st.tuples(methods, paths, queries_of_bytes, headers, bodies)


@pytest.mark.usefixtures("mapped", "no_runtimes")
@pytest.mark.parametrize("listener", LISTENERS)
def test_each_request_is_answered(listener: str) -> None:
    few(given(requests)(lambda request: try_request(LISTENERS[listener], request)))()


@pytest.mark.slow
@pytest.mark.usefixtures("mapped", "no_runtimes")
@pytest.mark.parametrize("listener", LISTENERS)
def test_each_of_many_requests_is_answered(listener: str) -> None:
    many(given(requests)(lambda request: try_request(LISTENERS[listener], request)))()


@pytest.mark.usefixtures("mapped", "no_runtimes")
@given(requests)
@few
def test_without_the_token_nothing_is_said_of_the_runtime(request: Request) -> None:
    method, path, query, headers, body = request
    others = [(name, value) for name, value in headers if TOKEN not in value]
    if path != "/" and not path.startswith("/static/"):
        status, _ = asyncio.run(ask(LISTENERS["control on a port"], (method, path, query, others, body)))
        assert status == 401


@pytest.mark.usefixtures("mapped", "no_runtimes")
@pytest.mark.parametrize(
    ("query", "host"), [(b"\x80", b"x"), (b"", b"x/static/"), (b"", b"x/static/?")], ids=["bytes", "path", "query"]
)
def test_which_path_it_is_hangs_on_nothing_else(query: bytes, host: bytes) -> None:
    """An address made of query, host and path would be of another path, or none at all."""
    request = ("GET", "/control", query, [(b"host", host)], [])
    assert asyncio.run(ask(LISTENERS["control on a port"], request))[0] == 401


# --- on a socket --------------------------------------------------------------------------------------------------------

lines = st.builds(
    "{} {} {}\r\n".format,
    methods,
    paths.map(lambda path: quote(path, errors="replace")),
    st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/9.9", ""]),
).map(str.encode)
fields = st.sampled_from(
    [
        b"Host: x\r\n", b"Host:\r\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Content-Length: " + b"9" * 40 + b"\r\n",
        b"Transfer-Encoding: chunked\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"Expect: 100-continue\r\n", b" folded\r\n", b"\r\n",
        b"X: LONG\r\n", b"5\r\nabcde\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n", b"\n\n", b"\0", b"GET /metrics/?\x80 HTTP/1.1\r\n",
    ]
)  # fmt: skip
streams = st.lists(lines | fields | st.binary(max_size=40), max_size=8).map(b"".join)


@pytest.fixture(scope="module")
def service() -> Iterator[StandIn]:
    made = StandIn(REQUEST_S=0.3)
    yield made
    made.close()


def try_stream(service: StandIn, data: bytes) -> None:
    url = httpx.URL(service.info["url"])
    with socket.create_connection((url.host, url.port), ANSWER_S) as client, contextlib.suppress(ConnectionError):
        client.sendall(data.replace(b"LONG", b"x" * 70_000))
        with contextlib.suppress(OSError):  # the service has closed it
            client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
        assert len(answer) < MOST_ANSWER
        assert b" 500 " not in answer.partition(b"\r\n")[0]
    assert service.get("/livez").text == "ok\n"


@given(data=streams)
@few
def test_after_bytes_that_are_no_http_it_still_answers(service: StandIn, data: bytes) -> None:
    try_stream(service, data)


@pytest.mark.slow
@given(data=streams)
@many
def test_after_many_bytes_that_are_no_http_it_still_answers(service: StandIn, data: bytes) -> None:
    try_stream(service, data)
