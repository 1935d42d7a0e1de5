"""A real command on a pseudo-terminal of its own: what it writes, the keys that it is sent, and the terminal's modes."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

_MOVE = re.compile(r"\x1b\[\d+;1H")  # to the beginning of a line
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_HOME = "\x1b[1;1H"  # each drawing of the screen begins with it


class OnTerminal:
    """``gomp`` with these arguments, begun."""

    def __init__(self, *arguments, rows=24, columns=80, **environment):
        self._fd, end = pty.openpty()
        self.resize(rows, columns)
        self.modes_before = self.modes()
        self._written = b""
        ours = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gomp", *arguments],
            stdin=end, stdout=end, stderr=end, start_new_session=True, env=ours | {"TERM": "xterm"} | environment,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self._end = end

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self._fd)
        os.close(self._end)

    def modes(self):
        return termios.tcgetattr(self._fd)

    def resize(self, rows, columns):
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, keys):
        os.write(self._fd, keys)

    def read_until(self, is_so, seconds=30.0):
        """Until ``is_so()`` of what has come so far."""
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, self.text
            if select.select([self._fd], [], [], 0.02)[0]:
                self._written += os.read(self._fd, 1 << 16)

    @property
    def text(self):
        """All that was written so far."""
        return self._written.decode(errors="ignore")  # of the last character, what there is

    def screens(self):
        """Those that have been drawn, and are whole, as text."""
        return [_ESCAPE.sub("", _MOVE.sub("\n", drawn)) for drawn in self.text.split(_HOME)[1:-1]]

    def wait_for_screens(self, n):
        """The next ``n``."""
        seen = len(self.screens())
        self.read_until(lambda: len(self.screens()) >= seen + n)
        return self.screens()[seen:]

    def wait(self):
        """The exit code."""
        self.read_until(lambda: self.process.poll() is not None)
        while select.select([self._fd], [], [], 0)[0]:
            self._written += os.read(self._fd, 1 << 16)
        return self.process.returncode
