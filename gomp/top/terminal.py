"""The terminal while ``gomp top`` has it: another screen, no cursor, keys one by one; and as it was when that is over, however it ends."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console, Group
from rich.text import Text

_SUSPEND = "\x1a"  # Ctrl-Z
_ENDS = "qQ\x03\x04"  # and Ctrl-C and Ctrl-D, where they are no signals
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Terminal:
    """``is_over``: somebody wants it to end, by a key or a signal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._keys = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else None
        self._modes: list[Any] = []
        self._handlers: dict[signal.Signals, Any] = {}
        self.is_over = False

    def __enter__(self) -> Terminal:
        self._handlers = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._give_back()
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        return self._console.width, self._console.height

    def show(self, lines: Sequence[Text]) -> None:
        """The screen has these lines now, as far as they fit."""
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        self._console.update_screen(Group(*lines))

    def wait(self, seconds: float) -> None:
        """For a time, or until it is to end."""
        deadline = time.monotonic() + seconds
        while not self.is_over and (left := deadline - time.monotonic()) > 0:
            if self._keys is None:
                time.sleep(left)
            elif select.select([self._keys], [], [], left)[0]:
                self._on_keys(os.read(self._keys, 64).decode("latin-1"))

    def _on_keys(self, keys: str) -> None:
        """None at all: the terminal has hung up."""
        if not keys or set(keys) & set(_ENDS):
            self.is_over = True
        elif _SUSPEND in keys:
            self._give_back()
            os.kill(os.getpid(), signal.SIGSTOP)
            self._take()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.is_over = True

    def _take(self) -> None:
        if self._keys is not None:
            self._modes = termios.tcgetattr(self._keys)
            modes = termios.tcgetattr(self._keys)
            modes[tty.LFLAG] &= ~(termios.ECHO | termios.ICANON)
            modes[tty.LFLAG] |= termios.NOFLSH  # Ctrl-C must not cut what is being drawn, nor what ends it
            modes[tty.CC][termios.VMIN], modes[tty.CC][termios.VTIME] = 1, 0
            modes[tty.CC][termios.VSUSP] = b"\0"  # it comes as a key, so that the terminal is given back before
            _set_modes(self._keys, modes)
        self._console.set_alt_screen(True)
        self._console.show_cursor(False)

    def _give_back(self) -> None:
        try:
            self._console.set_alt_screen(False)
            self._console.show_cursor(True)
        finally:
            if self._keys is not None:
                _set_modes(self._keys, self._modes)


def _set_modes(fd: int, modes: list[Any]) -> None:
    """Raises OSError."""
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, modes)
    except termios.error as error:
        raise OSError(*error.args) from None
