"""``gomp.debug``: the collector's settings, changed while it runs, as Go's runtime/debug does."""

from __future__ import annotations

import os
import time
from pathlib import Path

from gomp.config import DEFAULT_PROCS, MAX_PROCS, parse_byte_count
from gomp.core.heap import stack
from gomp.core.shm.records import GC_MARK, RUNTIME, runtime_dtype, view
from gomp.errors import ConfigError, RuntimeLost
from gomp.runtime import current, goroutineprofile, memprofile, pprof
from gomp.runtime.goroutineprofile import GoroutineRecord
from gomp.runtime.handles import table
from gomp.runtime.localgoroutines import with_local
from gomp.runtime.memprofile import MemProfileRecord
from gomp.runtime.waiting import DEADLINE_S

MAX_PERCENT = (1 << 31) - 1
MAX_LIMIT = (1 << 63) - 1  # no limit
_NAP_S = 0.001


def set_gc_percent(percent: int) -> int:
    """Set GOGC, below 0 is off; returns what it was, -1 if off.

    In force when it returns. If it turns collection off, it waits until the cycle that is on has ended. Raises ConfigError.
    """
    if not _is_integer(percent, MAX_PERCENT):
        raise ConfigError(f"GOGC={percent!r}: give an integer up to {MAX_PERCENT}; below 0 is off")
    old: int = current.peer().ask("set", setting="gogc", value=max(percent, -1))["old"]
    if percent < 0:
        _wait_for_mark()
    return old


def set_memory_limit(limit: int) -> int:
    """Set the soft limit on all memory of the runtime, in bytes, and return what it was. A negative one changes nothing. Raises ConfigError."""
    if not _is_integer(limit, MAX_LIMIT):
        raise ConfigError(f"memory limit {limit!r}: give bytes, up to {MAX_LIMIT} for no limit")
    if limit < 0:
        return current.peer().ask("stats")["memory_limit"]  # type: ignore[no-any-return]
    return current.peer().ask("set", setting="memory_limit", value=limit)["old"]  # type: ignore[no-any-return]


def set_max_procs(n: int) -> int:
    """Set GOMAXPROCS, the number of Ps that run programs, and return what it was. Below 1 changes nothing (Go's ``GOMAXPROCS``). Raises ConfigError,
    and GompError for more than there is room for (``max_procs``).

    It changes at the end of the cycle that is on, if one is, and then this returns; processes are started, and end, after that. A goroutine goes on
    where it runs, and its P's process ends with it. From then on the number follows the cgroup's CPU quota no more.
    """
    if not _is_integer(n, MAX_PROCS):
        raise ConfigError(f"GOMAXPROCS={n!r}: give an integer up to {MAX_PROCS}")
    if n < 1:
        return current.num_procs()
    return current.peer().ask("set", setting="procs", value=n)["old"]  # type: ignore[no-any-return]


def set_default_max_procs() -> int:
    """Have GOMAXPROCS follow the processors and the CPU quota there are, as if nobody had set it, and return what it was."""
    return current.peer().ask("set", setting="procs", value=DEFAULT_PROCS)["old"]  # type: ignore[no-any-return]


def set_max_stack(size: int | str) -> int:
    """Set how many bytes the stack of one goroutine may have, as a number or as "64MiB", from now on; returns what it was, 1,000,000,000 at first.

    What would need more ends with ``gomp.StackOverflow``. Raises ConfigError.
    """
    wanted = parse_byte_count(size) if isinstance(size, str) else size
    if wanted is None or not _is_integer(wanted, MAX_LIMIT) or wanted < 0:
        raise ConfigError(f'maximum stack {size!r}: give bytes, 0 or more, as a number or as "64MiB"')
    table.check_open()
    return int(stack.set_max_stack(wanted))


def free_os_memory(now: bool = False) -> int:
    """Collect, return everything that is free to the system, and say how much is released then, in bytes.

    For after a known peak, or before a long idle time: what comes back is committed again when it is wanted, page by page. With
    ``GODEBUG=madvdontneed=0`` it stays in memory until somebody needs it, as in Go, unless ``now``.
    """
    return current.peer().ask("free_os_memory", now=bool(now))["heap_released"]  # type: ignore[no-any-return]


def goroutines() -> list[GoroutineRecord]:
    """What each goroutine does, where it stands and where it was started, by id. Nothing is stopped: each is shown as it was
    at one moment of its own. Of those whose bodies are Python, other processes' are there while they wait in the heap.
    """
    table.check_open()
    return with_local(goroutineprofile.read())


def leaked_goroutines() -> list[GoroutineRecord]:
    """The goroutines that wait for ever: a whole collection finds those that wait at channels which nobody can reach any more who may still run.

    What they have is kept. Those that wait in programs, in compiled functions and in Python, are not among them: a signal or a timeout may end that.
    """
    current.peer().ask("find_leaks")
    return goroutineprofile.read(only_leaked=True)


def heap_profile() -> list[MemProfileRecord]:
    """Which code has made the objects that are in use, and all that there have been, those of which most bytes are in use first.

    From a sample of one object in half a MiB (``GODEBUG=memprofilerate``), as of the last collection: call ``gc()`` of the runtime before.
    """
    table.check_open()
    return memprofile.read()


def write_heap_profile(file: str | os.PathLike[str]) -> None:
    """Write that to a file, for ``go tool pprof``. Raises OSError."""
    table.check_open()
    Path(file).write_bytes(pprof.encode_memory(memprofile.read(), memprofile.rate()))


def _is_integer(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value <= most


def _wait_for_mark() -> None:
    runtime = view(runtime_dtype, RUNTIME)[0]
    deadline = time.monotonic() + DEADLINE_S
    while runtime.xgcphase == GC_MARK and not runtime.xshutdown:
        if time.monotonic() > deadline:
            raise RuntimeLost(f"the cycle that is on has not ended for {DEADLINE_S:.0f} s")
        time.sleep(_NAP_S)
