"""Messages: what is too large, and what a P answers then."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import socket
from collections.abc import Iterator

import numpy as np
import pytest

import gomp
from gomp.core.sched.tickets import TAKEN
from gomp.core.shm import segments
from gomp.core.shm.records import p_dtype
from gomp.core.shm.segments import Segments
from gomp.runtime import channel
from gomp.runtime.channel import MAX_OWED, Channel, Message
from gomp.runtime.p import P
from gomp.runtime.programs import Call, load_outcome


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Channel, Channel]]:
    """Two ends, of a protocol whose messages are small."""
    monkeypatch.setattr(channel, "MAX_HEADER", 1 << 10)
    monkeypatch.setattr(channel, "MAX_PAYLOAD", 1 << 14)
    ours, theirs = map(Channel, socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def test_a_message_of_the_largest_size_arrives(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    ours.send("done", b"x" * (1 << 14), request=1)
    assert theirs.next(1.0) == Message("done", {"request": 1}, b"x" * (1 << 14))


def test_what_is_too_large_is_refused_and_the_connection_goes_on(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    with pytest.raises(gomp.MessageTooLarge, match=r"the payload of a message 'go' has 16,385 bytes: more than 16,384"):
        ours.send("go", b"x" * ((1 << 14) + 1))
    with pytest.raises(gomp.MessageTooLarge, match=r"the header of a message 'go' has 1,\d+ bytes: more than 1,024"):
        ours.send("go", name="x" * (1 << 10))
    ours.send("stats")
    assert theirs.next(1.0) == Message("stats")


def test_a_peer_that_writes_without_end_does_not_hold_its_reader(
    pair: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pair
    ours.send("stats")
    endless = itertools.repeat(theirs.sock.recv(1 << 10), 10_000)
    monkeypatch.setattr(theirs, "_read", endless.__next__)
    assert set(map(str, theirs.receive())) == {str(Message("stats"))}


@pytest.mark.parametrize("descriptors", [[], [0]], ids=["text", "descriptors"])
def test_who_takes_no_answers_is_not_read_until_it_does(pair: tuple[Channel, Channel], descriptors: list[int]) -> None:
    ours, theirs = pair
    theirs.send("stats")
    while not ours.is_clogged:
        ours.answer("stats", descriptors, text="x" * 900)
    assert ours.receive() == []
    kept = sum(len(data) for data, _, _ in ours._out)
    assert MAX_OWED < kept < 1.1 * MAX_OWED
    taken = 0
    while ours.is_clogged:
        taken += len(theirs.receive())
        ours.flush()
    assert ours.receive() == [Message("stats")]
    assert 0 < taken < 1000


def test_what_was_said_before_hanging_up_is_heard_by_who_cannot_send_any_more(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    theirs.send("error", text="no room")
    theirs.close()
    with pytest.raises(gomp.RuntimeLost):
        ours.send("stats")
    assert ours.next(1.0) == Message("error", {"text": "no room"})
    with pytest.raises(gomp.RuntimeLost):
        ours.next(1.0)


def test_descriptors_are_not_left_to_another_program(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair[0], Channel(pair[1].sock, takes_descriptors=True)
    ours.send("look", descriptors=[0, 1])
    assert theirs.next(1.0)
    assert [os.get_inheritable(fd) for fd in theirs.descriptors] == [False, False]
    theirs.close()


def test_descriptors_that_nobody_has_taken_are_closed_with_the_connection(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair[0], Channel(pair[1].sock, takes_descriptors=True)
    before = os.listdir("/proc/self/fd")
    ours.send("look", descriptors=[0, 1])
    assert theirs.next(1.0)
    taken = theirs.descriptors.pop()
    theirs.close()
    os.fstat(taken)
    os.close(taken)
    assert len(os.listdir("/proc/self/fd")) == len(before) - 1  # the end itself


def test_who_has_no_room_for_the_descriptors_is_told_why(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair[0], Channel(pair[1].sock, takes_descriptors=True)
    ours.send("attach", descriptors=[0, 1, 2])
    next_free = os.dup(0)
    os.close(next_free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_free + 1, hard))
    try:
        with pytest.raises(
            gomp.RuntimeLost, match="this process may not open what the runtime hands it: raise `ulimit -n`"
        ):
            theirs.next(1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_hangs_up_while_it_is_not_read_is_noticed(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    while not ours.is_clogged:
        ours.answer("stats", text="x" * 900)
    theirs.close()
    with pytest.raises(gomp.RuntimeLost):
        ours.receive()


def test_results_and_orders_may_lie_there(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    for _ in range(2 * MAX_OWED // (1 << 14)):
        ours.give_result("done", b"x" * (1 << 14))
        ours.send("run", b"x" * (1 << 14))
    theirs.send("stats")
    assert ours.receive() == [Message("stats")]


def test_what_is_put_back_comes_again_and_first(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    messages = [Message("stats", {"n": n}) for n in range(3)]
    for message in messages:
        theirs.send(message.op, n=message["n"])
    received = ours.receive()
    theirs.send("verify")
    assert received == messages
    assert not ours.has_unheard
    ours.put_back(received[1:])
    assert ours.has_unheard
    assert (ours.receive(), ours.receive()) == (messages[1:], [Message("verify")])


def test_of_who_has_died_only_what_it_has_left_is_received(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    sizes = [1, 1 << 14, 0, 5]
    for n in sizes:
        theirs.send("done", b"x" * n, n=n)
    theirs.sock.send(b"half a message")
    endless, read = itertools.count(), ours._read

    def read_while_another_writes(size: int) -> bytes:
        theirs.send("done", b"more", n=next(endless))
        return read(size)

    ours._read = read_while_another_writes  # type: ignore[method-assign]
    assert [message["n"] for message in ours.receive_rest()] == sizes
    assert next(endless) < 5
    assert ours.has_other_end
    theirs.close()
    with contextlib.suppress(BlockingIOError):
        while ours.sock.recv(1 << 16):
            pass
    assert not ours.has_other_end


def test_a_result_that_is_too_large_fails_its_goroutine(
    pair: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch, mapped: Segments
) -> None:
    segments.map_self(mapped, 0)
    ours, theirs = pair
    monkeypatch.setattr("gomp.runtime.p.take_ticket", lambda *ticket: TAKEN)  # it lies in shared memory
    P(theirs, np.recarray(1, p_dtype)[0]).run(
        Message("run", {"g": 7, "id": 7, "name": "bytes", "awaited": True, "heir": -1}, Call(bytes, (1 << 15,)).dumps())
    )
    assert ours.next(1.0) == Message("started", {"g": 7})
    done = ours.next(1.0)
    assert done
    assert done["g"] == 7
    with pytest.raises(gomp.MessageTooLarge, match="more than 16,384"):
        load_outcome(done["ok"], done.payload)
