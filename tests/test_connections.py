"""Connections of clients that say too much, take too little, or are too many: a server in this process, and its clients in the same loop.

So what they do at once comes in one turn of that loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gomp.service import answers, connections
from gomp.service.server import Server, make_server

MOST = 4
LARGE = bytes(64 << 20)  # more than a socket takes from who does not read it

Scenario: TypeAlias = Callable[["Served"], Awaitable[None]]


async def quick(request: Request) -> Response:
    return PlainTextResponse("quick\n")


async def slow(request: Request) -> Response:
    """Until who has asked is gone, as whoever waits for a turn."""
    while not await request.is_disconnected():
        await asyncio.sleep(0.01)
    return PlainTextResponse("nobody is there\n")


async def large(request: Request) -> Response:
    return answers.sent(LARGE, "text/plain", {}, lambda: None)


APPLICATION = Starlette(routes=[Route("/quick", quick), Route("/slow", slow), Route("/large", large)])


class Client:
    """One connection. What it does, it has done when the method returns; what the server does then takes an await."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.setblocking(False)

    def ask(self, path: str, rest: bytes = b"\r\n", method: str = "GET") -> Client:
        self.socket.send(b"%s %s HTTP/1.1\r\nHost: x\r\n%s" % (method.encode(), path.encode(), rest))
        return self

    async def say(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def hear(self, most: int = 1 << 16) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.socket, most)

    async def hear_all(self) -> bytes:
        """Until the server ends the connection, which it does in order."""
        found = b""
        while part := await self.hear(1 << 20):
            found += part
        return found

    async def is_cut_off(self) -> bool:
        """Whether it ends before all of a large answer is there."""
        return len(await self.hear_all()) < len(LARGE)


class Served:
    """The application, on a Unix socket at ``path``."""

    def __init__(self, server: Server, path: str) -> None:
        self.connections = server.server_state.connections
        self._path = path
        self._clients: list[Client] = []

    def connect(self) -> Client:
        self._clients.append(Client(self._path))
        return self._clients[-1]

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await asyncio.sleep(0.01)

    async def count(self, n: int) -> None:
        """Until there are so many connections."""
        await self.until(lambda: len(self.connections) == n)

    async def fill(self, n: int) -> None:
        """Until so many clients have asked for what takes long."""
        for _ in range(n):
            self.connect().ask("/slow")
        await self.until(lambda: sum(connection.is_served for connection in self.connections) == n)

    def close(self) -> None:
        for client in self._clients:
            client.socket.close()


@pytest.fixture
def play(tmp_path, monkeypatch) -> Callable[[Scenario], None]:
    """Have a scenario played, in ten seconds."""
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", MOST)

    async def played(scenario: Scenario) -> None:
        server, path = make_server(APPLICATION, backlog=64), str(tmp_path / "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            serving = asyncio.ensure_future(server.serve(sockets=[listener]))
            while not server.started:
                await asyncio.sleep(0.01)
            served = Served(server, path)
            try:
                await scenario(served)
            finally:
                served.close()
            await served.count(0)
            server.should_exit = True
            await serving

    return lambda scenario: asyncio.run(asyncio.wait_for(played(scenario), 10))


@pytest.fixture
def nothing_is_logged(caplog) -> Iterator[None]:
    with caplog.at_level(logging.ERROR):
        yield
    assert caplog.get_records("call") == []


pytestmark = pytest.mark.usefixtures("nothing_is_logged")


def statuses(heard: bytes) -> list[int]:
    return [int(line.split()[1]) for line in heard.splitlines() if line.startswith(b"HTTP/1.1 ")]


def test_requests_that_come_before_they_can_be_answered_are_answered(play):
    async def ask_a_hundred(served):
        client = served.connect()
        for _ in range(99):
            client.ask("/quick")
        client.ask("/quick", b"Connection: close\r\n\r\n")
        assert statuses(await client.hear_all()) == [200] * 100

    play(ask_a_hundred)


def test_who_says_much_while_it_waits_is_cut_off(play):
    async def go_on(served):
        client = served.connect().ask("/slow")
        with pytest.raises(ConnectionError):
            await client.say(bytes(16 << 20))

    play(go_on)


# --- answers that are not taken ---------------------------------------------------------------------------------------


def test_who_has_not_taken_its_answer_in_time_is_gone_at_once(play, monkeypatch):
    monkeypatch.setattr(answers, "SEND_S", 0.2)

    async def take_nothing(served):
        client = served.connect().ask("/large")
        await served.count(1)
        await served.count(0)
        assert await client.is_cut_off()

    play(take_nothing)


def test_among_those_that_do_not_take_their_answers_another_gets_in(play):
    async def come(served):
        stuck = []
        for n in range(MOST):
            stuck.append(served.connect().ask("/large"))
            await served.until(lambda n=n: sum(connection.is_stuck for connection in served.connections) == n + 1)
        assert statuses(await served.connect().ask("/quick").hear()) == [200]
        assert len(served.connections) == MOST
        assert await stuck[0].is_cut_off(), "it has taken nothing for longest"

    play(come)


# --- more than there is room for --------------------------------------------------------------------------------------


def test_where_all_are_served_each_of_those_that_come_at_once_is_told_so(play):
    async def come(served):
        await served.fill(MOST)
        refused = [served.connect().ask("/quick") for _ in range(6)]
        for client in refused:
            answer = await client.hear()
            assert statuses(answer) == [503]
            assert answer.endswith(b"\r\n\r\nall connections of this service are in use: close some\n")
        assert len(served.connections) == MOST

    play(come)


def test_where_one_more_has_room_the_last_that_comes_has_it(play):
    async def come(served):
        await served.fill(MOST - 1)
        found = [statuses(await client.hear()) for client in [served.connect().ask("/quick") for _ in range(6)]]
        assert found == [[503]] * 5 + [[200]]
        assert len(served.connections) == MOST

    play(come)


# --- requests that make no sense --------------------------------------------------------------------------------------

CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
NO_CHUNK = b"zz\r\n"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_request_whose_body_makes_no_sense_is_a_bad_one(play, method):
    async def ask(served):
        assert statuses(await served.connect().ask("/quick", CHUNKED + NO_CHUNK, method).hear_all()) == [400]

    play(ask)


@pytest.mark.parametrize(("path", "heard"), [("/slow", [400]), ("/large", [200]), ("/quick", [200])])
def test_so_is_one_that_goes_on_so_before_in_or_after_its_answer(play, path, heard):
    async def ask(served):
        client = served.connect().ask(path, CHUNKED)
        await asyncio.sleep(0.05)
        await client.say(NO_CHUNK)
        answer = await client.hear_all()
        assert statuses(answer[:1000]) == heard
        assert len(answer) < len(LARGE)

    play(ask)
