"""Settings that are changed from outside: over the service's control listener, by HTTP and by ``gomp ctl``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import threading

import httpx
import pytest
from served import Service, environment_in, gomp
from starlette.datastructures import URL
from starlette.requests import Request

from gomp.service import control
from gomp.service.shared import Shared

CONFIG = """
name = "controlled"
procs = 1
metrics_port = 0
max_heap = "128MiB"
programs = []
"""


IN_FORCE = {
    "gogc": 100, "memory_limit": "off", "memory_limit_is_auto": True, "procs": 1, "procs_are_auto": False, "num_gc": 0,
}  # fmt: skip


def config_in(directory):
    file = directory / "service.toml"
    file.write_text(CONFIG)
    return file


@pytest.fixture
def config(tmp_path):
    return config_in(tmp_path)


@pytest.fixture
def serve(environment, config):
    started = []

    def start(*flags):
        started.append(Service(config, environment, *flags))
        return started[-1]

    yield start
    for service in started:
        service.close()


@pytest.fixture
def token_file(tmp_path):
    file = tmp_path / "token"
    file.write_text("a-long-random-word\n")
    file.chmod(0o600)
    return file


def control_socket(tmp_path):
    return tmp_path / "gomp" / "controlled.control"


def client_over_socket(directory):
    transport = httpx.HTTPTransport(uds=str(control_socket(directory)))
    return httpx.Client(base_url="http://gomp", transport=transport, timeout=30)


@pytest.fixture
def over_socket(serve, tmp_path):
    service = serve()
    with client_over_socket(tmp_path) as client:
        client.service = service
        yield client


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory, compiled_kernels):
    """As ``over_socket``, of one service for all who change nothing."""
    directory = tmp_path_factory.mktemp("unchanged")
    service = Service(config_in(directory), environment_in(directory))
    with client_over_socket(directory) as client:
        client.service = service
        yield client
    service.close()


@pytest.fixture
def changes_nothing(unchanged):
    before = unchanged.get("/control").json()
    assert before == IN_FORCE
    yield unchanged
    assert unchanged.get("/control").json() == before


def test_a_change_is_in_force_and_seen_by_prometheus(over_socket):
    assert over_socket.put("/control/gogc", content="250").json() == {"old": 100, "new": 250}
    assert over_socket.put("/control/memory-limit", json={"value": "96MiB"}).json() == {"old": "off", "new": 96 << 20}
    form = {"content-type": "application/x-www-form-urlencoded"}  # as curl -d has it
    assert over_socket.put("/control/gogc", content='{"value": 250}', headers=form).json() == {"old": 250, "new": 250}
    samples = over_socket.service.samples()
    assert samples["go_gc_gogc_percent",] == 250
    assert samples["go_gc_gomemlimit_bytes",] == 96 << 20
    assert over_socket.get("/control").json() == IN_FORCE | {
        "gogc": 250,
        "memory_limit": 96 << 20,
        "memory_limit_is_auto": False,
    }


def test_every_change_is_logged_with_what_it_was(over_socket):
    over_socket.put("/control/gogc", content="off")
    _, _, log = over_socket.service.end(signal.SIGTERM)
    assert "gogc is off now; it was 100" in log


def test_a_collection_is_over_when_it_is_answered(over_socket):
    before = over_socket.get("/control").json()["num_gc"]
    assert over_socket.post("/control/gc").json() == {"num_gc": before + 1}
    assert over_socket.service.samples()["go_gc_cycles_forced_gc_cycles_total",] == before + 1


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("gogc", {"content": "many"}, "write a whole percentage"),
        ("gogc", {"content": ""}, "write a whole percentage"),
        ("gogc", {"content": str(1 << 40)}, "gogc: "),
        ("gogc", {"json": {"value": True}}, "write a number or a text"),
        ("gogc", {"json": [100]}, 'write {"value": ...}'),
        ("gogc", {"content": "[" * 1024, "headers": {"content-type": "application/json"}}, 'write {"value": ...}'),
        ("gogc", {"content": "{", "headers": {"content-type": "application/json"}}, 'write {"value": ...}'),
        ("memory-limit", {"content": "1GB"}, "as 512MiB, or auto, or off"),
        ("memory-limit", {"content": "-1"}, "as 512MiB, or auto, or off"),
        ("memory-limit", {"json": {"value": 1.5}}, "as 512MiB, or auto, or off (not 1.5)"),
        ("procs", {"content": "0"}, "there is 1 P at least"),
        ("procs", {"content": "some"}, 'write a number of Ps, or "auto"'),
    ],
)
def test_a_wrong_value_is_one_sentence_and_changes_nothing(changes_nothing, path, body, sentence):
    answer = changes_nothing.put(f"/control/{path}", **body)
    assert answer.status_code == 422
    assert sentence in answer.json()["error"]


def test_a_body_that_is_too_long_is_not_read(changes_nothing):
    assert changes_nothing.put("/control/gogc", content="1" * 5000).status_code == 413


def test_only_the_methods_there_are(changes_nothing):
    assert changes_nothing.delete("/control/gogc").status_code == 405
    assert changes_nothing.get("/control/gc").status_code == 405
    assert changes_nothing.get("/control/nothing").status_code == 404


def test_who_may_scrape_may_not_control(changes_nothing):
    metrics = changes_nothing.service.client
    assert metrics.get("/control").status_code == 404
    assert metrics.put("/control/gogc", content="50").status_code == 404


def test_two_at_once_are_both_answered(over_socket, tmp_path):
    answers = []

    def put(value):
        with client_over_socket(tmp_path) as client:
            answers.append(client.put("/control/gogc", content=value).json())

    threads = [threading.Thread(target=put, args=(value,)) for value in ("150", "300")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = sorted(answers, key=lambda answer: answer["old"] != 100)
    assert (first["old"], second["old"]) == (100, first["new"])


def test_the_socket_is_its_users_alone_and_goes_with_the_service(over_socket, serve, tmp_path):
    path = control_socket(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    over_socket.service.end(signal.SIGTERM)
    assert not path.exists()


def test_what_a_killed_service_left_is_replaced(serve, tmp_path):
    serve().process.kill()
    assert control_socket(tmp_path).exists()
    serve()
    with client_over_socket(tmp_path) as client:
        assert client.get("/control").status_code == 200


def test_a_port_wants_the_token(serve, environment, token_file, tmp_path):
    serve("--control", "tcp", "--control-port", "0", "--control-token-file", str(token_file))
    url = json.loads((tmp_path / "gomp" / "controlled.json").read_text())["control"]
    assert url.startswith("http://127.0.0.1:")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic a-long-random-word"}):
        answer = httpx.put(f"{url}control/gogc", content="50", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    right = {"Authorization": "Bearer a-long-random-word"}
    assert httpx.put(f"{url}control/gogc", content="50", headers=right).json() == {"old": 100, "new": 50}
    done = gomp(environment, "ctl", "gogc", "75", "--url", url, "--token-file", str(token_file))
    assert (done.returncode, done.stdout) == (0, "gogc is 75 now; it was 50\n")
    refused = gomp(environment, "ctl", "gogc", "80", "--url", url)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("host", ["x/?", "x/static/?", "["])
@pytest.mark.parametrize(("method", "path"), [("GET", "/control"), ("POST", "/control/gc"), ("PUT", "/control/gogc")])
def test_what_a_client_says_the_host_is_spares_nobody_the_token(monkeypatch, host, method, path):
    said = property(lambda request: URL(f"http://{request.headers['host']}{request.scope['path']}"))
    monkeypatch.setattr(Request, "url", said)  # as versions of the library make it
    monkeypatch.setattr(control, "_in_force", dict)
    transport = httpx.ASGITransport(control.make_app(Shared("x"), b"a-long-random-word"))

    async def ask():
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.request(method, path, headers={"Host": host})

    assert asyncio.run(ask()).status_code == 401


@pytest.mark.parametrize(
    ("mode", "text", "sentence"),
    [(0o644, "word", "with mode 0600"), (0o600, " \n", "is empty"), (None, "", "cannot read")],
)
def test_a_token_that_others_know_is_refused(environment, config, tmp_path, mode, text, sentence):
    file = tmp_path / "token"
    if mode is not None:
        file.write_text(text)
        file.chmod(mode)
    done = gomp(environment, "serve", "--config", str(config), "--control", "tcp", "--control-token-file", str(file))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert sentence in done.stderr


def test_a_port_without_a_token_is_refused(environment, config):
    done = gomp(environment, "serve", "--config", str(config), "--control", "tcp")
    assert done.returncode == 2
    assert "needs control_token_file" in done.stderr


def test_ctl_does_the_same_from_the_shell(serve, environment):
    serve()
    for arguments, text in (
        (("gogc", "400"), "gogc is 400 now; it was 100"),
        (("gogc", "off"), "gogc is off now; it was 400"),
        (("gogc", "-1"), "gogc is off now; it was off"),
        (("show",), "gogc is off, memory_limit is off (auto), procs is 1, num_gc is 0"),
        (("memory-limit", "64MiB", "--name", "controlled"), "memory_limit is 67108864 bytes (64 MiB) now; it was off"),
        (("procs", "1"), "procs is 1 now; it was 1"),
        (("gc",), "collected; 1 cycles so far"),
        (("show",), "gogc is off, memory_limit is 67108864 bytes (64 MiB), procs is 1, num_gc is 1"),
        (("--name", "controlled", "gogc", "-1"), "gogc is off now; it was off"),
        (("goroutines",), "there are no goroutines"),
    ):
        done = gomp(environment, "ctl", *arguments)
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, text, "")
    done = gomp(environment, "ctl", "show", "--json")
    assert json.loads(done.stdout) == IN_FORCE | {
        "gogc": "off", "memory_limit": 64 << 20, "memory_limit_is_auto": False, "num_gc": 1
    }  # fmt: skip
    leaked = gomp(environment, "ctl", "goroutines", "--leaked")
    assert leaked.stdout == "no goroutine waits for ever\n"


def test_what_every_command_of_ctl_takes_may_stand_before_it(environment):
    for arguments in (("--name", "nobody", "show"), ("--name", "somebody", "gogc", "100", "--name", "nobody")):
        done = gomp(environment, "ctl", *arguments)
        assert (done.returncode, done.stderr) == (
            2,
            "gomp: no runtime named nobody is running: `gomp ls` lists them\n",
        )
    alone = gomp(environment, "ctl")
    assert (alone.returncode, alone.stderr) == (0, "")
    assert "memory-limit" in alone.stdout


def test_ctl_says_in_one_line_what_is_wrong(serve, environment):
    none = gomp(environment, "ctl", "gc")
    assert (none.returncode, none.stderr) == (2, "gomp: no runtime is running: start one with `gomp serve`\n")
    gone = gomp(environment, "ctl", "gc", "--url", "http://127.0.0.1:9/")
    assert (gone.returncode, gone.stderr.count("\n")) == (1, 1)
    serve("--control", "off")
    off = gomp(environment, "ctl", "gogc", "50")
    assert (off.returncode, off.stderr.count("\n")) == (2, 1)
    assert "takes no changes" in off.stderr


def test_ctl_refuses_a_wrong_value(serve, environment):
    serve()
    for setting, value, told in (
        ("memory-limit", "1GB", "memory_limit: write a whole number of bytes"),
        ("memory-limit", "-5", "memory_limit: write a whole number of bytes"),
        ("gogc", "--nope", "gogc: write a whole percentage"),
    ):
        done = gomp(environment, "ctl", setting, value)
        assert done.returncode == 2
        assert done.stderr.startswith(f"gomp: {told}")
        assert os.linesep not in done.stderr[:-1]
