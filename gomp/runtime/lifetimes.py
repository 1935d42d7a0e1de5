"""Finalizers and cleanups, with Go's semantics and Go's messages (mfinal.go, mcleanup.go).

What the collector does is in :mod:`gomp.core.gc.specials`, who runs the functions in :mod:`~gomp.runtime.callbacks`. Where Go ends the program with a
throw that nothing can catch, gomp raises FinalizerError; where it panics, CleanupError.

What they are given is a reference, or a pointer into an object (:mod:`~gomp.runtime.pointers`). Globals are accepted, as in Go, and never die.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from gomp.core.gc.specials import CLEANUPS, FINALIZERS
from gomp.core.mutator import lifetimes as kernels
from gomp.errors import CleanupError, FinalizerError
from gomp.runtime import type_table
from gomp.runtime.callbacks import callbacks
from gomp.runtime.handles import table
from gomp.runtime.pointers import Pointer, error_of, has_own_slot, may_be_tiny, no_pointer
from gomp.runtime.references import Reference, is_usable, slot_of
from gomp.runtime.root_table import Global
from gomp.runtime.slots import Handle, passed_on

__all__ = ["Cleanup", "add_cleanup", "set_finalizer"]

T = TypeVar("T")


def _withdrawer(obj: Reference, kind: int) -> Callable[[int], object]:
    """What takes back what an object has under the number of a function."""

    def withdraw(number: int) -> None:
        if is_usable(obj):
            table.call(kernels.withdraw, slot_of(obj), kind, number)

    return withdraw


# --- finalizers -------------------------------------------------------------------------------------------------------


def set_finalizer(obj: Any, function: Callable[[Any], object] | None) -> None:
    """Have ``function(obj)`` called once ``obj`` can no longer be reached; None takes it back.

    It runs some time after the collection that finds the object unreachable, in a thread of this process. The object lives until then; if the
    function does not keep it, the next collection frees it. Not promised: in which order, and whether it runs before the process ends.
    """
    if obj is None:
        raise FinalizerError("runtime.SetFinalizer: first argument is nil")
    if isinstance(obj, Global):
        return
    if not isinstance(obj, Reference):
        raise FinalizerError(f"runtime.SetFinalizer: first argument is {type(obj).__name__}, not pointer")
    if function is None:
        number = table.call(kernels.clear_finalizer, slot_of(obj), 0)
        if number > 0:
            callbacks.forget(number)
        return
    _check_finalizer(obj, function)
    finalize = functools.partial(_finalize, type(obj), may_be_tiny(obj), function)
    with callbacks.registering(finalize, _withdrawer(obj, FINALIZERS)) as number:
        slot = slot_of(obj)
        callbacks.need(FINALIZERS)  # before it is registered: this may raise
        key = type_table.described(type(obj))
        status = table.call(kernels.set_finalizer, slot, 0, number, int(may_be_tiny(obj)), key)
        if status < 0:
            raise error_of(status, FinalizerError, "runtime.SetFinalizer: pointer")


def _finalize(cls: type[Reference], is_tiny: bool, function: Callable[[Any], object], owner: Handle) -> None:
    function(_given(cls, is_tiny, owner))


def _given(cls: type[Reference], is_tiny: bool, owner: Handle) -> Reference:
    """What a finalizer is given, and nobody else has."""
    obj = passed_on(owner, cls)
    if isinstance(obj, Pointer):
        obj.is_tiny = is_tiny
    return obj


def _check_finalizer(obj: Reference, function: Any) -> None:
    if not callable(function):
        raise FinalizerError(f"runtime.SetFinalizer: second argument is {type(function).__name__}, not a function")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C: it will say what it does not take
        return
    parameters = list(signature.parameters.values())
    problem = f"runtime.SetFinalizer: cannot pass {type(obj).__name__} to finalizer func({', '.join(map(_shown, parameters))})"
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        raise FinalizerError(f"{problem} because dotdotdot")
    try:
        signature.bind(obj)
    except TypeError:
        raise FinalizerError(problem) from None
    wanted = _annotation(function, parameters[0])
    if isinstance(wanted, type) and not isinstance(obj, wanted):
        raise FinalizerError(problem)


def _shown(parameter: inspect.Parameter) -> str:
    if parameter.annotation is parameter.empty:
        return parameter.name
    return str(getattr(parameter.annotation, "__name__", parameter.annotation))


def _annotation(function: Any, parameter: inspect.Parameter) -> object:
    try:
        return inspect.get_annotations(function, eval_str=True).get(parameter.name)
    except (NameError, TypeError):
        return None


# --- cleanups ---------------------------------------------------------------------------------------------------------


class Cleanup:
    """What :func:`add_cleanup` has arranged."""

    def __init__(self, record: int = 0, number: int = 0) -> None:
        self._record, self._number = record, number

    @property
    def words(self) -> tuple[int, int]:
        """What it is made of."""
        return self._record, self._number

    def __reduce__(self) -> Any:
        raise TypeError("a cleanup stays in the process that registered it, which runs or stops it")

    def stop(self) -> None:
        """Take it back, unless it is due already. May be repeated."""
        if (
            self._record
            and callbacks.knows(self._number)
            and table.call(kernels.stop_cleanup, self._record, self._number)
        ):
            callbacks.forget(self._number)


def add_cleanup(ptr: Any, function: Callable[[T], object], arg: T) -> Cleanup:
    """Have ``function(arg)`` called some time after the object that ``ptr`` points into is gone.

    Unlike a finalizer it never sees the object, which is freed at once; an object may have several, and they work in cycles. ``arg`` and ``function``
    must not lead back to the object, or it will never be gone.
    """
    if ptr is None:
        raise CleanupError("runtime.AddCleanup: ptr is nil")
    if not callable(function):
        raise TypeError(f"gomp.add_cleanup: {type(function).__name__} is not a function")
    if isinstance(ptr, Global):
        return Cleanup()
    if not isinstance(ptr, Reference):
        raise TypeError(f"gomp.add_cleanup: {no_pointer(ptr)}")
    _check_cleanup(ptr, function, arg)
    with callbacks.registering(lambda _: function(arg), _withdrawer(ptr, CLEANUPS)) as number:
        slot = slot_of(ptr)
        callbacks.need(CLEANUPS)
        record = table.call(kernels.add_cleanup, slot, 0, number)
        if record < 0:
            raise error_of(record, CleanupError, "runtime.AddCleanup: ptr")
    return Cleanup(record, number)


def _check_cleanup(ptr: Reference, function: Callable[..., object], arg: object) -> None:
    if isinstance(arg, Reference) and _where(arg, ptr) == kernels.SAME_ADDRESS:
        raise CleanupError("runtime.AddCleanup: ptr is equal to arg, cleanup will never run")
    if any(_keeps(held, ptr) for held in _within(arg)):
        raise CleanupError("runtime.AddCleanup: ptr is within arg, cleanup will never run")
    if any(_keeps(held, ptr) for cell in _held_by(function) for held in _within(cell)):
        raise CleanupError("runtime.AddCleanup: cleanup function closes over ptr, cleanup will never run")


def _where(held: Reference, ptr: Reference) -> int:
    return table.call(kernels.is_in_slot_of, slot_of(ptr), slot_of(held))


def _keeps(held: object, ptr: Reference) -> bool:
    """Whether it is a reference into the object that ``ptr`` points into. As in Go, two tiny objects in one slot are two."""
    if not isinstance(held, Reference):
        return False
    where = _where(held, ptr)
    return where in (kernels.SAME_ADDRESS, kernels.SAME_SLOT) or (
        where == kernels.SAME_TINY_SLOT and (has_own_slot(ptr) or has_own_slot(held))
    )


def _within(value: object) -> Iterator[object]:
    """A value, and what it holds if it is a container of Python's own, at any depth."""
    found, seen = [value], set()
    while found:
        held = found.pop()
        yield held
        if isinstance(held, (list, tuple, set, frozenset, dict)) and id(held) not in seen:
            seen.add(id(held))
            found += itertools.chain(held, held.values()) if isinstance(held, dict) else held


def _held_by(function: Any) -> Iterator[object]:
    """What a function keeps: cells, defaults, the object of a method, the arguments of a partial."""
    if isinstance(function, functools.partial):
        yield from function.args
        yield from function.keywords.values()
        yield from _held_by(function.func)
        return
    yield getattr(function, "__self__", None)
    function = getattr(function, "__func__", function)
    yield from getattr(function, "__defaults__", None) or ()
    yield from (getattr(function, "__kwdefaults__", None) or {}).values()
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # empty
            continue
