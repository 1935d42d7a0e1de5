"""Finalizers, cleanups, weak pointers and ``keep_alive``, with Go's semantics and Go's messages (mfinal.go, mcleanup.go, weak).

What the collector does is in :mod:`gomp.core.gc.specials`, who runs the functions in :mod:`~gomp.runtime.callbacks`. Where Go ends the program with a
throw that nothing can catch, gomp raises FinalizerError; where it panics, CleanupError.

A pointer is a reference, or a :class:`Pointer` into an object, made by :func:`pointer`. Globals are accepted, as in Go, and never die.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from gomp.core.gc.specials import CLEANUPS, FINALIZERS
from gomp.core.mutator import boundary
from gomp.core.mutator import lifetimes as kernels
from gomp.core.sched.status import OK
from gomp.errors import CleanupError, FinalizerError, OutOfMemory
from gomp.runtime import transit, type_table
from gomp.runtime.callbacks import callbacks
from gomp.runtime.fields import Field
from gomp.runtime.handles import kernels as boundary_kernels
from gomp.runtime.handles import table
from gomp.runtime.references import (
    OpaqueLayout,
    Reference,
    address_of,
    is_struct,
    is_usable,
    key_of,
    owner_of_lost,
    reference,
    slot_of,
)
from gomp.runtime.root_table import Global
from gomp.runtime.structs import info

__all__ = ["Cleanup", "Pointer", "Weak", "add_cleanup", "address", "keep_alive", "pointer", "set_finalizer", "weak"]

T = TypeVar("T")
_BOX_BYTES = 16
_TINY_BYTES = 16


# --- pointers into objects --------------------------------------------------------------------------------------------


class Pointer(Reference):
    """A place in an object, which it keeps alive. Equal to another that points to the same place."""

    __slots__ = ("_is_tiny",)
    _is_tiny: bool

    def __repr__(self) -> str:
        return f"<pointer {self.address:#x}>" if is_usable(self) else f"<pointer of {owner_of_lost(self)}>"

    def __copy__(self) -> Any:
        return self

    def __reduce__(self) -> Any:
        raise TypeError(
            "a pointer into an object stays in its process: send the object, and take gomp.pointer of it there"
        )


def _pointer(slot: int, is_tiny: bool) -> Pointer:
    made: Pointer = reference(Pointer, slot)
    made._is_tiny = is_tiny
    return made


def pointer(obj: Any, field: str) -> Pointer:
    """A pointer to a field of ``obj``."""
    found = getattr(type(obj), field, None) if isinstance(obj, Reference) else None
    if not isinstance(found, Field):
        raise TypeError(
            f"gomp.pointer({type(obj).__name__}, {field!r}): give an object and the name of one of its fields"
        )
    _, into = table.fill(kernels.point_into, slot_of(obj), found.offset)
    return _pointer(into, not found.part.reference_words and found.part.size < _TINY_BYTES)


def _may_be_tiny(obj: Reference) -> bool:
    """Whether it has no references and less than 16 bytes: then it may lie anywhere in a slot."""
    if isinstance(obj, Pointer):
        return obj._is_tiny
    return is_struct(type(obj)) and not info(type(obj)).reference_words and info(type(obj)).size < _TINY_BYTES


def _has_own_slot(obj: Reference) -> bool:
    """Whether its class says that no other object lies in its slot."""
    return (isinstance(obj, Pointer) or is_struct(type(obj))) and not _may_be_tiny(obj)


def _no_pointer(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{type(value).__name__} is an array of numpy's: weakref.ref and weakref.finalize know when this process has let go of it"
    return f"{type(value).__name__} is no pointer into the shared heap: give what gomp.new, gomp.array, gomp.map, gomp.str or gomp.bytes has made"


def _error_of(status: int, kind: type[Exception], pointer: str) -> Exception:
    """What to raise where a kernel has answered with a status: a ``kind`` of error, or OutOfMemory. ``pointer`` begins the message."""
    match status:
        case kernels.NOT_IN_BLOCK:
            return kind(f"{pointer} not in allocated block")
        case kernels.NOT_AT_START:
            return kind(f"{pointer} not at beginning of allocated block")
        case kernels.ALREADY_SET:
            return kind("runtime.SetFinalizer: finalizer already set")
        case boundary.OUT_OF_MEMORY:
            return OutOfMemory("no memory for another finalizer, cleanup or weak pointer, even after a collection")
        case _:
            raise AssertionError(f"status {status} of a kernel")


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
    with callbacks.registering(functools.partial(_finalize, type(obj), _may_be_tiny(obj), function)) as number:
        key = type_table.described(type(obj))
        status = table.call(kernels.set_finalizer, slot_of(obj), 0, number, int(_may_be_tiny(obj)), key)
        if status < 0:
            raise _error_of(status, FinalizerError, "runtime.SetFinalizer: pointer")
        callbacks.need(FINALIZERS)


def _finalize(cls: type[Reference], is_tiny: bool, function: Callable[[Any], object], slot: int) -> None:
    function(_pointer(slot, is_tiny) if cls is Pointer else reference(cls, slot))


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
        raise TypeError(f"gomp.add_cleanup: {_no_pointer(ptr)}")
    _check_cleanup(ptr, function, arg)
    with callbacks.registering(lambda _: function(arg)) as number:
        record = table.call(kernels.add_cleanup, slot_of(ptr), 0, number)
        if record < 0:
            raise _error_of(record, CleanupError, "runtime.AddCleanup: ptr")
        callbacks.need(CLEANUPS)
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
        where == kernels.SAME_TINY_SLOT and (_has_own_slot(ptr) or _has_own_slot(held))
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


# --- weak pointers ----------------------------------------------------------------------------------------------------


class _Handle(Reference):
    """The heap object that all weak pointers to one place share."""

    __slots__ = ()
    layout: ClassVar[OpaqueLayout] = OpaqueLayout("weak handle")
    called: ClassVar[str] = "weak pointer"  # in messages


class Weak(Generic[T]):
    """A pointer that does not keep what it points to. Two are equal if they were made of equal pointers, also once those are gone."""

    __slots__ = ("_cls", "_handle")

    def __init__(self, handle: Any, cls: Any) -> None:
        self._handle, self._cls = handle, cls

    def value(self) -> T | None:
        """The object, or None once a collection has found that it cannot be reached: before its finalizer or cleanup runs."""
        if not isinstance(self._handle, _Handle):
            return self._handle  # type: ignore[no-any-return]
        status, into = table.fill(kernels.weak_value, slot_of(self._handle))
        if status == kernels.NIL:
            table.drop(into)
            return None
        return _pointer(into, self._cls[1]) if isinstance(self._cls, tuple) else reference(self._cls, into)  # type: ignore[return-value]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Weak):
            return NotImplemented
        return bool(self._handle == other._handle)

    def __hash__(self) -> int:
        return hash(self._handle)

    def __repr__(self) -> str:
        if self._handle is None:
            return "<weak None>"
        is_lost = isinstance(self._handle, _Handle) and not is_usable(self._handle)
        return repr(self._handle) if is_lost else f"<weak {self.value()!r}>"

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: object) -> Any:
        return self

    def __reduce__(self) -> Any:
        if not isinstance(self._handle, _Handle) or isinstance(self._cls, tuple):
            return Weak, (self._handle, self._cls)
        return _received, (self._handle, key_of(self._cls), transit.declaration(self._cls))


def _received(handle: _Handle, key: int, declared: bytes | None) -> Weak[Any]:
    return Weak(handle, transit.class_of(key, declared))


def weak_of(cls: Any, slot: int) -> Weak[Any]:
    """The weak pointer to an object of the class ``cls`` that owns a slot with its handle."""
    return Weak(reference(_Handle, slot), cls)


def target_class(pointer: Weak[Any]) -> Any:
    """The class of the object that a weak pointer was made of; None if that was None. TypeError, without the beginning, for other pointers."""
    if pointer._handle is None:
        return None
    if not isinstance(pointer._handle, _Handle) or isinstance(pointer._cls, tuple):
        raise TypeError("is a weak pointer to a global or to a part of an object: give the object's own")
    return pointer._cls


def handle_slot(pointer: Weak[Any]) -> int:
    """The slot of a weak pointer's handle."""
    return slot_of(pointer._handle)


