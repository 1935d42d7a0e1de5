"""Pickled references: what their bytes say, and what this process has sent and not yet had taken from it.

A reference is pickled as the name of a transit (see :mod:`gomp.core.mutator.transit`): the object is kept by its sender until it is unpickled,
once, by a process of the same runtime. Each pickling is a transit of its own. The class travels as its key, and as its declaration for a
process that does not have it.

Who takes back what is never received:

==============================  ===================================================================================================
arguments of a goroutine        whoever started it, when it has ended, however
its result                      the P that made it, when whoever waits has died or hung up; a waiter that is no longer interested drops it
what could not be sent          :func:`parcel`, when pickling or sending raises
any other pickle                nobody knows where it is: it keeps the object until it is received or its sender ends
==============================  ===================================================================================================
"""

from __future__ import annotations

import ctypes
import functools
import io
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cloudpickle

from gomp.core.mutator import transit
from gomp.core.sched.status import OK
from gomp.core.shm import layout
from gomp.core.shm.records import RUNTIME, offset_of, p_dtype, runtime_dtype, view
from gomp.errors import RuntimeLost, StaleReference
from gomp.runtime import handles, pickling, type_table
from gomp.runtime.handles import table
from gomp.runtime.references import called
from gomp.runtime.slots import Handle, empty, filled, slot_in
from gomp.runtime.typekeys import class_of_key

_FEW = 64
_P_DEATHS = offset_of(p_dtype, "deaths")
NOBODY = -1


@dataclass(slots=True, eq=False)
class Sent:
    """A transit of this process, which owns its pair of slots; 0 is no number yet. ``heir``: the P whom it is for, and its deaths so far."""

    heir: tuple[int, int] | None = None
    number: int = 0
    owner: Handle = field(default_factory=partial(empty, Handle))
    ticket_owner: Handle = field(default_factory=partial(empty, Handle))

    @property
    def slot(self) -> int:
        return slot_in(self.owner)

    @property
    def ticket_slot(self) -> int:
        return slot_in(self.ticket_owner)

    @property
    def is_past(self) -> bool:
        """Whether its runtime has ended."""
        return self.ticket_owner._handle < table.first


class Outbox:
    """The transits of this process that somebody may still receive. Whoever is here keeps its slots; elsewhere nobody uses them.

    It may be used in the middle of itself, by a signal's handler or a ``__del__`` that Python's collector calls, and by several threads: one works
    at a time, and does what the others want, too. Looking whether one does and saying so is a step in which Python lets no other thread run.
    """

    def __init__(self) -> None:
        self.reset()

    def __len__(self) -> int:
        return len(self._sent)

    def reset(self) -> None:
        """A runtime begins: its table is empty. Or this is a forked child, whose parent may have been at work."""
        self._sent: dict[int, Sent] = {}  # by number
        self._settle_at = _FEW
        self._revoked: deque[Sent] = deque()
        self._wants_all = False
        self._works = False

    def send(self, sent: Sent, source: int) -> None:
        """Make it a transit of what the handle ``source`` holds. If this raises, nobody is told of it, and it dies with whoever has it."""
        if len(self._sent) >= self._settle_at:
            self.settle()
        sent.number = table.call(transit.send_reference, source, sent.slot, sent.ticket_slot)
        self._sent[sent.number] = sent

    def settle(self) -> None:
        """Take back the slots of what has been received, and of what nobody can receive any more."""
        self._wants_all = True
        self._work()

    def revoke(self, sent: Iterable[Sent]) -> None:
        """Take back these, unless somebody has received them."""
        self._revoked.extend(sent)
        self._work()

    def _work(self) -> None:
        while (self._wants_all or self._revoked) and not self._works:
            self._works = True
            try:
                while self._revoked:
                    self._revoke(self._revoked.popleft())
                if self._wants_all:
                    self._wants_all = False
                    for sent in list(self._sent.values()):
                        self._end_if_over(sent)
                    self._settle_at = max(_FEW, 2 * len(self._sent))
            finally:
                self._works = False

    def _revoke(self, sent: Sent) -> None:
        if sent.number in self._sent and not sent.is_past:
            transit.revoke_reference(sent.slot, sent.ticket_slot, sent.number)
            self._end_if_over(sent)

    def _end_if_over(self, sent: Sent) -> None:
        if not sent.is_past and self._is_over(sent):
            del self._sent[sent.number]
            del sent.owner, sent.ticket_owner  # whoever has it still need not keep its slots

    @staticmethod
    def _is_over(sent: Sent) -> bool:
        if sent.heir is not None and _deaths(sent.heir[0]) != sent.heir[1]:
            transit.revoke_reference(sent.slot, sent.ticket_slot, sent.number)
        ticket = table.words[sent.ticket_slot]
        if table.words[sent.slot] != 0:
            if ticket > transit.CLAIMED:
                return False
            deaths, p = divmod(transit.CLAIMED - ticket, 256)
            return _deaths(p) != deaths  # or it is about to clear the slot
        return True


