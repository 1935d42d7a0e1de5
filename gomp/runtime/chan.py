"""``gomp.Chan``: channels in the shared heap, from Python. The channel itself is :mod:`gomp.core.mutator.chan`.

``gomp.Chan[T](n)`` makes one that holds up to n values, or with ``gomp.Chan[T]()`` none: then who sends waits for who receives. T is int, float,
bool, or a class of references. Frames send and receive by their actions, compiled code and Python by methods, all at the same channel.

Who waits in Python has released the interpreter's lock; the main thread of a P runs other goroutines meanwhile.
"""

from __future__ import annotations

import functools
import struct as packing
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

from gomp.core.heap.waitq import BUFFER, COUNT, HOLDS_LINKS, SIZE
from gomp.core.mutator import chancalls
from gomp.core.mutator.boundary import NO_SLOT
from gomp.core.mutator.chan import CHAN_BYTES, CHAN_MASK
from gomp.core.shm.records import CHAN_CLOSED, CHAN_WOULD_BLOCK
from gomp.errors import ClosedChannel
from gomp.runtime import listening, type_table
from gomp.runtime.arrays import array
from gomp.runtime.handles import kernels, table
from gomp.runtime.kinds import BOOL, FLOAT, INT, Scalar, scalar
from gomp.runtime.parts import Link, Names, Part, evaluated
from gomp.runtime.references import (
    OpaqueLayout,
    Reference,
    ReferenceMeta,
    is_declared,
    set_word_at,
    slot_of,
    word_at,
    write_reference,
    wrong_class,
)
from gomp.runtime.slots import Handle, allocated, empty, passed_on, slot_in
from gomp.runtime.waits import call, wait

__all__ = ["Chan"]

MOST = 1 << 32
_MISSING: Any = object()
_NOBODY = "nobody was at the other end of the channel"
_SENT_ON_CLOSED = "send on closed channel"
_NOTHING_LEFT = "receive from a closed channel that is empty"
T = TypeVar("T")


class ChanMeta(ReferenceMeta):
    """The class of the classes of channels, whose instances are made by calling them."""

    elem: Any
    sends_links: bool

    def __call__(cls, n: Any = 0, /) -> Any:  # type: ignore[override]
        if cls.elem is None:
            raise TypeError("write gomp.Chan[T](n), with T what is sent, and n how many wait to be received at most")
        if not isinstance(n, int) or isinstance(n, bool) or not 0 <= n < MOST:
            raise ValueError(f"{cls.__name__}(n): n is how many values it holds, 0 to {MOST - 1}, not {n!r}")
        type_table.register(cls)
        buffer = array(cls.elem if cls.sends_links else INT, n) if n else None
        of: Any = cls
        made = allocated(of, kernels.new_struct, CHAN_BYTES, CHAN_MASK, HOLDS_LINKS, int(cls.sends_links))
        if buffer is not None:
            write_reference(type(buffer), made, BUFFER, buffer, lambda: "the buffer of a channel")
            set_word_at(slot_of(made), SIZE, n)
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
            done, _ = wait(_NOBODY, timeout, NO_SLOT, chancalls.chan_wait_to_send, ch, word, source)
        if done == CHAN_CLOSED:
            raise ClosedChannel(_SENT_ON_CLOSED)

    def recv(self, timeout: float | None = None) -> T:
        """Receive, which waits while there is nothing. Raises ClosedChannel if it is closed and empty; TimeoutError after ``timeout`` seconds."""
        value = self.get(_MISSING, timeout)
        if value is _MISSING:
            raise ClosedChannel(_NOTHING_LEFT)
        return value  # type: ignore[no-any-return]

    def get(self, default: Any = None, timeout: float | None = None) -> Any:
        """As :meth:`recv`, but ``default`` if the channel is closed and empty."""
        ch = slot_of(self)
        if not self.sends_links:
            done, word = self._receive(ch, NO_SLOT, timeout)
            return default if done == CHAN_CLOSED else self._number(word)
        found = empty(self.elem)
        into = slot_of(found)
        done, _ = self._receive(ch, into, timeout)
        if done == CHAN_CLOSED:
            return default
        return found if table.words[into] else None

    @staticmethod
    def _receive(ch: int, into: int, timeout: float | None) -> tuple[int, int]:
        done, word = call(chancalls.chan_receive, ch, into)
        if done == CHAN_WOULD_BLOCK:
            return wait(_NOBODY, timeout, into, chancalls.chan_wait_to_receive, ch, into)
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

    def __aiter__(self) -> AsyncIterator[T]:
        """As :meth:`__iter__`, where it is awaited."""
        return _Values(self)

    def receiving(self, *, into: str = "", ok: str = "") -> Case:
        """To receive from it: a case of a select, or awaited. ``into`` and ``ok`` are for frames: slots, as of ``f.recv``."""
        if into or ok:
            raise TypeError(
                "receiving(into=, ok=) names slots of a frame, for f.select; gomp.select returns what is received"
            )
        return Case(self, False, 0, NO_SLOT, None)

    def sending(self, value: T) -> Case:
        """To send to it: a case of a select, or awaited."""
        return Case(self, True, *self._given(value), value)

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


class _Values:
    """What is received until the channel is closed and empty."""

    def __init__(self, ch: Any) -> None:
        self._ch = ch

    def __aiter__(self) -> _Values:
        return self

    async def __anext__(self) -> Any:
        done, value = await receive(self._ch)
        if done == CHAN_CLOSED:
            raise StopAsyncIteration
        return value


class Case(NamedTuple):
    """What ``gomp.select`` may do: send ``word``, or the reference in the slot ``source``, which ``value`` keeps; or receive.

    ``await`` does it, in asyncio and in goroutines of Python, as send and recv do elsewhere.
    """

    ch: Any
    sends: bool
    word: int
    source: int
    value: Any

    def __await__(self) -> Generator[Any, None, Any]:
        return (self._send() if self.sends else self._receive()).__await__()

    async def _send(self) -> None:
        ch = slot_of(self.ch)
        done = table.call(chancalls.chan_send, ch, self.word, self.source)
        if done == CHAN_WOULD_BLOCK:
            done, _, _ = await listening.wait(NO_SLOT, chancalls.chan_wait_to_send, ch, self.word, self.source)
        if done == CHAN_CLOSED:
            raise ClosedChannel(_SENT_ON_CLOSED)

    async def _receive(self) -> Any:
        done, value = await receive(self.ch)
        if done == CHAN_CLOSED:
            raise ClosedChannel(_NOTHING_LEFT)
        return value


async def receive(ch: Any) -> tuple[int, Any]:
    """CHAN_DONE and what was received, or CHAN_CLOSED."""
    at, found = slot_of(ch), empty(Handle)
    into = slot_in(found) if ch.sends_links else NO_SLOT
    done, word = call(chancalls.chan_receive, at, into)
    if done == CHAN_WOULD_BLOCK:
        done, word, arrived = await listening.wait(into, chancalls.chan_wait_to_receive, at, into)
        found = arrived or found
    return done, received(ch, done, word, found)


def received(ch: Any, done: int, word: int, found: Handle) -> Any:
    """What has come, as ``word`` or in the slot that ``found`` owns."""
    if done == CHAN_CLOSED:
        return None
    if not ch.sends_links:
        return _NUMBERS[ch.elem](word)
    return passed_on(found, ch.elem) if table.words[slot_in(found)] else None


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
