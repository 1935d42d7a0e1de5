"""Handles: the slots in shared memory through which Python holds objects of the heap.

A reference in Python is a handle number and nothing else. The slot with that number, in this P's handle table, holds the address; the
collector finds the object there, and only kernels read it. Python picks free slots, kernels fill them, and when a reference dies its slot
is cleared and goes back to the free list: no kernel and no lock, so it may die wherever Python has it die. How a slot gets an owner, and is never
without one, is said in :mod:`~gomp.runtime.slots`.

A process may use one runtime after another. Numbers are never used twice: each table begins where the one before ended, so a
reference that outlived its runtime is told apart from a live one by one comparison. While no runtime is open no number is valid.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from typing import Any, Protocol

from gomp.core.jit import load_kernels
from gomp.core.mutator import boundary
from gomp.core.mutator.types import TABLE_FULL
from gomp.core.sched.status import OK, RETRY, shut_down_if_orphaned, wait_to_enter
from gomp.core.shm import layout
from gomp.core.shm.records import runtime_dtype, view
from gomp.errors import OutOfMemory, RuntimeLost
from gomp.runtime import cells, mapping

_CLOSED = 1 << 62
_GROW_BY = 512
_WAIT_NS = 5_000_000
_on_open: list[Callable[[], None]] = []
_on_close: list[Callable[[], None]] = []


class Kernels:
    """The kernels that Python calls most, without the Python layer around them once they are loaded: 290 ns a call instead of 700 to 900."""

    handle_addr: Any
    is_same_object: Any
    new_array: Any
    new_object: Any
    new_struct: Any
    read_inside: Any
    read_reference: Any
    write_reference: Any

    def __init__(self) -> None:
        self.bind()

    def bind(self) -> None:
        for name in Kernels.__annotations__:
            kernel = getattr(boundary, name)
            setattr(self, name, getattr(kernel, "entry", kernel))


class Slot:
    """A slot of the open runtime's table: its number, the ``handle`` that says it for ever, and the ``next`` free one while it is free itself.

    Taking one and giving it back move two fields and nothing else: Python's lists would have it call or make something, and look for signals there.
    """

    __slots__ = ("handle", "next", "slot")

    def __init__(self, handle: int, slot: int, next_free: Slot | None = None) -> None:
        self.handle, self.slot, self.next = handle, slot, next_free


NOBODYS = Slot(-1, -1)


class Waits(Protocol):
    """What an allocation may have to wait for (see :mod:`gomp.core.mutator.boundary`)."""

    def wait_for_begin(self, begun: int) -> None: ...

    def wait_for_end(self, ended: int) -> None: ...

    def wait_for_credit(self) -> None: ...


class HandleTable:
    """This process's handles in the open runtime. ``first`` is the number of its slot 0, above every number if none is open.

    ``free``: the first of the empty slots that have no owner.
    """

    __slots__ = ("_collector", "_next_first", "_offered", "first", "free", "of_parent", "p_idx", "words")

    def __init__(self) -> None:
        self.first = _CLOSED
        self.free: Slot | None = None
        self._offered = 0  # slots that are free, or have been
        self.p_idx = -1
        self.words: memoryview[int] = memoryview(b"").cast("q")
        self._next_first = 0
        self.of_parent = range(0)  # handles of the process that this one was forked from
        self._collector: Waits = _Alone()

    def open(self, p_idx: int, collector: Waits | None = None) -> None:
        """Begin with P ``p_idx``, which is this process's: its segments are mapped and its record is in place.

        ``collector`` is what allocations wait for. What a former process left in the table is cleared.
        """
        load_kernels()
        kernels.bind()
        self.p_idx = p_idx
        self.words = _table_words(p_idx)
        cells.open_views(int(view(runtime_dtype, layout.RUNTIME_BASE)[0].max_pages) * layout.PAGE_SIZE)
        used = boundary.handles_in_use()
        for slot in range(used):
            self.words[slot] = 0
        self.free, self._offered = None, 0
        self._collector = collector or _Alone()
        first = self._next_first
        self._next_first += layout.HANDLES_PER_P
        for announce in _on_open:
            announce()
        self.first = first  # last: from here on other threads use it
        self._offer(first, 0, used)

    def close(self) -> None:
        """From now on every reference of this process is dead. Called before the segments are unmapped."""
        self.first = _CLOSED
        self.words = memoryview(b"").cast("q")
        self.free = None
        cells.close_views()
        for announce in _on_close:
            announce()

    def leave(self) -> None:
        """In a forked child, whose references are its parent's."""
        if self.is_open:
            self.of_parent = range(self.first, self._next_first)
        self.close()

    @property
    def is_open(self) -> bool:
        return self.first != _CLOSED

    def check_open(self) -> None:
        """RuntimeLost if this process has no runtime open: nothing is mapped then, and a kernel would be a crash."""
        if not self.is_open:
            raise RuntimeLost("no runtime is open in this process: use gomp.Runtime()")

    def check_size(self, size: int, what: str) -> None:
        """OutOfMemory if so many bytes are more than the whole heap."""
        self.check_open()
        heap = int(view(runtime_dtype, layout.RUNTIME_BASE)[0].max_pages) * layout.PAGE_SIZE
        if size > heap:
            self.check_open()  # a handler has ended it
            raise OutOfMemory(f"{what} takes {size:,} bytes, and the heap has {heap:,}: choose a larger max_heap")

    def grow(self) -> None:
        """Make more slots free. An interruption leaves what the next call finds."""
        self.check_open()
        first, offered = self.first, self._offered
        if (
            boundary.handles_in_use() == offered
            and self.call(boundary.grow_handles, _GROW_BY) == boundary.OUT_OF_MEMORY
        ):
            raise OutOfMemory(
                f"no room for more references in this process: {layout.HANDLES_PER_P} at most, and shared memory for them"
            )
        self._offer(first, offered, boundary.handles_in_use())

    def _offer(self, first: int, low: int, high: int) -> None:
        """The slots from ``low`` to below ``high`` are free from now on; the lowest is taken first. Some may have been given back meanwhile."""
        if low == high:
            return
        last = more = Slot(first + high - 1, high - 1)
        for slot in range(high - 2, low - 1, -1):
            more = Slot(first + slot, slot, more)
        if self.first == first and self._offered == low:  # no other thread was faster
            last.next, self.free = self.free, more
            self._offered = high

    def call(self, kernel: Callable[..., int], *args: int) -> int:
        """Call a kernel that may refuse with RETRY until it does not; signals are handled in between. Raises RuntimeLost."""
        status = kernel(*args)
        while status == RETRY:
            with mapping.asleep():  # another thread may end the runtime between any two steps
                wait_until_enterable()
                status = kernel(*args)
        return status

    def allocate(self, kernel: Callable[..., int], slot: int, *args: int) -> None:
        """Call an allocation kernel for an empty slot, waiting for collections as it says."""
        status = kernel(slot, *args, 0)
        if status != OK:
            self.settle(status, kernel, slot, *args)

    def settle(self, status: int, kernel: Callable[..., int], slot: int, *args: int) -> None:
        """What remains to be done when an allocation kernel has answered anything but OK. Raises OutOfMemory."""
        if status == RETRY:
            status = self.call(kernel, slot, *args, 0)
        while status <= -boundary.WAIT_BASE:
            self._collector.wait_for_end(-status - boundary.WAIT_BASE)
            status = self.call(kernel, slot, *args, 1)
        if status == boundary.OUT_OF_MEMORY:
            raise OutOfMemory("the heap is full, even after a collection")
        if status == boundary.NO_TYPE:
            raise AssertionError("allocated an object whose type is not in the type table")
        if status >= boundary.WAIT_BASE:
            self._collector.wait_for_begin(status - boundary.WAIT_BASE)
        elif status == boundary.WAIT_CREDIT:
            self._collector.wait_for_credit()


