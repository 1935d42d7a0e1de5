"""Loading every kernel with something to look at: the first start on a machine compiles them all."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

import typer

TITLE = "Compiling kernels, once"


class Progress:
    """A progress bar on stderr that appears with the first report; on no terminal it is a single line."""

    def __init__(self, title: str = TITLE) -> None:
        self._title = title
        self._bar: Any = None
        self._done = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, tb)

    def show(self, done: int, total: int) -> None:
        """``done`` of ``total`` are done."""
        if self._bar is None:
            self._bar = typer.progressbar(length=total, label=self._title, file=sys.stderr).__enter__()
        self._bar.update(done - self._done)
        self._done = done


def load_all_kernels(report: Callable[[int, int], None] | None = None) -> int:
    """Import everything below ``gomp.core``, load its kernels and return how many.

    What has to be compiled is told to ``report(done, total)``, by default a progress bar.
    """
    import gomp.core
    from gomp.core import jit

    for module in pkgutil.walk_packages(gomp.core.__path__, "gomp.core."):
        importlib.import_module(module.name)
    total = jit.count_kernels()
    if jit.is_cached():
        jit.load_kernels()
    elif report:
        jit.load_kernels(report)
    else:
        with Progress() as progress:
            jit.load_kernels(progress.show)
    return total
