"""Who connects to a coordinator: how many may, and what becomes of those for whom there is no descriptor."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import Mock

import pytest

from gomp.runtime import connected
from gomp.runtime.channel import Channel
from gomp.runtime.connected import Connected
from gomp.runtime.ending import Ending
from gomp.runtime.events import Events

PLACES = 2


class World:
    """A coordinator's part that listens at ``place``; ``now_s`` is its clock."""

    def __init__(self, place: Path, clients: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(connected.time, "monotonic", lambda: self.now_s)
        self._place, self._clients = str(place), clients
        self.listener = clients.enter_context(socket.socket(socket.AF_UNIX))
        self.listener.bind(self._place)
        self.listener.listen()
        self.events, self.ending, self.asked = Events(), Ending(), Mock()
        self.connected = Connected(self.events, self.ending, Mock(), Mock(), self.asked, Mock(), PLACES)
        self.connected.listen(self.listener)

    def connect(self) -> Channel:
        sock = self._clients.enter_context(socket.socket(socket.AF_UNIX))
        sock.connect(self._place)
        self.events.wait(1.0)
        return Channel(sock)

    def ask(self, client: Channel) -> None:
        client.send("stats")
        self.events.wait(1.0)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with ExitStack() as clients:
        made = World(tmp_path / "socket", clients, monkeypatch)
        yield made
        for peer in made.ending.peers:
            peer.close()


def is_refused(client: Channel) -> bool:
    answer = client.next(0)
    return answer is not None and answer["text"] == f"the runtime has {PLACES} connections already"


def test_who_has_asked_for_nothing_makes_way_after_ten_seconds(world: World) -> None:
    silent, asking = world.connect(), world.connect()
    world.ask(asking)
    assert is_refused(world.connect())
    world.now_s += 11
    world.ending.holders.append(world.ending.peers[0])
    assert is_refused(world.connect()), "its process has a P"
    world.ending.holders.clear()
    latest = world.connect()
    assert not silent.has_other_end
    world.ask(latest)
    world.now_s += 11
    assert is_refused(world.connect()), "both have asked"
    assert world.asked.call_count == 2


def test_where_there_is_no_descriptor_the_coordinator_does_not_turn_in_circles(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    accept = Mock(side_effect=OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    world.connected._listener = Mock(wraps=world.listener, accept=accept)
    world.connect()
    world.events.wait(0)
    assert accept.call_count == 1
    assert caplog.messages == ["nobody can connect for 1 s: Too many open files"]
    accept.side_effect = world.listener.accept
    world.connected.step()
    world.events.wait(0)
    assert not world.ending.peers, "not for a second"
    world.now_s += 1
    world.connected.step()
    world.events.wait(0)
    assert len(world.ending.peers) == 1


def test_a_descriptor_that_becomes_free_is_used_at_once(world: World) -> None:
    client = world.connect()
    accept = Mock(side_effect=OSError(errno.EMFILE, ""))
    world.connected._listener = Mock(wraps=world.listener, accept=accept)
    world.connect()
    accept.side_effect = world.listener.accept
    client.close()
    world.events.wait(1.0)
    world.events.wait(1.0)
    assert len(world.ending.peers) == 1
