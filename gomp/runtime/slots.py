"""Who owns a slot of this process's handle table: an object that gives it back when it dies.

What is interrupted must leave no slot without an owner: a slot that a kernel has filled roots an object, for good if nobody ever clears it. Ctrl-C
raises its exception wherever Python looks for signals: where a function begins, after a call, where a loop begins anew. So there is an owner first,
then a slot, in one line in which Python does not look (nor does a debugger, which looks between lines), and only then does a kernel fill it. Whatever
raises from there on, the owner dies and the slot is free: nothing needs to be undone.

The dying is one piece too (:mod:`~gomp.runtime.uninterrupted`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from gomp.errors import RuntimeLost
from gomp.runtime.handles import NOBODYS, Slot, table
from gomp.runtime.uninterrupted import uninterrupted

H = TypeVar("H", bound="Handle")
object_new = object.__new__
DEAD = NOBODYS.handle


class Handle:
    """The owner of a slot. ``_handle``: the slot's number among all of this process's runtimes; DEAD if it has passed it on, or died."""

    __slots__ = ("_handle", "_slot")
    _handle: int
    _slot: Slot

    @uninterrupted
    def __del__(self, table: Any = table, nobodys: Slot = NOBODYS, dead: int = DEAD) -> None:
        # What it needs is bound to it: the module may be gone when the interpreter ends.
        try:
            mine = self._slot
        except AttributeError:  # who was making it was interrupted
            return
        self._slot, self._handle = nobodys, dead  # another that dies with it may still use it
        if mine.handle >= table.first:
            table.words[mine.slot] = 0
            mine.next, table.free = table.free, mine


def empty(cls: type[H]) -> H:
    """A new ``cls`` that owns an empty slot. Raises RuntimeLost, OutOfMemory."""
    made = object_new(cls)
    while True:
        try:
            made._slot, table.free = table.free, table.free.next  # type: ignore[assignment, union-attr]
            break
        except AttributeError:  # there is none
            table.grow()
    made._handle = made._slot.handle
    return made


def filled(cls: type[H], kernel: Callable[..., int], *args: int) -> tuple[int, H]:
    """What a kernel answers whose last argument is an empty slot, and the owner of the slot. It may refuse with RETRY (:meth:`HandleTable.call`)."""
    made = empty(cls)
    return table.call(kernel, *args, slot_in(made)), made


def allocated(cls: type[H], kernel: Callable[..., int], *args: int) -> H:
    """The owner of the slot into which an allocation kernel has put a new object. Waits for collections as the kernel says."""
    made = empty(cls)
    table.allocate(kernel, slot_in(made), *args)
    return made


def slot_in(owner: Handle) -> int:
    """The slot of an owner that was made just now. RuntimeLost if its runtime has ended all the same."""
    slot = owner._handle - table.first
    if slot < 0:
        raise RuntimeLost("the runtime has ended")
    return slot


def passed_on(owner: Handle, cls: type[H]) -> H:
    """A new ``cls`` that owns the slot from now on; the former owner has none."""
    made = object_new(cls)
    made._slot, owner._slot = owner._slot, NOBODYS
    made._handle, owner._handle = owner._handle, DEAD
    return made
