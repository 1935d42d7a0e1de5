"""``gomp.select``: waiting at several channels at once, from Python. What it is is in :mod:`gomp.core.mutator.select`.

``gomp.select(a.receiving(), b.sending(x))`` does the first of these that can be done, any one if several can: its place, what was received and
whether anything was, as ``ok`` of a receive. Frames do it by their action ``f.select``, compiled code as here.
"""

from __future__ import annotations

import contextlib
import random
import time
from typing import Any

from gomp.core.mutator import chancalls, selectcalls, waitcalls
from gomp.core.mutator.boundary import NO_SLOT
from gomp.core.mutator.select import DONE, WAITS
from gomp.core.shm.records import AGAIN, CHAN_CLOSED, CHAN_DONE, CHAN_WOULD_BLOCK
from gomp.errors import ClosedChannel, RuntimeLost
from gomp.runtime import mapping, waits
from gomp.runtime.chan import Case, received
from gomp.runtime.handles import table
from gomp.runtime.listening import Wait
from gomp.runtime.references import slot_of
from gomp.runtime.slots import Handle, empty, slot_in
from gomp.runtime.waits import call, check_goroutine, note_place, wait_until_done

__all__ = ["select", "selecting"]


def select(*cases: Case, default: bool = False, timeout: float | None = None) -> tuple[int, Any, bool]:
    """Do one of the cases, ``ch.receiving()`` and ``ch.sending(value)``: its place, what was received, and whether something was or was sent.

    If none can be done now it waits, or with ``default`` returns (-1, None, False). Raises ClosedChannel if it would send on a closed channel;
    TimeoutError after ``timeout`` seconds.
    """
    _check(cases)
    found = empty(Handle)
    place, how, word = _select(cases, slot_in(found), default, timeout)
    if place < 0:
        return place, None, False
    return place, _received(cases[place], how, word, found), how == CHAN_DONE


async def selecting(*cases: Case, default: bool = False) -> tuple[int, Any, bool]:
    """As :func:`select`, awaited in asyncio or in a goroutine of Python."""
    _check(cases)
    found = empty(Handle)
    place, how, word = _try_all(cases, slot_in(found))
    if place < 0 and not default:
        place, how, word, found = await _wait(cases)
    if place < 0:
        return place, None, False
    return place, _received(cases[place], how, word, found), how == CHAN_DONE


def _check(cases: tuple[Case, ...]) -> None:
    for case in cases:
        if not isinstance(case, Case):
            raise TypeError(f"gomp.select takes ch.receiving() and ch.sending(value), not {case!r}")


def _received(case: Case, how: int, word: int, found: Handle) -> Any:
    """What the case gives that was done. ClosedChannel."""
    if case.sends and how == CHAN_CLOSED:
        raise ClosedChannel("send on closed channel")
    return None if case.sends else received(case.ch, how, word, found)


def _select(cases: tuple[Case, ...], into: int, default: bool, timeout: float | None) -> tuple[int, int, int]:
    """The place of the case that was done, or -1; how; and the number that was received."""
    place, how, word = _try_all(cases, into)
    if place >= 0 or default:
        return place, how, word
    deadline = None if timeout is None else time.monotonic() + timeout
    g = check_goroutine(table.call(selectcalls.select_begin))
    with mapping.asleep():
        try:
            note_place(g)
            _add(g, cases)
            why, how, word = _join(g, into, deadline)
            while why == selectcalls.LOOK_AGAIN:
                why, how, word = _join(g, into, deadline)
            if why != DONE:
                raise TimeoutError(f"none of the cases could be done within {timeout} s")
            return selectcalls.select_place(g), how, word
        finally:
            with contextlib.suppress(RuntimeLost):  # what is raised says why
                _end(g)


async def _wait(cases: tuple[Case, ...]) -> tuple[int, int, int, Handle]:
    """The place of the case that was done, how, the number that was received, and the owner of a reference."""
    end = Wait(_end, held=cases)
    g = check_goroutine(table.call(selectcalls.select_begin))
    is_heard_of = False  # then who hears of it ends it
    try:
        note_place(g)
        _add(g, cases)
        while True:
            found = empty(Handle)
            try:
                end.listen(g)
            except BaseException:
                end.forget()
                raise
            why, how, word = _call(selectcalls.select_join, g, slot_in(found))
            if why == WAITS:
                is_heard_of = True
                how, word, found = await end
                end.check_same_runtime()
                is_heard_of = False
            else:
                end.forget()
            if how != AGAIN:
                return selectcalls.select_place(g), how, word, found
            end = Wait(_end, held=cases)
    finally:
        if not is_heard_of:
            _end(g)


def _end(g: int, _: bool = True) -> None:
    table.call(selectcalls.select_end, g)


def _add(g: int, cases: tuple[Case, ...]) -> None:
    for case in reversed(cases):
        added = table.call(selectcalls.select_add, g, slot_of(case.ch), int(case.sends), case.word, case.source)
        check_goroutine(added)


def _try_all(cases: tuple[Case, ...], into: int) -> tuple[int, int, int]:
    """As :func:`_select`, of what can be done now."""
    for place in random.sample(range(len(cases)), len(cases)):
        how, word = _try(cases[place], into)
        if how != CHAN_WOULD_BLOCK:
            return place, how, word
    return -1, CHAN_WOULD_BLOCK, 0


def _try(case: Case, into: int) -> tuple[int, int]:
    """How the case is done, if it can be now, and the number that was received."""
    ch = slot_of(case.ch)
    if case.sends:
        return call(chancalls.chan_send, ch, case.word, case.source)
    return call(chancalls.chan_receive, ch, into if case.ch.sends_links else NO_SLOT)


def _join(g: int, into: int, deadline: float | None) -> tuple[int, int, int]:
    """DONE, NONE_READY at the deadline, or LOOK_AGAIN; how; and the number that was received."""
    why, how, word = _call(selectcalls.select_join, g, into)
    if why == WAITS:
        try:
            wait_until_done(g, None if deadline is None else deadline - time.monotonic())
        except BaseException:
            with contextlib.suppress(RuntimeLost):  # what is raised says why
                _call(selectcalls.select_end_wait, g, into)
            raise
        why, how, word = _call(selectcalls.select_end_wait, g, into)
    return why, how, word


def _call(kernel: Any, g: int, into: int) -> tuple[int, int, int]:
    with waits.handing:
        return table.call(kernel, g, into), selectcalls.selected(), waitcalls.received_value()
