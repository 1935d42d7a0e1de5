"""Runtimes found through their lock files and sockets."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from unittest.mock import Mock

import pytest

import gomp
from gomp.runtime import discovery
from gomp.runtime.channel import Channel
from gomp.runtime.discovery import Client, Registration, RuntimeInfo, list_runtimes

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
        ("lost", {"why": "P0 (pid 77) was killed by SIGKILL"}, gomp.RuntimeLost),
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


def no_descriptor(*_: object) -> int:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize(
    ("where", "call", "error"),
    [
        ("os.open", lambda: discovery.choose("web"), "the runtimes in .* cannot be looked at: Too many open files"),
        (
            "socket.socket",
            lambda: discovery.open_channel("web"),
            "the runtime web cannot be asked: Too many open files",
        ),
    ],
)
def test_who_has_no_descriptors_left_is_told_so(
    directory: Path, monkeypatch: pytest.MonkeyPatch, where: str, call: Callable[[], object], error: str
) -> None:
    (directory / "web.lock").touch()
    monkeypatch.setattr(where, no_descriptor)
    with pytest.raises(gomp.RuntimeLost, match=error):
        call()


def before_first_lock(monkeypatch: pytest.MonkeyPatch, happen: Callable[[], object]) -> None:
    """Have ``happen()`` called between the opening of a lock file and its locking."""
    lockf, events = fcntl.lockf, [happen]

    def lock(fd: int, command: int) -> None:
        if events:
            events.pop()()
        lockf(fd, command)

    monkeypatch.setattr(fcntl, "lockf", lock)


def test_a_starter_whose_file_is_removed_before_it_locks_makes_another(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_first_lock(monkeypatch, (directory / "web.lock").unlink)
    entry = Registration("web")
    assert sorted(os.listdir(directory)) == ["web.lock", "web.sock"]
    entry.remove()


def test_a_lister_leaves_the_entry_of_a_starter_that_came_before_it_locked(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock_file, socket_file = directory / "web.lock", directory / "web.sock"
    lock_file.touch()

    def start_another() -> None:
        lock_file.unlink()
        lock_file.touch()
        socket_file.touch()

    before_first_lock(monkeypatch, start_another)
    assert list_runtimes() == []
    assert lock_file.exists()
    assert socket_file.exists()
    assert list_runtimes() == []
    assert os.listdir(directory) == [], "it is dead"


def test_a_directory_that_goes_away_ends_no_runtime(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = Registration("web")
    away = directory.rename(directory.with_name("away"))
    entry.describe(WEB)
    entry.describe_again()
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("`gomp ls` does not show what is so now: [Errno 2] No such file or directory")
    away.rename(directory)
    entry.describe_again()
    assert RuntimeInfo(**json.loads((directory / "web.json").read_text())) == WEB
    away = directory.rename(away)
    entry.describe_again()
    entry.remove()
    assert len(caplog.messages) == 1


def test_one_of_another_version_is_listed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may say more of itself, or less, and is refused by name then."""
    monkeypatch.setattr(discovery, "_try_lock", lambda fd: False)
    (directory / "web.lock").touch()
    said = {"name": "web", "ps": 2, "heap_bytes": 64 << 20, "pid": 77}
    (directory / "web.json").write_text(json.dumps(said | {"colour": "green"}))
    assert list_runtimes() == [WEB]


def test_a_description_that_does_not_fit_on_the_disk_leaves_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Registration("web")
    monkeypatch.setattr(os, "replace", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    entry.describe(WEB)
    assert sorted(os.listdir(directory)) == ["web.lock", "web.sock"]
    entry.remove()


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    with pytest.raises(gomp.ConfigError, match=r"^cannot make the directory \S+/file/gomp: Not a directory; set XDG"):
        list_runtimes()


def test_a_directory_whose_name_is_too_long_for_a_socket_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("d" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with pytest.raises(gomp.ConfigError, match=r"^cannot use \S+/web.sock: AF_UNIX path too long; set XDG"):
        Registration("web")
    with pytest.raises(gomp.RuntimeLost, match="does not answer: AF_UNIX path too long"):
        Client(WEB)


def test_a_runtime_that_accepts_nobody_is_given_up(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_CONNECT_S", 0.1)
    with Client(WEB), pytest.raises(gomp.RuntimeLost, match="the runtime web does not answer"):
        Client(WEB)  # the backlog has room for one


@pytest.mark.parametrize(
    "wrong",
    [
        {"heap_bytes": None},
        {"heap_bytes": 10**400},
        {"attached": 5},
        {"attached": ["x"]},
        {"url": []},
        {"name": 7},
        {"ps": True},
    ],
    ids=lambda wrong: str(wrong)[:30],
)
def test_what_is_no_description_describes_nobody(
    directory: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, object]
) -> None:
    monkeypatch.setattr(discovery, "_try_lock", lambda fd: False)  # somebody has it
    (directory / "web.lock").touch()
    for text in (json.dumps(asdict(WEB) | wrong), "", "[]", "\xff", "[" * 5000):
        (directory / "web.json").write_text(text, encoding="latin-1")
        assert list_runtimes() == []
    (directory / "web.json").write_text(json.dumps(asdict(WEB)))
    assert list_runtimes() == [WEB]


@pytest.mark.parametrize("kind", ["a link", "others may read it"])
def test_a_directory_that_is_not_this_users_alone_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where everybody may write, a link may lead to any directory of the user's own."""
    other = tmp_path / "other"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(other))
    (tmp_path / "own").mkdir(mode=0o700)
    other.mkdir()
    if kind == "a link":
        (other / "gomp").symlink_to(tmp_path / "own")
    else:
        (other / "gomp").mkdir(mode=0o755)
    with pytest.raises(gomp.ConfigError, match=r"other/gomp is not a directory that only you can read"):
        list_runtimes()