def on_open(announce: Callable[[], None]) -> None:
    """Have ``announce()`` called whenever this process opens a runtime, and now if it has one: for what is looked up once a runtime."""
    _on_open.append(announce)
    if table.is_open:
        announce()


def on_close(announce: Callable[[], None]) -> None:
    """Have ``announce()`` called whenever this process's references become dead: the segments are still mapped, but for a forked child."""
    _on_close.append(announce)


def wait_until_enterable() -> None:
    """Wait for a stop or a claim to end, without the interpreter's lock. Returns after some ms at the latest, for signals.

    Who calls it is counted among those who look at the mapping. Raises RuntimeLost.
    """
    table.check_open()
    shut_down_if_orphaned()
    if view(runtime_dtype, layout.RUNTIME_BASE)[0].xshutdown:
        raise RuntimeLost("the runtime has ended")
    wait_to_enter(_WAIT_NS)
    table.check_open()


def check_table(status: int, what: str) -> int:
    if status == TABLE_FULL:
        raise OutOfMemory(f"no room for {what}: it is full, or there is no memory left")
    return status


def _table_words(p_idx: int) -> memoryview[int]:
    words = (ctypes.c_int64 * layout.HANDLES_PER_P).from_address(layout.HANDLES_BASE + p_idx * layout.HANDLES_PER_P * 8)
    return memoryview(words).cast("B").cast("q")


class _Alone:
    """Without a coordinator (in tests of one process) nobody collects but the caller."""

    def wait_for_begin(self, begun: int) -> None:
        time.sleep(0)

    def wait_for_end(self, ended: int) -> None:
        time.sleep(0)

    def wait_for_credit(self) -> None:
        time.sleep(0)


kernels = Kernels()
table = HandleTable()
os.register_at_fork(after_in_child=table.leave)