outbox = Outbox()
handles.on_open(outbox.reset)
os.register_at_fork(after_in_child=outbox.reset)
_pickling = threading.local()


@contextmanager
def parcel(heir: int = NOBODY) -> Iterator[list[Sent]]:
    """What this thread pickles in the block, as one list; taken back if the block raises. ``heir``: the P that it is for."""
    before = getattr(_pickling, "parcel", None)
    sent: list[Sent] = []
    _pickling.parcel = sent, None if heir == NOBODY else (heir, _deaths(heir))
    try:
        yield sent
    except BaseException:
        outbox.revoke(sent)
        raise
    finally:
        _pickling.parcel = before


def _deaths(p: int) -> int:
    """Of the processes of P ``p``, so far."""
    return ctypes.c_int64.from_address(layout.PS_BASE + p * layout.P_STRIDE + _P_DEATHS).value


# --- pickling ---------------------------------------------------------------------------------------------------------


def reduce_reference(slot: int, cls: type, key: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """What ``__reduce__`` of the reference in ``slot`` answers: each time a new transit."""
    nowhere: list[Sent] = []
    packed, heir = getattr(_pickling, "parcel", None) or (nowhere, None)
    type_table.described(cls)
    declared, me = declaration(cls), table.p_idx
    sent = Sent(heir)
    packed.append(sent)  # first: an interruption may come between any two steps
    outbox.send(sent, slot)
    return receive, (_identity(), me, _deaths(me), sent.slot, sent.ticket_slot, sent.number, key, declared)


@functools.cache
def _identity() -> tuple[int, int]:
    """What tells this runtime from every other on the machine."""
    rt = view(runtime_dtype, RUNTIME)[0]
    return int(rt.start_ns), int(rt.coordinator_pid)


handles.on_open(_identity.cache_clear)


@functools.cache
def declaration(cls: Any) -> bytes | None:
    """A class for a process that may not have it: by name if it can be imported, else with all that is in it. None if that is not possible."""
    try:
        return pickling.dumps(cls)
    except Exception:
        return None


def receive(
    identity: tuple[int, int],
    p: int,
    deaths: int,
    slot: int,
    ticket_slot: int,
    number: int,
    key: int,
    declared: bytes | None,
) -> Any:
    """The reference that was pickled. Raises RuntimeLost, StaleReference, TypeError."""
    if not table.is_open:
        raise RuntimeLost(
            "a pickled reference is received by processes of its runtime, its Ps and its script, and no runtime is open in this one: "
            "send it there, or send what the object holds"
        )
    if identity != _identity():
        raise RuntimeLost(
            "this reference belongs to another runtime than the one that is open here: send what the object holds instead"
        )
    cls = class_of(key, declared)
    status, received = filled(cls, transit.receive_reference, p, slot, ticket_slot, number)
    if status != OK:
        raise StaleReference(
            f"the sender of this reference to a {called(cls)}, P{p}, has died, and the reference with it"
            if 0 <= p < layout.MAX_PS and _deaths(p) != deaths
            else f"this reference to a {called(cls)} was received before, or its sender took it back: a pickled reference is unpickled once; "
            "pickle it again for each receiver, or share the object through gomp.globals"
        )
    return received


def class_of(key: int, declared: bytes | None) -> Any:
    """The class of a type that was pickled with its :func:`declaration`. TypeError if it cannot be had."""
    try:
        return class_of_key(key)
    except TypeError:
        if declared is None:
            raise
    cloudpickle.loads(declared)
    return class_of_key(key)


class Pickler(pickling.Pickler):
    """As :mod:`~gomp.runtime.pickling`'s. What is pickled by type alone elsewhere, and shares the heap's memory, is sent as a reference too."""

    def reducer_override(self, obj: Any) -> Any:
        for kind, reduce in _overrides:
            if type(obj) is kind:
                found = reduce(obj)
                if found is not None:
                    return found
        return super().reducer_override(obj)


_overrides: list[tuple[type, Callable[[Any], Any]]] = []


def on_pickling(kind: type, reduce: Callable[[Any], Any]) -> None:
    """Have ``reduce(obj)`` asked for objects of exactly the type ``kind``: None means as usual. For what the runtime itself pickles."""
    _overrides.append((kind, reduce))


def dumps(value: object) -> bytes:
    """``value`` as the runtime's own messages carry it."""
    with io.BytesIO() as file:
        Pickler(file).dump(value)
        return file.getvalue()
