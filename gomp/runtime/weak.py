"""Weak pointers, with Go's semantics (weak). What they are in the heap: :mod:`gomp.core.mutator.weak`."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar

from gomp.core.mutator import weak as kernels
from gomp.core.mutator.weak import BOX_BYTES
from gomp.core.sched.status import OK
from gomp.runtime import transit
from gomp.runtime.handles import kernels as boundary_kernels
from gomp.runtime.handles import table
from gomp.runtime.pointers import Pointer, error_of, no_pointer
from gomp.runtime.references import OpaqueLayout, Reference, is_usable, key_of, slot_of
from gomp.runtime.root_table import Global
from gomp.runtime.slots import filled

__all__ = ["Weak", "weak"]

T = TypeVar("T")


class WeakHandle(Reference):
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
        if not isinstance(self._handle, WeakHandle):
            return self._handle  # type: ignore[no-any-return]
        cls, is_tiny = self._cls if isinstance(self._cls, tuple) else (self._cls, None)
        found: Any
        status, found = filled(cls, kernels.weak_value, slot_of(self._handle))
        if status == kernels.NIL:
            return None
        if is_tiny is not None:
            found.is_tiny = is_tiny
        return found  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Weak):
            return NotImplemented
        return bool(self._handle == other._handle)

    def __hash__(self) -> int:
        return hash(self._handle)

    def __repr__(self) -> str:
        if self._handle is None:
            return "<weak None>"
        is_lost = isinstance(self._handle, WeakHandle) and not is_usable(self._handle)
        return repr(self._handle) if is_lost else f"<weak {self.value()!r}>"

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: object) -> Any:
        return self

    def __reduce__(self) -> Any:
        if not isinstance(self._handle, WeakHandle) or isinstance(self._cls, tuple):
            return Weak, (self._handle, self._cls)
        return _received, (self._handle, key_of(self._cls), transit.declaration(self._cls))


def _received(handle: WeakHandle, key: int, declared: bytes | None) -> Weak[Any]:
    return Weak(handle, transit.class_of(key, declared))


def target_class(pointer: Weak[Any]) -> Any:
    """The class of the object that a weak pointer was made of; None if that was None. TypeError, without the beginning, for other pointers."""
    if pointer._handle is None:
        return None
    if not isinstance(pointer._handle, WeakHandle) or isinstance(pointer._cls, tuple):
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
        raise TypeError(f"gomp.weak: {no_pointer(ptr)}")
    cls = (Pointer, ptr.is_tiny) if isinstance(ptr, Pointer) else type(ptr)
    return Weak(_handle_of(ptr), cls)


def _handle_of(ptr: Reference) -> WeakHandle:
    found, handle = filled(WeakHandle, kernels.find_weak, slot_of(ptr), 0)
    if found == kernels.NIL:
        slot = slot_of(handle)
        table.allocate(boundary_kernels.new_object, slot, BOX_BYTES, 0)
        status = table.call(kernels.add_weak, slot_of(ptr), 0, slot)
        if status != OK:
            raise error_of(status, ValueError, "gomp.weak: pointer")
    return handle
