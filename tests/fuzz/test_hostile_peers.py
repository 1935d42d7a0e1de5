"""Both ends of the runtime's socket among peers that say anything: the coordinator serves on, and who attaches finds out."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gomp.core import COMPILED
from gomp.core.jit import cache_key
from gomp.core.shm import layout
from gomp.errors import GompError
from gomp.runtime import attach, current, discovery
from gomp.runtime.channel import MAX_HEADER, MAX_PAYLOAD, Channel
from gomp.runtime.requests import _CLIENT_FIELDS

if not COMPILED:
    pytest.skip("runs processes of its own", allow_module_level=True)

NAME = f"hostile-{os.getpid()}"
WAIT_S = 20.0

few = settings(max_examples=50, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
many = settings(max_examples=1000, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))


# --- what is said -------------------------------------------------------------------------------------------------------


def frame(header: bytes, payload: bytes = b"") -> bytes:
    return struct.pack("<II", len(header), len(payload)) + header + payload


numbers = st.integers(-2, 5) | st.sampled_from(
    [n + d for n in (1 << 15, 1 << 31, 1 << 32, 1 << 63, 1 << 64, 10**400) for d in (-1, 0, 1)]
    + [-(1 << 63), -(1 << 70)]
)
long_texts = st.sampled_from(["é", "x"]).map(lambda letter: letter * 400_000)
texts = st.text(max_size=12) | st.sampled_from(["\ud800", "gogc", "procs", "memory_limit"]) | long_texts
scalars = st.none() | st.booleans() | numbers | st.floats() | texts
junk = st.recursive(
    scalars,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=6), part, max_size=3),
    max_leaves=6,
)
RIGHT: dict[type, st.SearchStrategy[Any]] = {
    int: numbers,
    str: texts,
    bool: st.booleans(),
    list: st.lists(st.tuples(numbers, texts), max_size=3),
}


def request(op: str) -> st.SearchStrategy[dict[str, Any]]:
    """With its fields, which mostly have the right types, and perhaps others."""
    fields = {name: RIGHT[kind] for name, kind in _CLIENT_FIELDS[op].items()}
    right = st.fixed_dictionaries(fields) | st.fixed_dictionaries({"request": numbers, **fields})
    wrong = st.dictionaries(
        st.sampled_from([*sorted(_CLIENT_FIELDS[op]), "request", "op"]) | st.text(max_size=8), junk, max_size=3
    )
    return st.one_of(right, wrong).map(lambda fields: {"op": op, **fields})


def is_harmless(header: dict[str, Any]) -> bool:
    """A setting in range is no hostility: it would be in force for who comes next."""
    return (
        header["op"] != "set"
        or header.get("setting") not in ("procs", "gogc", "memory_limit")
        or header.get("value") == -2
    )


requests = st.sampled_from(sorted(_CLIENT_FIELDS)).flatmap(request).filter(is_harmless)
headers = (
    requests.map(lambda header: json.dumps(header).encode())
    | requests.map(lambda header: json.dumps(header, ensure_ascii=False).encode(errors="surrogatepass"))
    | junk.map(lambda header: json.dumps(header).encode())
    | st.binary(max_size=40)
)
frames = st.builds(frame, headers, st.binary(max_size=40))
cut = st.builds(lambda whole, n: whole[:n], frames, st.integers(0, 60))
sizes = st.integers(0, (1 << 32) - 1) | st.sampled_from([MAX_HEADER, MAX_HEADER + 1, MAX_PAYLOAD, MAX_PAYLOAD + 1])
lying = st.builds(
    lambda header_size, payload_size, rest: struct.pack("<II", header_size, payload_size) + rest,
    sizes,
    sizes,
    st.binary(max_size=40),
)
attaching = st.builds(
    lambda wait: frame(json.dumps({"op": "attach", "build": cache_key(), "wait": wait}).encode()), st.booleans()
)
pieces = st.tuples(frames | cut | lying | attaching | st.binary(max_size=60), st.integers(0, 8))
visits = st.lists(st.lists(pieces, min_size=1, max_size=5), min_size=1, max_size=3)


# --- a coordinator among strangers -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coordinator() -> Iterator[Path]:
    """Its directory in /proc."""
    script = Path(__file__).parent / "runtime_apart.py"
    process = subprocess.Popen(
        [sys.executable, str(script), NAME], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "here\n"
    yield Path(f"/proc/{discovery.choose(NAME).pid}")
    process.communicate(timeout=WAIT_S)
    assert process.returncode == 0


def descriptors(process: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for fd in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found[os.readlink(fd).partition(":")[0]] += 1
    return found


def visit(pieces: list[tuple[bytes, int]]) -> None:
    """Connect, say that, with so many descriptors, and no more; until the coordinator hangs up."""
    with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        sock.settimeout(WAIT_S)
        sock.connect(str(discovery.directory() / f"{NAME}.sock"))
        for data, n in pieces:
            sock.sendall(data[socket.send_fds(sock, [data], [0] * n) :])
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1 << 18):
            pass


def visit_as_another(pieces: list[tuple[bytes, int]]) -> None:
    """By a process of its own: who has been lent a P, and cannot be understood then, is killed."""
    pid = os.fork()
    if pid == 0:
        try:
            visit(pieces)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] in (0, signal.SIGKILL)


def try_visits(coordinator: Path, visits: list[list[tuple[bytes, int]]]) -> None:
    before = descriptors(coordinator)
    for pieces in visits:
        visit_as_another(pieces)
    with discovery.Client(discovery.choose(NAME), answer_s=WAIT_S) as client:
        assert client.stats().num_gc >= 0
        assert client.verify(3)["problems"] == []
    deadline = time.monotonic() + WAIT_S
    while descriptors(coordinator) != before:
        assert time.monotonic() < deadline, (before, descriptors(coordinator))
        time.sleep(0.002)


# --- who attaches, and a coordinator that is none -----------------------------------------------------------------------

MAPPED = range(layout.HEAP_BASE, layout.REGION["end"])
sized_files = st.sampled_from([0, 1, layout.ARENA_SIZE, layout.META_SIZE])
handed = st.lists(st.sampled_from(["null", "directory", "pipe"]) | sized_files, max_size=8)
answers = st.one_of(
    st.binary(max_size=40),
    headers.map(frame),
    st.fixed_dictionaries(
        {"op": st.sampled_from(["attach", "busy", "mismatch", "lost", "error", "ready"])},
        optional=dict.fromkeys(("text", "why", "gomp", "build"), junk)
        | {"p": numbers | junk, "heap_bytes": sized_files | junk, "backing": texts | junk, "name": texts | junk},
    ).map(lambda header: frame(json.dumps(header).encode()[:MAX_HEADER])),
)


def opened(what: str | int) -> int:
    match what:
        case int():
            fd = os.memfd_create("handed")
            os.ftruncate(fd, what)
            return fd
        case "pipe":
            ends = os.pipe()
            os.close(ends[1])
            return ends[0]
    return os.open("/dev/null" if what == "null" else "/", os.O_RDONLY)


def say(theirs: socket.socket, answer: bytes, fds: list[int]) -> None:
    with theirs, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        theirs.sendall(answer[socket.send_fds(theirs, [answer], fds) :])
        theirs.shutdown(socket.SHUT_WR)
        theirs.recv(1 << 18)


def mapped() -> set[str]:
    """What stands where a runtime's segments would: a test before this one may have left zeros there."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line for line in lines if int(line.partition("-")[0], 16) in MAPPED}


