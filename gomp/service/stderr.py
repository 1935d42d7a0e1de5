"""What a runtime's processes write to stderr, whoever reads it or does not.

A write to a pipe that is full waits until somebody reads. Go waits too, and everybody with it: a coordinator that waits begins no cycle, starts no
P and hears no SIGTERM. Here a line waits for WAIT_S at most, and is given up then; so is each that finds no room at once, until one gets through
and says how many were. What cannot be written at all, as the reader has ended or the disk is full, is given up likewise.

The descriptor itself does not block from then on, in this process and in those that it forks: its file is opened anew for it, as the flag is the
open file's, which may be the terminal of the shell. A socket takes the flag with each message. Where a pipe may not be opened (it is another user's)
no more is written at once than has room in one that is ready, which leaves the moment between the two to others.
"""

from __future__ import annotations

import io
import os
import select
import socket
import stat
import sys
import time

WAIT_S = 0.1
_FD = 2


class Unblocked(io.RawIOBase):
    """The descriptor ``fd`` as a file whose writes do not wait for long, and never fail."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lost = 0  # lines, since the last that got through
        self._is_torn = False  # the last that got through did so in part
        mode = os.fstat(fd).st_mode
        self._socket = socket.socket(fileno=fd) if stat.S_ISSOCK(mode) else None
        self._may_block = (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)) and not _reopen_without_blocking(fd)

    def close(self) -> None:
        """The descriptor stays open: it is the process's."""
        if self._socket:
            self._socket.detach()
        super().close()

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Takes all of it, written or given up."""
        text = bytes(data)
        head = b"\n" if self._is_torn else b""
        if self._lost:
            head += b"[%d lines lost before this one: nobody read them]\n" % self._lost
        written = self._write_some(head + text, 0.0 if self._lost else WAIT_S)
        if written:
            self._is_torn = written < len(head) + len(text)
        if written >= len(head):
            self._lost = 0
        if written < len(head) + len(text):
            self._lost += text.count(b"\n") or 1
        return len(text)

    def _write_some(self, data: bytes, wait_s: float) -> int:
        """How much of it was written, within ``wait_s`` seconds."""
        rest, deadline = memoryview(data), time.monotonic() + wait_s
        while rest:
            try:
                rest = rest[self._send(rest) :]
            except BlockingIOError:
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not self._is_ready(left_s):
                    break
            except OSError:
                break
        return len(data) - len(rest)

    def _send(self, rest: memoryview) -> int:
        """How much of it was written at once. Raises OSError, and BlockingIOError if nothing could be."""
        if self._socket:
            return self._socket.send(rest, socket.MSG_DONTWAIT)
        if self._may_block and not self._is_ready(0.0):
            raise BlockingIOError
        return os.write(self._fd, rest[: select.PIPE_BUF] if self._may_block else rest)

    def _is_ready(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(seconds * 1e3))


def _reopen_without_blocking(fd: int) -> bool:
    """Whether that could be done."""
    try:
        new = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    os.dup2(new, fd)
    os.close(new)
    return True


def never_wait_for_a_reader() -> None:
    """From here, in this process and those that it forks. Where stderr is closed, what is written to it goes nowhere."""
    # The number of a descriptor that is closed may be another's by now.
    file = Unblocked(_FD) if sys.stderr else io.FileIO(os.devnull, "w")
    sys.stderr = io.TextIOWrapper(file, "utf-8", "backslashreplace", line_buffering=True)
