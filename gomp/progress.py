"""Loading every kernel with something to look at: the first start on a machine compiles them all."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import TextIO

WIDTH = 30


def load_all_kernels(stream: TextIO | None = None) -> int:
    """Import everything below ``gomp.core``, load its kernels and return how many. What has to be compiled shows on ``stream`` (stderr)."""
    import gomp.core
    from gomp.core import jit

    for module in pkgutil.walk_packages(gomp.core.__path__, "gomp.core."):
        importlib.import_module(module.name)
    bar = None if jit.is_cached() else Bar("compiling kernels", stream or sys.stderr)
    count = 0

    def progress(done: int, total: int) -> None:
        nonlocal count
        count = total
        if bar:
            bar.show(done, total)

    jit.load_kernels(progress)
    return count


class Bar:
    """A line that fills up on a terminal; elsewhere a line at every quarter."""

    def __init__(self, title: str, stream: TextIO) -> None:
        self.title = title
        self.stream = stream
        self.is_terminal = stream.isatty()
        self._shown = -1

    def show(self, done: int, total: int) -> None:
        """``done`` of ``total`` are done."""
        if self.is_terminal:
            filled = WIDTH * done // total
            end = "\n" if done == total else ""
            self.stream.write(f"\r{self.title} {'█' * filled}{'·' * (WIDTH - filled)} {done}/{total}{end}")
            self.stream.flush()
        elif (quarter := 4 * done // total) > self._shown:
            self._shown = quarter
            self.stream.write(f"{self.title} {done}/{total}\n")
            self.stream.flush()
