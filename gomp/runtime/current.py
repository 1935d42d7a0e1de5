"""The runtime that this process belongs to, if any: opened by a P when it starts, and by a script's Runtime."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any, overload

from gomp.core.heap.gs import num_goroutines
from gomp.core.sched.status import shut_down_if_orphaned
from gomp.core.shm import layout
from gomp.core.shm.records import RUNTIME as _RUNTIME
from gomp.core.shm.records import p_dtype, runtime_dtype, view
from gomp.errors import RuntimeLost
from gomp.runtime import codes as codes  # which has kernels know of this process's
from gomp.runtime import coroutines, handles, waiting
from gomp.runtime.coroutines import Body, PythonGoroutine
from gomp.runtime.frames import Frame, FrameMeta
from gomp.runtime.peer import Goroutine, Peer
from gomp.runtime.programs import Call

_peer: Peer | None = None
_descriptors: tuple[int, ...] = ()


def open_process(p_idx: int, peer: Peer) -> None:
    """This process is P ``p_idx`` now: its segments are mapped, its record is in place."""
    global _peer, _descriptors
    handles.table.open(p_idx, waiting.Collector())
    _peer = peer
    me = view(p_dtype, layout.p_addr(p_idx))[0]
    _descriptors = (int(me.heap_fd), int(me.meta_fd), int(me.wake_fd))


def close_process() -> None:
    """Every reference of this process is dead from here."""
    global _peer
    try:
        handles.table.close()
    finally:
        _peer = None


def _leave_in_child() -> None:
    """A forked child has no runtime; a copy of its parent's connection would keep the runtime alive after the parent."""
    if _peer is not None:
        _peer.mailbox.leave()
        for fd in _descriptors:
            os.close(fd)
    close_process()


os.register_at_fork(after_in_child=_leave_in_child)


def is_open() -> bool:
    return _peer is not None


def is_peer(candidate: Peer | None) -> bool:
    """Whether ``candidate`` is this process's connection now: not if another process, its parent, opened it."""
    return candidate is not None and candidate is _peer


def peer() -> Peer:
    if _peer is None:
        raise RuntimeLost("no runtime is open in this process: use gomp.Runtime()")
    return _peer


@overload
def go(target: type[Frame[Any]], /, *, labels: dict[str, str] | None = None, **slots: Any) -> int: ...
@overload
def go(target: Body, /, *, labels: dict[str, str] | None = None) -> PythonGoroutine: ...
@overload
def go(target: Callable[..., Body], /, *args: Any, **kwargs: Any) -> PythonGoroutine: ...
@overload
def go(target: str | Callable[..., Any], /, *args: Any, **kwargs: Any) -> Goroutine: ...
def go(target: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Start a program or function on a P; returns at once. ``.wait()`` gives its result.

    Or a goroutine that begins with a frame of class ``target`` and these slots, on any P: its id. With ``labels={"key": "value"}`` its profile, and
    that of all goroutines which it starts, says so. Or one whose body is a generator or a coroutine, which takes labels too, or a function that makes
    one, in this process.
    """
    if isinstance(target, FrameMeta):
        from gomp.runtime import goroutines

        if args:
            raise TypeError(f"gomp.go({target.__name__}, slot=value, ...) takes the slots by name")
        peer()
        return goroutines.go(target, kwargs, kwargs.pop("labels", None))
    if coroutines.is_body(target) or inspect.isgeneratorfunction(target) or inspect.iscoroutinefunction(target):
        peer()
        return coroutines.go(target, args, kwargs)
    if not callable(target) and not isinstance(target, str):
        raise TypeError(
            f"gomp.go({target!r}): give a frame's class, a function, a generator or coroutine, or a program's name"
        )
    return peer().go(Call(target, args, kwargs))


def gc() -> None:
    """Run a whole collection and return when it is done."""
    peer()
    waiting.collect()


def sleep(seconds: float) -> None:
    """Wait for ``seconds`` (time.Sleep). In the main thread of a P what else it has to do goes on meanwhile, calls among it: that may take longer."""
    peer().wait_until(lambda: False, seconds)


def num_goroutine() -> int:
    """How many goroutines with frames there are, and programs that wait at channels: Go's runtime.NumGoroutine."""
    _running()
    return num_goroutines()  # type: ignore[no-any-return]


def num_procs() -> int:
    """GOMAXPROCS of this runtime."""
    return int(_running().nprocs)


def _running() -> Any:
    """The runtime's record. RuntimeLost if it has ended: reading numbers enters no kernel that would say so."""
    peer()
    shut_down_if_orphaned()
    runtime = view(runtime_dtype, _RUNTIME)[0]
    if runtime.xshutdown:
        raise RuntimeLost("the runtime has ended")
    return runtime
