"""The runtime that this process belongs to, if any: opened by a P when it starts, and by a script's Runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gomp.core.shm.records import RUNTIME as _RUNTIME
from gomp.core.shm.records import runtime_dtype, view
from gomp.errors import RuntimeLost
from gomp.runtime import handles, waiting
from gomp.runtime.peer import Goroutine, Peer
from gomp.runtime.programs import Call

_peer: Peer | None = None


def open_process(p_idx: int, peer: Peer) -> None:
    """This process is P ``p_idx`` now: its segments are mapped, its record is in place."""
    global _peer
    handles.table.open(p_idx, waiting.Collector())
    _peer = peer


def close_process() -> None:
    """Every reference of this process is dead from here."""
    global _peer
    handles.table.close()
    _peer = None


def is_open() -> bool:
    return _peer is not None


def peer() -> Peer:
    if _peer is None:
        raise RuntimeLost("no runtime is open in this process: use gomp.Runtime()")
    return _peer


def go(target: str | Callable[..., Any], *args: Any, **kwargs: Any) -> Goroutine:
    """Start a program or function on a P; returns at once. ``.wait()`` gives its result."""
    return peer().go(Call(target, args, kwargs))


def gc() -> None:
    """Run a whole collection and return when it is done."""
    peer()
    waiting.collect()


def num_procs() -> int:
    """GOMAXPROCS of this runtime."""
    peer()
    return int(view(runtime_dtype, _RUNTIME)[0].nprocs)