def weak(ptr: T) -> Weak[T]:
    """A weak pointer to what ``ptr`` points to. Of None, one that is None for ever; of a global, one that never is."""
    if ptr is None or isinstance(ptr, Global):
        return Weak(ptr, None)
    if not isinstance(ptr, Reference):
        raise TypeError(f"gomp.weak: {_no_pointer(ptr)}")
    cls = (Pointer, ptr._is_tiny) if isinstance(ptr, Pointer) else type(ptr)
    return Weak(_handle_of(ptr), cls)


def _handle_of(ptr: Reference) -> _Handle:
    found, slot = table.fill(kernels.find_weak, slot_of(ptr), 0)
    if found == kernels.NIL:
        table.allocate(boundary_kernels.new_object, slot, _BOX_BYTES, 0)
    handle: _Handle = reference(_Handle, slot)
    if found == kernels.NIL:
        status = table.call(kernels.add_weak, slot_of(ptr), 0, slot)
        if status != OK:
            raise _error_of(status, ValueError, "gomp.weak: pointer")
    return handle


# --- addresses --------------------------------------------------------------------------------------------------------


def address(obj: object) -> int:
    """Where the object is, as a number that keeps nothing alive: ``obj.address``, for type checkers, and where a field has that name."""
    if not isinstance(obj, Reference):
        raise TypeError(f"gomp.address: {_no_pointer(obj)}")
    return address_of(obj)


# --- keep_alive -------------------------------------------------------------------------------------------------------


def keep_alive(*objects: object) -> None:
    """Nothing; but whoever has to hold the objects until this call does. For what still uses an object's memory by its bare address."""
