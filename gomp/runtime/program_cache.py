"""Compiled programs on disk, and the child in which a P has them compiled.

They lie in the kernels' cache directory, each in a file of its own that is written whole: who finds one needs no lock. Who does not takes turns with
others that want the same one, so that a program that runs everywhere is compiled once, in the memory that one compiler takes.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import itertools
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from numba.core.bytecode import FunctionIdentity
from numba.core.compiler import CompileResult

from gomp import forked
from gomp.cgroup import MemoryCgroup, MemoryLevel
from gomp.core import machine_code
from gomp.core.jit import cache_directory, cache_key, write_atomically
from gomp.core.shm.commit import budget_left
from gomp.errors import CompileError
from gomp.runtime import current
from gomp.runtime.readahead import read_little

_DEADLINE_S = 120.0
_TURN_PERIOD_S = 0.02
# Bytes that a compiler comes to beside what it shares with its P: for a small program 34, for `mixed` 60 MiB; and of LLVM's library it uses 28.
_TAKES, _LIBRARY = 60 << 20, 28 << 20
_ROOMY = 256 << 20  # with so much left, the readahead of a library of 170 MiB takes nothing from anybody


@functools.cache
def directory() -> Path:
    """Programs contain inlined pieces of the core: those that were compiled against another core are never found."""
    found = cache_directory() / "programs" / cache_key()
    found.mkdir(mode=0o700, parents=True, exist_ok=True)
    return found


def load(file: Path) -> tuple[str, bytes]:
    """What :func:`store` put there: what the program returns, and its machine code, to be unpacked."""
    result, _, code = file.read_bytes().partition(b"\n")
    return result.decode(), code


def store(file: Path, result: str, code: CompileResult) -> None:
    """Keep a program: what it returns, in one line, and its machine code."""
    write_atomically(file, result.encode() + b"\n" + machine_code.pack(code))


def begin_names(program: str) -> None:
    """Give the functions that are compiled from here on numbers of this program's own.

    The numbers are in the symbols. Numba counts from 1 in each process, but programs in the cache come from several, and the linker
    binds equal names to whatever was loaded first: one of two closures of the same function would run the other's code.
    """
    first = int.from_bytes(hashlib.sha256(program.encode()).digest()[:7], "little")
    FunctionIdentity._unique_ids = itertools.count(first)


@contextmanager
def turn(file: Path) -> Iterator[None]:
    """Nobody else is in such a block for the same ``file``; but who has waited for as long as a compiler may take waits no more."""
    lock = file.with_suffix(".lock")
    with lock.open("w") as opened:
        _wait_for(opened.fileno())
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)  # who waits for it still finds the program compiled, or sees it fail again


def _wait_for(fd: int) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while time.monotonic() < deadline:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_TURN_PERIOD_S)
        else:
            return


def make_room() -> None:
    """Where the cgroup has little left, the heap gives back what it does not need before a compiler takes that much within a second."""
    if budget_left() < _TAKES + _LIBRARY:
        current.peer().ask("free_os_memory", now=True)


def do_in_child(work: Callable[[], object]) -> None:
    """Do ``work`` in a forked child, which has nothing of this process but its memory and ends at once.

    Raises CompileError with what ``work`` raised there, or says that there is no child, or that it died or did not come to an end.
    """
    parent = os.getpid()
    level = MemoryCgroup.of_this_process().strictest()
    met = _times_met(level)
    try:
        pid, reader = forked.fork_with_pipe(lambda writer: _work_and_tell(work, parent, writer))
    except OSError as error:
        raise CompileError(f"no compiler can be started: {error.strerror}") from None
    poller = select.poll()
    poller.register(reader, select.POLLIN)
    in_time = poller.poll(_DEADLINE_S * 1000)
    if not in_time:
        os.kill(pid, signal.SIGKILL)
    message = os.read(reader, select.PIPE_BUF) if in_time else b""
    os.close(reader)
    _, status = os.waitpid(pid, 0)
    if not in_time:
        why = _why_late(level, _times_met(level) - met)
        raise CompileError(f"the compiler (pid {pid}) was not done within {_DEADLINE_S:.0f} s{why}")
    if status:
        raise CompileError(f"the compiler (pid {pid}) {forked.how_it_ended(status)}: is there memory for it?")
    if message:
        raise CompileError(message.decode(errors="replace"))


def _times_met(level: MemoryLevel | None) -> int:
    """How often the cgroup was full when somebody wanted memory."""
    return level.events().get("max", 0) if level else 0


def _why_late(level: MemoryLevel | None, times_met: int) -> str:
    """The kernel kills nobody where pages of files can be dropped: it reads them again and again."""
    if level is None or times_met <= 0:
        return ""
    return (
        f": its cgroup's memory is full, and the limit of {(level.limit() or 0) / 2**20:.1f} MiB was met {times_met:,} times meanwhile; "
        f"a compiler needs about {_TAKES + _LIBRARY >> 20} MiB: give the container more, or compile ahead with `gomp kernels MODULE`"
    )


def _work_and_tell(work: Callable[[], object], parent: int, writer: int) -> None:
    forked.die_with_parent(parent, b"gomp-compiler")
    forked.close_other_descriptors({0, 1, 2, writer})
    headroom = MemoryCgroup.of_this_process().headroom()
    if headroom is not None and headroom < _ROOMY:
        read_little()
    try:
        work()
    except CompileError as error:
        _tell(writer, str(error))
    except Exception as error:
        _tell(writer, f"{type(error).__name__}: {error}")


def _tell(writer: int, message: str) -> None:
    os.write(writer, message.encode()[: select.PIPE_BUF])  # in one piece: the parent reads once
