"""Loading every kernel; the first start on a machine compiles them all, with every processor and something to look at."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import pkgutil
import struct
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import typer

import gomp.core
from gomp import forked
from gomp.core import jit
from gomp.errors import CompileError, GompError

TITLE = "Compiling kernels, once"
log = logging.getLogger("gomp.kernels")
_NUMBER = struct.Struct("i")
_MOST_AT_ONCE = 8192  # numbers: half of what a pipe takes


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


def are_all_compiled() -> bool:
    """Whether every kernel is loaded, or in the cache. Imports everything below ``gomp.core``."""
    _import_core()
    return not jit.missing_kernels()


@functools.cache
def _import_core() -> None:
    for module in pkgutil.walk_packages(gomp.core.__path__, "gomp.core."):
        importlib.import_module(module.name)


def load_all_kernels(report: Callable[[int, int], None] | None = None) -> int:
    """Import everything below ``gomp.core``, load its kernels and return how many.

    What has to be compiled is told to ``report(done, total)``, by default a progress bar. Raises CompileError if the sources
    have been changed meanwhile.
    """
    try:
        if not are_all_compiled():
            with Progress() as progress:
                compile_kernels(report or progress.show)
        jit.load_kernels()
    except jit.SourcesChanged as error:
        raise CompileError(str(error)) from None
    return jit.count_kernels()


def compile_kernels(report: Callable[[int, int], None]) -> None:
    """Compile every registered kernel that is not in the cache yet, one process per processor; load none.

    Must be called before this process has threads: it forks. Its processes share two pipes and no lock, for which they would need a /dev/shm.
    """
    with jit.locked_cache():
        missing = jit.missing_kernels()  # another process may have compiled them while this one waited for the lock
        for start in range(0, len(missing), _MOST_AT_ONCE):
            _compile_all([k.symbol for k in missing], start, report)


def _compile_all(symbols: Sequence[str], start: int, report: Callable[[int, int], None]) -> None:
    """Those from ``start``, as many as fit into a pipe."""
    end = min(start + _MOST_AT_ONCE, len(symbols))
    todo, done = _Pipe(), _Pipe()
    parent = os.getpid()

    def compile_some() -> None:
        todo.close_writer()
        done.close_reader()
        _be_a_compiler(parent)
        _compile_each(symbols, todo, done)

    try:
        os.write(todo.writer, b"".join(map(_NUMBER.pack, range(start, end))))
        pids = _fork_all(compile_some, min(len(os.sched_getaffinity(0)), end - start))
        todo.close_writer()
        done.close_writer()
        finished = start
        while ticks := os.read(done.reader, _MOST_AT_ONCE):
            finished += len(ticks)
            report(finished, len(symbols))
        statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    finally:
        todo.close()
        done.close()
    if any(map(os.WIFSIGNALED, statuses)):
        raise GompError("a process that compiled kernels was killed: is there memory for it? (each takes about 300 MB)")
    if finished < end:
        raise GompError("kernels could not be compiled: what a process that compiled them said is above")


def _compile_each(symbols: Sequence[str], todo: _Pipe, done: _Pipe) -> None:
    """Until nothing is left, or nobody to tell: who is ended closes its pipes a moment before that ends this process too."""
    with contextlib.suppress(BrokenPipeError):
        while number := os.read(todo.reader, _NUMBER.size):
            jit.compile_kernel(symbols[_NUMBER.unpack(number)[0]])
            os.write(done.writer, b".")


def _fork_all(compile_some: Callable[[], None], n: int) -> list[int]:
    """As many compilers as the system allows, one at least. Raises OSError."""
    pids = [forked.fork(compile_some)]
    try:
        pids += [forked.fork(compile_some) for _ in range(n - 1)]
    except OSError:
        log.warning("the system allows %d processes that compile, not %d", len(pids), n)
    return pids


class _Pipe:
    """Both ends, each closed once."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self._open = {self.reader, self.writer}

    def close_reader(self) -> None:
        self._close(self.reader)

    def close_writer(self) -> None:
        self._close(self.writer)

    def close(self) -> None:
        self._close(self.reader)
        self._close(self.writer)

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.remove(fd)
            os.close(fd)


def _be_a_compiler(parent: int) -> None:
    forked.die_with_parent(parent, b"gomp-compiler")
    forked.reset_signals()
    jit.compile_only()
