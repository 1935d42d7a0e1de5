"""This process's mapping of a runtime's segments: undone when the runtime has ended and nothing looks at it any more.

A numpy view and a thread asleep in a kernel read the mapping itself; nobody can take it from them, and without it their next read is a SIGSEGV.
So both are counted. A mapping that is looked at when its runtime ends stays, with its descriptors, until another runtime is to be opened.

What is counted is an object that lives while somebody looks. Its death ends that, by a callback that is no Python, in which a Ctrl-C could be lost.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from gomp.errors import RuntimeLost

_undo_later: Callable[[], None] | None = None


class _Looker:
    """What a sleeping thread has while it looks."""

    __slots__ = ("__weakref__",)


class _Mark(weakref.ref[Any]):
    """Of a looker: also of one that has no hash."""

    __slots__ = ()
    __hash__ = object.__hash__


_lookers: set[_Mark] = set()


def _count(looker: object) -> None:
    """Count it until it dies."""
    _lookers.add(_Mark(looker, _lookers.discard))


def watch(view: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``view``, which keeps the mapping for as long as it or anything made from it lives."""
    buffer: Any = view
    while isinstance(buffer, np.ndarray):
        buffer = buffer.base
    _count(buffer)
    return view


@contextmanager
def asleep() -> Iterator[None]:
    """Around a call of a kernel that sleeps without the interpreter's lock: another thread may end the runtime meanwhile."""
    looker = _Looker()
    _count(looker)
    try:
        yield
    finally:
        del looker


def is_looked_at() -> bool:
    """Whether something looks at the mapping."""
    return bool(_lookers)


def release(undo: Callable[[], None]) -> None:
    """Call ``undo`` to unmap the segments and close their descriptors: now, or when :func:`reclaim` finds that nothing looks at them."""
    global _undo_later
    if _lookers:
        _undo_later = undo
    else:
        undo()


def reclaim() -> None:
    """Make the addresses free for another runtime. Raises RuntimeLost if something still looks at the last one."""
    global _undo_later
    if _undo_later is None:
        return
    if _lookers:
        gc.collect()
    if _lookers:
        raise RuntimeLost(
            "the last runtime of this process is still looked at: let go of its arrays and its rt.spans, or end the threads that wait in it"
        )
    _undo_later()
    _undo_later = None
