"""Loading every kernel; the first start on a machine compiles them all, with every processor and something to look at."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import Any

import typer

import gomp.core
from gomp import forked
from gomp.core import jit
from gomp.errors import GompError

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
    for module in pkgutil.walk_packages(gomp.core.__path__, "gomp.core."):
        importlib.import_module(module.name)
    if jit.missing_kernels():
        with Progress() as progress:
            compile_kernels(report or progress.show)
    jit.load_kernels()
    return jit.count_kernels()


def compile_kernels(report: Callable[[int, int], None]) -> None:
    """Compile every registered kernel that is not in the cache yet, one process per processor; load none.

    Must be called before this process has threads: it forks.
    """
    with jit.locked_cache():
        missing = jit.missing_kernels()  # another process may have compiled them while this one waited for the lock
        if not missing:
            return
        pool = ProcessPoolExecutor(
            min(len(os.sched_getaffinity(0)), len(missing)), get_context("fork"), _be_a_compiler, (os.getpid(),)
        )
        try:
            for done, compiled in enumerate(
                as_completed([pool.submit(jit.compile_kernel, k.symbol) for k in missing]), 1
            ):
                compiled.result()
                report(done, len(missing))
        except BrokenProcessPool:
            raise GompError(
                "a process that compiled kernels was killed: is there memory for it? (each takes about 300 MB)"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _be_a_compiler(parent: int) -> None:
    forked.die_with_parent(parent, b"gomp-compiler")
    forked.reset_signals()
    jit.compile_only()
