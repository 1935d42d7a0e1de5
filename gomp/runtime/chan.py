"""``gomp.Chan``: channels in the shared heap, from Python. The channel itself is :mod:`gomp.core.mutator.chan`.

``gomp.Chan[T](n)`` makes one that holds up to n values, or with ``gomp.Chan[T]()`` none: then who sends waits for who receives. T is int, float,
bool, or a class of references. Frames send and receive by their actions, compiled code and Python by methods, all at the same channel.

Who waits in Python has released the interpreter's lock; the main thread of a P runs other goroutines meanwhile.
"""

from __future__ import annotations

import functools
import struct as packing
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from gomp.core.heap.chanq import BUFFER, COUNT, HOLDS_LINKS, SIZE
from gomp.core.mutator import chancalls
from gomp.core.mutator.boundary import NO_SLOT, OUT_OF_MEMORY
from gomp.core.mutator.chan import CHAN_CLASS, CHAN_MASK, CHAN_SLOT, SCAN_BYTES
from gomp.core.mutator.sites import set_site
from gomp.core.shm.records import CHAN_CLOSED, CHAN_DONE, CHAN_WOULD_BLOCK
from gomp.errors import ClosedChannel, OutOfMemory
from gomp.runtime import type_table
from gomp.runtime.arrays import array
from gomp.runtime.handles import kernels, table
from gomp.runtime.kinds import BOOL, FLOAT, INT, Scalar, scalar
from gomp.runtime.parts import Link, Names, Part, evaluated
from gomp.runtime.references import (
    OpaqueLayout,
    Reference,
    ReferenceMeta,
    is_declared,
    reference,
    set_word_at,
    slot_of,
    word_at,
    write_reference,
    wrong_class,
)

__all__ = ["Chan"]

_MOST = 1 << 32
_MISSING: Any = object()
_handing = threading.Lock()
T = TypeVar("T")


class ChanMeta(ReferenceMeta):
    """The class of the classes of channels, whose instances are made by calling them."""

    elem: Any
    sends_links: bool

    def __call__(cls, n: Any = 0, /) -> Any:  # type: ignore[override]
        if cls.elem is None:
            raise TypeError("write gomp.Chan[T](n), with T what is sent, and n how many wait to be received at most")
        if not isinstance(n, int) or isinstance(n, bool) or not 0 <= n < _MOST:
            raise ValueError(f"{cls.__name__}(n): n is how many values it holds, 0 to {_MOST - 1}, not {n!r}")
        type_table.register(cls)
        buffer = array(cls.elem if cls.sends_links else INT, n) if n else None
        slot = table.take()
        table.allocate(kernels.new_struct, slot, CHAN_CLASS, CHAN_SLOT, CHAN_MASK, SCAN_BYTES)
        of: Any = cls
        made = reference(of, slot)
        set_word_at(slot, HOLDS_LINKS, int(cls.sends_links))
        if buffer is not None:
            write_reference(type(buffer), made, BUFFER, buffer, lambda: "the buffer of a channel")
            set_word_at(slot, SIZE, n)
        return made


