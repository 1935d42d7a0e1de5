"""Finding runtimes: each has a lock file, a description in JSON and a socket in this user's runtime directory.

Its coordinator, and nobody else, holds a POSIX lock on the lock file for as long as it lives, so that a kill leaves
a file that says it is dead. Process numbers would not do: containers with other pid namespaces may share the directory.

Who finds a dead entry removes it, and may hold its lock for that moment. So a lock counts only while its file still has its name.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from gomp.core.jit import write_atomically
from gomp.errors import ConfigError, RuntimeLost
from gomp.runtime.channel import Channel, Message, check_answer
from gomp.runtime.memstats import MemStats

log = logging.getLogger("gomp.coordinator")

_LOCK_TRIES = 10
_LOCK_NAP_S = 0.01
_CONNECT_S = 10.0
ANSWER_S = 60.0  # that a coordinator has


@dataclass(frozen=True)
class RuntimeInfo:
    """A running runtime of this user. ``heap_bytes`` is the heap's maximum, ``url`` where its metrics are, if anywhere."""

    name: str
    ps: int
    heap_bytes: int
    pid: int
    url: str = ""
    attached: list[int] = field(default_factory=list)  # processes that have borrowed a P
    control: str = ""  # path of the Unix socket, or URL, where its settings can be changed
    gomp: str = ""  # its version
    build: str = ""  # as gomp.core.jit.cache_key: who attaches has the same


_FIELDS = frozenset(each.name for each in fields(RuntimeInfo))


def directory() -> Path:
    """This user's directory of runtimes, mode 0700."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(base) / "gomp" if base and os.access(base, os.W_OK) else Path(f"/tmp/gomp-{os.getuid()}")
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.lstat()  # a link that another user has put there may lead to any directory of this one
    except OSError as error:
        raise ConfigError(f"cannot make the directory {path}: {error.strerror}; set XDG_RUNTIME_DIR") from None
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077:
        raise ConfigError(f"{path} is not a directory that only you can read: remove it, or set XDG_RUNTIME_DIR")
    return path


class Registration:
    """The entry of a runtime that this process coordinates: its lock, its description and its listening socket."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock_file = directory() / f"{name}.lock"
        self._socket_file = directory() / f"{name}.sock"
        self._description = directory() / f"{name}.json"
        self.control_file = directory() / f"{name}.control"
        self._untold: RuntimeInfo | None = None  # what could not be described
        self._has_failed = False
        try:
            self._fd = self._open_locked()
            self.listener = listen_privately(self._socket_file)
            self.listener.setblocking(False)
        except OSError as error:
            raise ConfigError(
                f"cannot use {self._socket_file}: {error.strerror or error}; set XDG_RUNTIME_DIR to another directory"
            ) from None

    def _open_locked(self) -> int:
        for _ in range(_LOCK_TRIES):
            fd = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if _try_lock(fd) and _is_named(fd, self._lock_file):
                return fd
            os.close(fd)
            time.sleep(_LOCK_NAP_S)  # it may be one that removes a dead runtime's entry
        raise ConfigError(f"a runtime named {self.name} is running: choose another --name, or end that one")

    def describe(self, info: RuntimeInfo) -> None:
        """Have others find this. A directory that is full, or gone, ends no runtime: see :meth:`describe_again`."""
        self._untold = info
        self.describe_again()

    def describe_again(self) -> None:
        """Try what was in vain before."""
        if self._untold is None:
            return
        try:
            write_atomically(self._description, json.dumps(asdict(self._untold)).encode())
        except OSError as error:
            if not self._has_failed:
                log.error("`gomp ls` does not show what is so now: %s; it is tried again and again", error)
            self._has_failed = True
        else:
            self._untold, self._has_failed = None, False

    def remove(self) -> None:
        """Take the entry away. Only the coordinator: a forked child's copy of the lock's descriptor locks nothing."""
        self._socket_file.unlink(missing_ok=True)
        self.control_file.unlink(missing_ok=True)
        self._description.unlink(missing_ok=True)
        self._lock_file.unlink(missing_ok=True)
        self.listener.close()
        os.close(self._fd)


def listen_privately(path: Path) -> socket.socket:
    """A socket that listens at ``path``, for this user alone. The runtime's lock is held: what is there is a dead one's."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(previous)
    listener.listen(16)
    return listener


def _try_lock(fd: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_named(fd: int, path: Path) -> bool:
    """Whether ``path`` names the file that is open as ``fd``, and not a later one."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def list_runtimes() -> list[RuntimeInfo]:
    """The runtimes of this user that run now, by name. What dead ones left is removed. Raises RuntimeLost."""
    try:
        return sorted(_living(), key=lambda info: info.name)
    except OSError as error:
        raise RuntimeLost(f"the runtimes in {directory()} cannot be looked at: {error.strerror}") from None