def try_to_attach(answer: bytes, handed: list[str | int]) -> None:
    before, mapped_before = descriptors(Path("/proc/self")), mapped()
    ours, theirs = socket.socketpair()
    fds = [opened(what) for what in handed]
    speaker = threading.Thread(target=say, args=(theirs, answer, fds))
    speaker.start()
    info = discovery.RuntimeInfo("a-fake", 1, layout.ARENA_SIZE, os.getpid())
    channel = Channel(ours, takes_descriptors=True)
    with (
        mock.patch.object(discovery, "choose", return_value=info),
        mock.patch.object(discovery, "open_channel", return_value=channel),
        pytest.raises(GompError) as caught,
    ):
        attach.attach("a-fake")
    assert str(caught.value)
    assert mapped() <= mapped_before
    assert not current.is_open()
    speaker.join()
    for fd in fds:
        os.close(fd)
    assert descriptors(Path("/proc/self")) == before


# --- a little by default and long with --run-slow ---------------------------------------------------------------------


@given(visits=visits)
@few
def test_a_coordinator_serves_on_whatever_strangers_say(
    coordinator: Path, visits: list[list[tuple[bytes, int]]]
) -> None:
    try_visits(coordinator, visits)


@pytest.mark.slow
@given(visits=visits)
@many
def test_a_coordinator_serves_on_after_many_strangers(coordinator: Path, visits: list[list[tuple[bytes, int]]]) -> None:
    try_visits(coordinator, visits)


@given(answers, handed)
@few
def test_who_attaches_to_what_is_no_runtime_is_told_so(answer: bytes, handed: list[str | int]) -> None:
    try_to_attach(answer, handed)


HANDED = {"op": "attach", "p": 0, "heap_bytes": layout.ARENA_SIZE, "backing": "memfd", "name": "a-fake"}


@pytest.mark.parametrize(
    ("header", "handed"),
    [
        ({"op": "mismatch"}, []),
        ({"op": "busy"}, []),
        ({"op": "look", "n": 1}, []),
        (HANDED, []),
        (HANDED | {"p": "0"}, [layout.ARENA_SIZE, layout.META_SIZE, "pipe"]),
        (HANDED, ["null", "directory", "pipe"]),
        (HANDED, [layout.ARENA_SIZE, 1, "pipe"]),
        (HANDED, [layout.ARENA_SIZE, layout.META_SIZE, "pipe"]),
    ],
    ids=[
        "half a mismatch",
        "half a refusal",
        "a question",
        "no descriptors",
        "a text",
        "no files",
        "a small file",
        "zeros",
    ],
)
def test_what_is_no_runtime_is_not_mapped(header: dict[str, Any], handed: list[str | int]) -> None:
    try_to_attach(frame(json.dumps(header).encode()), handed)


@pytest.mark.slow
@given(answers, handed)
@many
def test_who_attaches_to_many_that_are_no_runtimes_is_told_so(answer: bytes, handed: list[str | int]) -> None:
    try_to_attach(answer, handed)
