"""This process's mapping of a runtime's segments: undone when the runtime has ended and nothing looks at it any more.

A numpy view and a thread asleep in a kernel read the mapping itself; nobody can take it from them, and without it their next read is a SIGSEGV.
And who waits for a goroutine knows it by an address that is another's in the next runtime. So all of them are counted. A mapping that is looked at
when its runtime ends stays, with its descriptors, until another runtime is to be opened.

What is counted is an object that lives while somebody looks. Its death ends that, by a callback that is no Python, in which a Ctrl-C could be lost.
"""

from __future__ import annotations

import gc
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from gomp.errors import RuntimeLost

_PATIENCE_S = 0.5  # those who wait for a goroutine look every 0.1 s whether the runtime has ended
_NAP_S = 0.005
_undo_later: Callable[[], None] | None = None


class _Looker:
    """What a sleeping thread has while it looks."""

    __slots__ = ("__weakref__",)


class _Mark(weakref.ref[Any]):
    """Of a looker: also of one that has no hash."""

    __slots__ = ()
    __hash__ = object.__hash__


_views: set[_Mark] = set()
_sleepers: set[_Mark] = set()


def _count(looker: object, among: set[_Mark]) -> None:
    """Count it until it dies."""
    among.add(_Mark(looker, among.discard))


def watch(view: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``view``, which keeps the mapping for as long as it or anything made from it lives."""
    buffer: Any = view
    while isinstance(buffer, np.ndarray):
        buffer = buffer.base
    _count(buffer, _views)
    return view


@contextmanager
def asleep() -> Iterator[None]:
    """Around what sleeps without the interpreter's lock, and goes on with what it knows of the heap: another thread may end the runtime meanwhile."""
    looker = _Looker()
    _count(looker, _sleepers)
    try:
        yield
    finally:
        del looker


def is_viewed() -> bool:
    """Whether there are views of the mapping."""
    return bool(_views)


def _is_looked_at() -> bool:
    return bool(_views or _sleepers)


def _forget_in_child() -> None:
    """A forked child has neither the mapping nor the threads that slept in it."""
    _views.clear()
    _sleepers.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def release(undo: Callable[[], None]) -> None:
    """Call ``undo`` to unmap the segments and close their descriptors: now, or when :func:`reclaim` finds that nothing looks at them."""
    global _undo_later
    if _is_looked_at():
        _undo_later = undo
    else:
        undo()


def reclaim() -> None:
    """Make the addresses free for another runtime. Raises RuntimeLost if something still looks at the last one."""
    global _undo_later
    if _undo_later is None:
        return
    deadline = time.monotonic() + _PATIENCE_S
    while _sleepers and time.monotonic() < deadline:
        time.sleep(_NAP_S)
    if _is_looked_at():
        gc.collect()
    if _is_looked_at():
        raise RuntimeLost(
            "the last runtime of this process is still looked at: let go of its arrays and its rt.spans (a notebook keeps what it has "
            "shown: %reset), or end the threads that wait in it"
        )
    _undo_later()
    _undo_later = None