def _living() -> Iterator[RuntimeInfo]:
    for lock_file in directory().glob("*.lock"):
        try:
            fd = os.open(lock_file, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            if not _try_lock(fd):
                if info := _described(lock_file.with_suffix(".json")):
                    yield info
            elif _is_named(fd, lock_file):  # if not, somebody else removed it, and one that starts may have the name
                for suffix in (".sock", ".control", ".json"):
                    lock_file.with_suffix(suffix).unlink(missing_ok=True)
                lock_file.unlink(missing_ok=True)
        finally:
            os.close(fd)


def _described(file: Path) -> RuntimeInfo | None:
    """None if it is just starting, and has not described itself yet; or if that is no description. Another version may say more."""
    try:
        said = json.loads(file.read_text())
        info = RuntimeInfo(**{name: value for name, value in said.items() if name in _FIELDS})
        numbers = (info.ps, info.heap_bytes, info.pid, *info.attached)
        texts = (info.name, info.url, info.control, info.gomp, info.build)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    is_one = all(type(n) is int and 0 <= n < 1 << 63 for n in numbers) and all(isinstance(text, str) for text in texts)
    return info if is_one else None


def _timeval(seconds: float) -> tuple[int, int]:
    return int(seconds), int(seconds % 1 * 1e6)


def open_channel(name: str, takes_descriptors: bool = False) -> Channel:
    """A connection to the runtime ``name``. Raises RuntimeLost."""
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise RuntimeLost(f"the runtime {name} cannot be asked: {error.strerror}") from None
    # Not settimeout: with it, connecting to a full backlog fails at once instead of waiting for room.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", *_timeval(_CONNECT_S)))
    try:
        sock.connect(str(directory() / f"{name}.sock"))
    except OSError as error:
        sock.close()
        raise RuntimeLost(f"the runtime {name} does not answer: {error.strerror or error}") from None
    return Channel(sock, takes_descriptors)


class Client:
    """A connection to a running runtime that has no P: it asks, and the coordinator answers, each time within ``answer_s``."""

    def __init__(self, info: RuntimeInfo, answer_s: float = ANSWER_S) -> None:
        self.info = info
        self._answer_s = answer_s
        self._channel = open_channel(info.name)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self._channel.close()

    def verify(self, level: int = 3) -> dict[str, object]:
        """The coordinator's report: level, spans, objects, bytes, problems."""
        return dict(self._ask("verify", level=level).fields)

    def stats(self) -> MemStats:
        return MemStats.from_json(self._ask("stats").fields)

    def set(self, setting: str, value: int) -> int:
        """Set "gogc" or "memory_limit"; what it was. In force when it returns."""
        return int(self._ask("set", setting=setting, value=value)["old"])

    def collect(self) -> int:
        """Run a whole collection; how many there have been when it is done."""
        return int(self._ask("collect")["num_gc"])

    def find_leaks(self) -> int:
        """Run a collection that looks for goroutines which wait for ever; how many there are."""
        return int(self._ask("find_leaks")["leaked"])

    def free_os_memory(self, now: bool = False) -> int:
        """As :func:`gomp.debug.free_os_memory`."""
        return int(self._ask("free_os_memory", now=now)["heap_released"])

    def _ask(self, op: str, **fields: Any) -> Message:
        with contextlib.suppress(RuntimeLost):  # it has hung up: perhaps it has said why
            self._channel.send(op, **fields)
        answer = self._channel.next(self._answer_s)
        if answer is None:
            raise RuntimeLost(f"the runtime {self.info.name} did not answer within {self._answer_s:g} s")
        return check_answer(answer)


def connect(name: str | None = None, answer_s: float = ANSWER_S) -> Client:
    """A client of the runtime ``name``, or of the only one. Raises ConfigError, RuntimeLost."""
    return Client(choose(name), answer_s)


def choose(name: str | None = None) -> RuntimeInfo:
    """The runtime ``name``, or the only one. Raises ConfigError, RuntimeLost."""
    running = list_runtimes()
    if name is not None:
        chosen = [info for info in running if info.name == name]
        if not chosen:
            raise ConfigError(f"no runtime named {name} is running: `gomp ls` lists them")
    else:
        chosen = running
        if not chosen:
            raise ConfigError("no runtime is running: start one with `gomp serve`")
        if len(chosen) > 1:
            raise ConfigError(f"{len(chosen)} runtimes are running ({', '.join(i.name for i in chosen)}): name one")
    return chosen[0]
