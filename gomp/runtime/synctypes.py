"""Locks and groups in compiled code. In functions, where an operation waits; in frames, ``f.lock(m)`` and ``f.wait(group)`` are actions that do.

==================  ==============================================================================
``m.lock()``        waits; ``m.try_lock()`` does not, and says whether it is locked now
``m.unlock()``      RuntimeError if nobody holds it
``group.add(n)``    and ``group.done()``; ValueError if fewer than none are left
``group.wait()``    waits until all are done
==================  ==============================================================================
"""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.core.typing.templates import AttributeTemplate, infer_getattr

from gomp.core.jit import inline
from gomp.core.mutator.sync import NEGATIVE as BELOW_ZERO
from gomp.core.mutator.sync import NOT_LOCKED, add_group, holder, try_lock_mutex, unlock_mutex
from gomp.core.mutator.synccalls import lock_waiting, wait_group_waiting
from gomp.errors import NilDereference
from gomp.runtime.endings import raise_for
from gomp.runtime.refops import address
from gomp.runtime.reftypes import GroupRef, MutexRef, in_compiled_code, rejection, shown
from gomp.runtime.sync import NEGATIVE, UNLOCKED


@inline
def check_there(at: int) -> int:
    """The address of a lock or a group. NilDereference if it is 0."""
    if at == 0:
        raise NilDereference("a lock or a group that is None")
    return at


@in_compiled_code(MutexRef, "lock")
def _lock(m: Any) -> Any:
    def lock(m: Any) -> None:
        done = lock_waiting(check_there(address(m)))
        if done < 0:
            raise_for(done)

    return lock


@in_compiled_code(MutexRef, "try_lock")
def _try_lock(m: Any) -> Any:
    return lambda m: try_lock_mutex(check_there(address(m)), holder(0))


@in_compiled_code(MutexRef, "unlock")
def _unlock(m: Any) -> Any:
    def unlock(m: Any) -> None:
        if unlock_mutex(check_there(address(m))) == NOT_LOCKED:
            raise RuntimeError(UNLOCKED)

    return unlock


@in_compiled_code(GroupRef, "add")
def _add(group: Any, n: Any) -> Any:
    if not isinstance(n, types.Integer):
        raise rejection(f"n of WaitGroup.add is an int, not {shown(n)}")

    def add(group: Any, n: Any) -> None:
        if add_group(check_there(address(group)), n) == BELOW_ZERO:
            raise ValueError(NEGATIVE)

    return add


@in_compiled_code(GroupRef, "done")
def _done(group: Any) -> Any:
    def done(group: Any) -> None:
        if add_group(check_there(address(group)), -1) == BELOW_ZERO:
            raise ValueError(NEGATIVE)

    return done


@in_compiled_code(GroupRef, "wait")
def _wait(group: Any) -> Any:
    def wait(group: Any) -> None:
        done = wait_group_waiting(check_there(address(group)))
        if done < 0:
            raise_for(done)

    return wait


@infer_getattr
class _GroupAttribute(AttributeTemplate):  # type: ignore[misc]
    key = GroupRef

    def resolve_go(self, type_: GroupRef) -> types.Type:
        raise rejection(
            "group.go is Python's; write group.add(1) and gomp.go(F, ...) here, and group.done() where F returns"
        )
