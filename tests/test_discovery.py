"""Runtimes found through their lock files and sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import gomp
from gomp.runtime import discovery
from gomp.runtime.channel import Channel
from gomp.runtime.discovery import Client, RuntimeInfo

WEB = RuntimeInfo("web", 2, 64 << 20, 77)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of runtimes of the test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return discovery.directory()


@pytest.fixture
def listener(directory: Path) -> Iterator[socket.socket]:
    """The socket of a runtime named web, which accepts nobody by itself."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(directory / "web.sock"))
        sock.listen(0)
        yield sock


@pytest.mark.parametrize(
    ("op", "fields", "error"),
    [
        ("lost", {"why": "P0 (pid 77) was killed by SIGKILL"}, gomp.WorkerDied),
        ("error", {"text": "P0 (pid 77) did not stop within 10 s"}, gomp.GompError),
    ],
)
def test_bad_news_is_raised_as_what_it_says(
    listener: socket.socket, op: str, fields: dict[str, str], error: type[Exception]
) -> None:
    with Client(WEB) as client:
        coordinator = Channel(listener.accept()[0])
        coordinator.send(op, **fields)
        with pytest.raises(error, match=r"P0 \(pid 77\) "):
            client.verify()
        coordinator.close()
