"""What strangers may do to a running runtime through its socket: nothing."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
from collections.abc import Iterator

import pytest

import gomp
from gomp.runtime import discovery
from gomp.runtime.attach import _borrow
from gomp.runtime.channel import MAX_HEADER, Channel, Message
from gomp.runtime.requests import fault


@pytest.fixture(scope="module")
def rt() -> Iterator[gomp.Runtime]:
    with gomp.Runtime(procs=1, max_heap="64MiB") as runtime:
        yield runtime


@contextlib.contextmanager
def stranger(rt: gomp.Runtime) -> Iterator[Channel]:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(discovery.directory() / f"{rt.name}.sock"))
    channel = Channel(sock)
    yield channel
    channel.close()


def frame(header: bytes) -> bytes:
    return struct.pack("<II", len(header), 0) + header


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n", frame(b"[]"), frame(b"\xff"), frame(b'{"op": []}'), frame(b"[" * MAX_HEADER)],
    ids=["http", "list", "bytes", "no_op", "nested"],
)
def test_who_does_not_speak_the_protocol_is_disconnected(rt: gomp.Runtime, data: bytes) -> None:
    with stranger(rt) as channel:
        channel.sock.setblocking(True)
        channel.sock.sendall(data)
        assert channel.sock.recv(1) == b""
    assert rt.run(len, "abc") == 3


@pytest.mark.parametrize(
    "header",
    [
        {"op": "x" * 100_000},
        {"op": "go"},
        {"op": "go", "name": "f"},
        {"op": "go", "name": ["f"], "request": 1},
        {"op": "go", "name": "f" * 1000, "request": 1},
        {"op": "verify"},
        {"op": "verify", "level": "x"},
        {"op": "done", "g": 1, "ok": True},
        {"op": "trace", "ms": 10**399},
        {"op": "trace", "ms": 0},
        {"op": "looked", "n": 1, "state": "still", "changes": 1, "why": "", "waits": [1]},
        {"op": "looked", "n": 1, "state": "still", "changes": 1, "why": "", "waits": [["1", 1]]},
    ],
    ids=lambda header: json.dumps(header)[:50],
)
def test_a_request_that_cannot_be_served_is_answered(rt: gomp.Runtime, header: dict[str, object]) -> None:
    with stranger(rt) as channel:
        channel.send(**header)  # type: ignore[arg-type]
        answer = channel.next(5.0)
    assert answer is not None
    assert answer.op == "error"
    assert len(answer["text"]) < 300
    assert rt.run(len, "abc") == 3


def test_an_answer_has_the_number_of_its_request(rt: gomp.Runtime) -> None:
    with stranger(rt) as channel:
        channel.send("verify", level=1, request=7)
        channel.send("verify", request=8)
        channel.send("stats", request="nine")
        channel.send("stats")
        answers = [channel.next(5.0) for _ in range(4)]
    assert [a and (a.op, a.fields.get("request")) for a in answers] == [
        ("verify", 7), ("error", 8), ("error", None), ("stats", None),
    ]  # fmt: skip


def test_an_answer_that_would_be_too_large_is_refused(rt: gomp.Runtime) -> None:
    """What a header of the largest size has told takes more to be told again: JSON escapes it."""
    told = json.dumps({"op": "declare", "key": 1, "pickle": "é" * 400_000}, ensure_ascii=False).encode()
    with stranger(rt) as channel:
        channel.sock.setblocking(True)
        channel.sock.sendall(frame(told))
        channel.sock.setblocking(False)
        channel.send("declared", key=1, request=2)
        answer = channel.next(5.0)
    assert answer is not None
    assert (answer.op, answer["request"]) == ("error", 2)
    assert answer["text"].startswith("declared: the header of a message 'declared' has 2,400,")
    assert rt.run(len, "abc") == 3


def test_a_p_may_say_more_than_a_stranger() -> None:
    done = Message("done", {"g": 1, "ok": True})
    assert fault(done, from_p=True) == ""
    assert fault(done, from_p=False) == "unknown request 'done'"


def test_a_p_does_not_attach_nor_leave() -> None:
    for message in (Message("attach", {"build": "", "wait": True}), Message("leave")):
        assert fault(message, from_p=False) == ""
        assert fault(message, from_p=True) == f"unknown request {message.op!r}"


def test_descriptors_that_a_stranger_sends_are_not_kept(rt: gomp.Runtime) -> None:
    with stranger(rt) as channel:
        channel.send("stats")
        assert channel.next(5.0)
        held = os.listdir(f"/proc/{rt._process.pid}/fd")
        channel.send("stats", descriptors=[0] * 8)
        assert channel.next(5.0)
        assert os.listdir(f"/proc/{rt._process.pid}/fd") == held


@pytest.mark.parametrize(
    "request_", [b'{"op": "stats", "x": "%s"}' % (b"x" * 500), b'{"op": "?"}'], ids=["stats", "nonsense"]
)
def test_who_asks_and_does_not_listen_is_not_listened_to(rt: gomp.Runtime, request_: bytes) -> None:
    with stranger(rt) as channel:
        burst, asked = frame(request_) * 100, 0
        while asked < 8 << 20 and select.select([], [channel], [], 1.0)[1]:
            with contextlib.suppress(BlockingIOError):
                asked += channel.sock.send(burst[asked % len(burst) :])
        assert asked < 4 << 20
        assert rt.run(len, "abc") == 3
        whole, answers = asked // len(frame(request_)), 0
        while answers < whole and channel.next(5.0):
            answers += 1 + len(channel.receive() if channel.has_unheard else [])
        assert answers == whole
    assert rt.run(len, "abc") == 3


def test_more_strangers_than_a_runtime_has_room_for_are_told_so(rt: gomp.Runtime) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(64 + 8 - 1):  # as many as may be attached, and 64; one is the script's
            stack.enter_context(stranger(rt))
        client = stack.enter_context(discovery.connect(rt.name))
        joins = stack.enter_context(contextlib.closing(discovery.open_channel(rt.name)))
        for ask in (client.stats, lambda: _borrow(joins, rt.name, 0)):
            with pytest.raises(gomp.GompError, match=r"^the runtime has 72 connections already$"):
                ask()
        assert rt.run(len, "abc") == 3


@pytest.mark.parametrize("name", [5, None, ["x"], True])
def test_a_name_that_nobody_asked_for_is_not_looked_at(name: object) -> None:
    assert fault(Message("stats", {"name": name}), from_p=False) == ""


@pytest.mark.parametrize("op", ["started", "done"])
def test_a_truth_is_no_number(op: str) -> None:
    assert fault(Message(op, {"g": True, "ok": True}), from_p=True) == f"{op!r} needs g, of type int"
