"""Who gets a P that is lent, and when it is lent again."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from gomp.core.jit import cache_key
from gomp.core.shm import layout
from gomp.core.shm.records import GC_MARK, GC_OFF, RUNTIME, p_dtype, runtime_dtype, view
from gomp.core.shm.segments import Segments
from gomp.runtime import borrowed
from gomp.runtime.borrowed import BorrowedPs
from gomp.runtime.channel import Channel, Message
from gomp.runtime.dying import Dying
from gomp.runtime.ending import Ending
from gomp.runtime.events import Events
from gomp.runtime.invitation import Invitation
from gomp.runtime.requests import Asker

LENT = 1


class Client:
    """A connection of this process to a coordinator: its two ends."""

    def __init__(self, ps: BorrowedPs) -> None:
        ours, theirs = socket.socketpair()
        self.channel, self._end, self._ps = Channel(ours), Channel(theirs, takes_descriptors=True), ps

    def ask(self, wait: bool = False) -> str:
        self._ps.attach(Asker(self.channel, Message("attach", {"build": cache_key(), "wait": wait})))
        return self.answer()

    def answer(self) -> str:
        """What it is told; "" if it has to wait."""
        answer = self._end.next(0)
        return "" if answer is None else str(answer.fields.get("text", answer.op))

    def begin(self) -> None:
        record().xpid = os.getpid()

    def hang_up(self) -> None:
        self._end.sock.shutdown(socket.SHUT_WR)
        self._ps.forget(self.channel)

    def say(self, op: str) -> None:
        self._end.send(op)

    def talk_nonsense(self) -> None:
        self._ps.forget(self.channel)

    def close(self) -> None:
        self.channel.close()
        self._end.close()


class World:
    """``maps`` is what the system says that whoever hangs up has mapped: nothing. ``kill`` is called instead of killing this process."""

    def __init__(self, mapped: Segments, clients: contextlib.ExitStack) -> None:
        self.ps, self.dying, self._clients = Mock(), Dying(), clients
        self._events = Mock(wraps=Events())
        self.maps, self.kill = Mock(return_value=""), Mock()
        self.lent = BorrowedPs(
            range(LENT, LENT + 1), Invitation("web", mapped, 0), self._events, Ending(), self.dying, contextlib.nullcontext, self.ps, Mock()
        )  # fmt: skip

    def client(self) -> Client:
        return self._clients.enter_context(contextlib.closing(Client(self.lent)))

    def end_latest(self) -> None:
        """The process that came last ends: what was to be told is."""
        _, on_exit = self._events.watch.call_args.args
        on_exit()

    def set_phase(self, phase: int) -> None:
        view(runtime_dtype, RUNTIME)[0].xgcphase = phase


def record() -> Any:
    return view(p_dtype, layout.p_addr(LENT))[0]


@pytest.fixture
def world(mapped: Segments, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(borrowed, "take_back_stw", lambda p: 1)
    with contextlib.ExitStack() as clients:
        made = World(mapped, clients)
        monkeypatch.setattr(Path, "read_text", made.maps)
        monkeypatch.setattr(borrowed.signal, "pidfd_send_signal", made.kill)
        yield made


def test_who_dies_before_it_has_begun_has_left_nothing(world: World) -> None:
    first, second = world.client(), world.client()
    assert first.ask() == "attach"
    first.hang_up()
    world.ps.bury.assert_not_called()
    assert second.ask() == "attach"


def test_who_dies_later_is_buried(world: World) -> None:
    first, second = world.client(), world.client()
    first.ask()
    first.begin()
    assert second.ask(wait=True) == ""
    first.hang_up()
    assert world.ps.bury.call_args.args[0] == LENT
    assert second.answer() == "", "it is not put right yet"
    world.lent.has_settled(LENT, "", "repaired")
    assert second.answer() == "attach"


@pytest.mark.parametrize(("says", "is_buried"), [(["go", "leave"], False), (["go"], True), ([], True)])
def test_who_ends_as_soon_as_it_has_said_that_it_leaves_has_left(
    world: World, says: list[str], is_buried: bool
) -> None:
    """And has not died, for which there is more to do. What it has said is heard all the same."""
    client = world.client()
    client.ask()
    client.begin()
    for op in says:
        client.say(op)
    world.end_latest()
    world.lent.step()
    assert world.ps.bury.called is is_buried
    assert [message.op for message in client.channel.receive()] == says


def test_who_has_hung_up_and_ends_has_died(world: World) -> None:
    client = world.client()
    client.ask()
    client.begin()
    client.talk_nonsense()
    client.channel.close()
    world.end_latest()
    world.ps.bury.assert_called_once()


def test_what_is_free_again_while_the_heap_is_marked_is_lent_after_it(world: World) -> None:
    """Or the marking, which each death begins anew, might never end."""
    first, second, third = world.client(), world.client(), world.client()
    first.ask()
    first.begin()
    first.hang_up()
    world.set_phase(GC_MARK)
    world.lent.has_settled(LENT, "", "repaired")
    assert second.ask() == ""
    assert third.ask() == ""
    world.lent.step()
    assert second.answer() == ""
    world.set_phase(GC_OFF)
    world.lent.step()
    assert (second.answer(), third.answer()) == ("attach", "")


def test_who_has_left_may_come_again_at_once(world: World) -> None:
    first, second = world.client(), world.client()
    first.ask()
    first.begin()
    world.set_phase(GC_MARK)
    world.lent.leave(first.channel)
    assert second.ask() == ""
    world.lent.step()
    assert second.answer() == ""
    world.set_phase(GC_OFF)
    world.lent.step()
    assert second.answer() == "attach"
    assert (record().xpid, record().deaths) == (0, 1)
    world.ps.have_transits_settled.assert_called_once_with()


def test_who_does_not_want_to_wait_waits_for_who_has_left_but_not_for_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    monkeypatch.setattr(borrowed.time, "monotonic", lambda: now_s)
    first, second, patient = world.client(), world.client(), world.client()
    first.ask()
    assert second.ask() == (
        f"each of the 1 Ps that the runtime web lends is lent, to the processes {os.getpid()}: attach with a timeout, or start it with a larger "
        "max_attached"
    )
    world.set_phase(GC_MARK)
    world.lent.leave(first.channel)
    assert second.ask() == ""
    assert patient.ask(wait=True) == ""
    now_s += 6
    world.lent.step()
    assert second.answer() == (
        "each of the 1 Ps that the runtime web lends is taken back when the heap has been marked: attach with a timeout, or start it with a larger "
        "max_attached"
    )
    assert patient.answer() == ""


def test_a_connection_gets_one_p(world: World) -> None:
    first, second = world.client(), world.client()
    assert first.ask() == "attach"
    assert second.ask(wait=True) == ""
    for client in first, second:
        assert client.ask(wait=True) == "this connection has a P already, or waits for one"
    second.hang_up()
    first.hang_up()
    assert second.answer() == ""


def test_who_hangs_up_and_cannot_be_looked_at_is_looked_at_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """It may have become another program, which is not to be killed."""
    first, second = world.client(), world.client()
    first.ask()
    first.begin()
    world.maps.side_effect = OSError(errno.EMFILE, "Too many open files")
    first.hang_up()
    world.lent.step()
    assert [message.partition(", ")[2] for message in caplog.messages] == [
        "which has hung up, cannot be read: [Errno 24] Too many open files"
    ]
    assert second.ask(wait=True) == ""
    assert world.dying.overdue() == ({}, [])
    world.maps.side_effect = None
    world.lent.step()
    world.ps.bury.assert_called_once()


@pytest.mark.parametrize(("what", "is_killed"), [("the heap", True), ("a file of the same number", False)])
def test_who_hangs_up_and_has_the_heap_mapped_is_killed(
    world: World, mapped: Segments, what: str, is_killed: bool
) -> None:
    with open("/proc/self/maps") as maps:
        found = maps.read()
    inode = str(os.fstat(mapped.meta_fd).st_ino)
    world.maps.return_value = found if what == "the heap" else re.sub(rf"\S+ {inode} ", f"fd:77 {inode} ", found)
    client = world.client()
    client.ask()
    client.begin()
    client.hang_up()
    assert world.kill.called is (world.dying.rest_s < math.inf) is is_killed
    assert world.ps.bury.called is not is_killed


@pytest.mark.parametrize("has_left", [False, True])
def test_who_cannot_be_understood_is_killed_before_its_connection_is_closed(world: World, has_left: bool) -> None:
    """It would take that for the end of the runtime."""
    client = world.client()
    client.ask()
    client.begin()
    if has_left:
        world.lent.leave(client.channel)
    client.talk_nonsense()
    assert world.kill.called is not has_left
    world.maps.assert_not_called()
    world.ps.bury.assert_not_called()