class Chan(Reference, Generic[T], metaclass=ChanMeta):
    """A reference to a channel: ``gomp.Chan[T]`` are its classes."""

    __slots__ = ()
    elem: ClassVar[Any] = None
    part: ClassVar[Part]
    sends_links: ClassVar[bool] = False
    made_by: ClassVar[str] = "gomp.Chan[T](n)"
    layout: ClassVar[Any]

    if not TYPE_CHECKING:  # which knows what Generic makes of it

        def __class_getitem__(cls, elem: Any) -> Any:
            elem = evaluated(elem, Names())
            kind = scalar(elem)
            if kind not in (INT, FLOAT, BOOL) and not (isinstance(elem, ReferenceMeta) and is_declared(elem)):
                raise TypeError(
                    f"a channel is of int, float, bool or a class of references that is declared before, not {getattr(elem, '__name__', elem)}"
                )
            return chan_class(elem if kind is None else kind)

    else:

        def __init__(self, n: int = 0, /) -> None: ...

    def send(self, value: T, timeout: float | None = None) -> None:
        """Send, which waits while nobody receives and no room is left. Raises ClosedChannel; TimeoutError after ``timeout`` seconds."""
        ch = slot_of(self)
        word, source = self._given(value)
        done = table.call(chancalls.chan_send, ch, word, source)
        if done == CHAN_WOULD_BLOCK:
            done, _ = _wait(timeout, NO_SLOT, chancalls.chan_wait_to_send, ch, word, source)
        if done == CHAN_CLOSED:
            raise ClosedChannel("send on closed channel")

    def recv(self, timeout: float | None = None) -> T:
        """Receive, which waits while there is nothing. Raises ClosedChannel if it is closed and empty; TimeoutError after ``timeout`` seconds."""
        value = self.get(_MISSING, timeout)
        if value is _MISSING:
            raise ClosedChannel("receive from a closed channel that is empty")
        return value  # type: ignore[no-any-return]

    def get(self, default: Any = None, timeout: float | None = None) -> Any:
        """As :meth:`recv`, but ``default`` if the channel is closed and empty."""
        ch = slot_of(self)
        if not self.sends_links:
            done, word = self._receive(ch, NO_SLOT, timeout)
            return default if done == CHAN_CLOSED else self._number(word)
        into = table.take()
        try:
            done, _ = self._receive(ch, into, timeout)
        except BaseException:
            table.drop(into)
            raise
        if done == CHAN_CLOSED or not table.words[into]:
            table.drop(into)
            return default if done == CHAN_CLOSED else None
        return reference(self.elem, into)

    @staticmethod
    def _receive(ch: int, into: int, timeout: float | None) -> tuple[int, int]:
        done, word = _call(chancalls.chan_receive, ch, into)
        if done == CHAN_WOULD_BLOCK:
            return _wait(timeout, into, chancalls.chan_wait_to_receive, ch, into)
        return done, word

    def close(self) -> None:
        """Nothing more will be sent: who waits to receive is told. Raises ClosedChannel if it is closed already."""
        ch = slot_of(self)
        done = table.call(chancalls.chan_close, ch)
        while table.call(chancalls.chan_tell, ch):  # also if who closed it was interrupted here
            pass
        if done == CHAN_CLOSED:
            raise ClosedChannel("close of closed channel")

    def __iter__(self) -> Iterator[T]:
        """What is received until the channel is closed and empty."""
        while (value := self.get(_MISSING)) is not _MISSING:
            yield value

    def __len__(self) -> int:
        """How many values it holds that nobody has received."""
        return word_at(slot_of(self), COUNT)

    def __bool__(self) -> bool:
        return True

    @property
    def capacity(self) -> int:
        """How many values it holds at most: Go's cap."""
        return word_at(slot_of(self), SIZE)

    def _given(self, value: Any) -> tuple[int, int]:
        """The word that is sent, or the slot of the reference. TypeError, OverflowError."""
        if not self.sends_links:
            return _WORDS[self.elem](value, self._where), NO_SLOT
        if value is None:
            return 0, NO_SLOT
        if type(value) is not self.elem:
            raise wrong_class(self.elem, value, self._where)
        return 0, slot_of(value)

    def _where(self) -> str:
        return f"a {type(self).__name__}"

    def _number(self, word: int) -> Any:
        return _NUMBERS[self.elem](word)


def _call(kernel: Any, *args: int) -> tuple[int, int]:
    """What the kernel says, and the number that it has received, if it has: no other thread's kernel comes in between."""
    with _handing:
        return table.call(kernel, *args), chancalls.chan_value()


def _wait(timeout: float | None, into: int, join: Any, *args: int) -> tuple[int, int]:
    """CHAN_DONE or CHAN_CLOSED, once it is done, and the number that was received. TimeoutError, or what interrupts the wait: then nothing was sent,
    and what was received is lost.
    """
    from gomp.runtime import current, sites  # above this: it unpickles what names classes of channels

    g, word = _call(join, *args)
    if g == OUT_OF_MEMORY:
        raise OutOfMemory("there is no memory for one who waits at a channel")
    if g in (CHAN_DONE, CHAN_CLOSED):
        return g, word
    set_site(g, sites.number_of_caller())
    try:
        current.peer().wait_until(lambda: bool(chancalls.is_done_waiting(g)), timeout)
    finally:
        done, word = _call(chancalls.chan_end_wait, g, into)
    if done == CHAN_WOULD_BLOCK:
        raise TimeoutError(f"nobody was at the other end of the channel within {timeout} s")
    return done, word


def _float_word(value: Any, where: Callable[[], str]) -> int:
    return int(packing.unpack("<q", packing.pack("<d", FLOAT.checked(value, where)))[0])


_WORDS: dict[Any, Callable[[Any, Callable[[], str]], int]] = {
    INT: lambda value, where: int(INT.checked(value, where)),
    BOOL: lambda value, where: int(BOOL.checked(value, where)),
    FLOAT: _float_word,
}
_NUMBERS: dict[Any, Callable[[int], Any]] = {
    INT: int,
    BOOL: bool,
    FLOAT: lambda word: packing.unpack("<d", packing.pack("<q", word))[0],
}


@functools.cache
def chan_class(elem: Any) -> Any:
    """``Chan[elem]``."""
    is_number = isinstance(elem, Scalar)
    name = f"Chan[{elem.name if is_number else elem.__name__}]"
    what = {
        "__slots__": (),
        "elem": elem,
        "part": elem if is_number else Link(elem, None, f"a {name}"),
        "sends_links": not is_number,
        "made_by": f"gomp.{name}(n)",
        "layout": OpaqueLayout(f"chan {elem.name if is_number else ''}", [] if is_number else [elem]),
    }
    made: Any = ChanMeta(name, (Chan,), what)
    made.__module__ = Chan.__module__
    return made
