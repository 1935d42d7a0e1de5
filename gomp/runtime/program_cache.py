"""Compiled programs on disk, and the child in which a P has them compiled.

They lie in the kernels' cache directory, each in a file of its own that is written whole: processes share them without a lock.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import pickle
from collections.abc import Callable
from pathlib import Path

from numba.core.bytecode import FunctionIdentity
from numba.core.compiler import CompileResult
from numba.core.registry import cpu_target
from numba.core.serialize import dumps

from gomp.core.jit import cache_directory, cache_key, write_atomically
from gomp.errors import CompileError


@functools.cache
def directory() -> Path:
    """Programs contain inlined pieces of the core: those that were compiled against another core are never found."""
    found = cache_directory() / "programs" / cache_key()
    found.mkdir(mode=0o700, parents=True, exist_ok=True)
    return found


def load(file: Path) -> tuple[type | None, CompileResult]:
    """What :func:`store` put there, made known to Numba as if it had been compiled here."""
    result, parts = pickle.loads(file.read_bytes())
    context = cpu_target.target_context
    cpu_target.typing_context.refresh()
    context.refresh()
    code = CompileResult._rebuild(context, *parts)
    context.insert_user_function(code.entry_point, code.fndesc, [code.library])
    return result, code


def store(file: Path, result: type | None, code: CompileResult) -> None:
    """Keep a program: the class of the reference that it returns, if it does, and its machine code."""
    write_atomically(file, dumps((result, code._reduce())))


def begin_names(program: str) -> None:
    """Give the functions that are compiled from here on numbers of this program's own.

    The numbers are in the symbols. Numba counts from 1 in each process, but programs in the cache come from several, and the linker
    binds equal names to whatever was loaded first: one of two closures of the same function would run the other's code.
    """
    first = int.from_bytes(hashlib.sha256(program.encode()).digest()[:7], "little")
    FunctionIdentity._unique_ids = itertools.count(first)


def do_in_child(work: Callable[[], object]) -> None:
    """Do ``work`` in a forked child, which has no segments and ends at once; raise here what it raised there."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        message = b""
        try:
            work()
        except BaseException as error:
            message = (
                f"{type(error).__name__}: {error}".encode()
                if not isinstance(error, CompileError)
                else str(error).encode()
            )
        finally:
            os.write(writer, message[:4000])
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        message = pipe.read()
    os.waitpid(pid, 0)
    if message:
        raise CompileError(message.decode())
