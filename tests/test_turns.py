"""Requests that take long: so many at once, so many that wait, and a line for all others."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from typing import Any, cast

import pytest
from starlette.requests import Request

from gomp.service.turns import NoTurn, Turns


class Client:
    """As much of a request as is looked at."""

    is_there = True

    async def is_disconnected(self) -> bool:
        return not self.is_there


def client() -> Request:
    return cast(Request, Client())


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 10))


def test_one_too_many_is_told_so_at_once_and_one_that_waits_has_its_turn() -> None:
    async def three() -> tuple[str, int, bool]:
        turns = Turns("too many", at_once=1, most_waiting=1, patience_s=10.0, status=429)
        await turns.take(client())
        second = asyncio.create_task(turns.take(client()))
        await asyncio.sleep(0.02)
        with pytest.raises(NoTurn) as refused:
            await turns.take(client())
        waited = not second.done()
        turns.give_back()
        await second
        return refused.value.detail, refused.value.status_code, waited

    assert run(three()) == ("too many\n", 429, True)


def test_patience_ends() -> None:
    async def wait() -> float:
        turns = Turns("too many", at_once=1, most_waiting=8, patience_s=0.2)
        await turns.take(client())
        began = time.monotonic()
        with pytest.raises(NoTurn, match="too many"):
            await turns.take(client())
        return time.monotonic() - began

    assert 0.1 < run(wait()) < 2


def test_who_has_left_is_not_served_and_holds_up_nobody() -> None:
    async def leave() -> tuple[int, list[str]]:
        turns, gone, served = Turns("too many", at_once=1, most_waiting=2, patience_s=10.0), client(), []
        await turns.take(client())
        first = asyncio.create_task(turns.serve(gone, lambda: served.append("gone")))
        second = asyncio.create_task(turns.serve(client(), lambda: served.append("second")))
        await asyncio.sleep(0.02)
        gone.is_there = False
        with pytest.raises(NoTurn) as refused:
            await first
        turns.give_back()
        await second
        return refused.value.status_code, served

    assert run(leave()) == (499, ["second"])


def test_where_the_system_allows_no_thread_that_is_told_and_the_turn_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def ask() -> tuple[str, int, int]:
        turns = Turns("too many", at_once=1, most_waiting=0, patience_s=10.0)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(NoTurn) as refused:
                await turns.serve(client(), lambda: 1)
        return refused.value.detail, refused.value.status_code, await turns.serve(client(), lambda: 2)

    why = "the service may start no more threads: raise `ulimit -u`, or what its cgroup allows of processes\n"
    assert run(ask()) == (why, 503, 2)


def test_what_it_raises_that_was_asked_for_is_raised() -> None:
    def fail() -> None:
        raise RuntimeError("no")

    turns = Turns("too many", at_once=1, most_waiting=0, patience_s=10.0)
    with pytest.raises(RuntimeError, match=r"^no$"):
        run(turns.serve(client(), fail))


def test_turns_of_one_kind_that_are_all_blocked_leave_threads_to_another() -> None:
    async def block() -> int:
        ends = threading.Event()
        stuck = Turns("too many", at_once=50, most_waiting=0, patience_s=0.0)
        others = Turns("too many", at_once=1, most_waiting=0, patience_s=0.0)
        blocked = [asyncio.create_task(stuck.serve(client(), ends.wait)) for _ in range(50)]
        await asyncio.sleep(0.1)
        found = await others.serve(client(), lambda: 7)
        assert await asyncio.to_thread(lambda: 7) == 7
        ends.set()
        assert await asyncio.gather(*blocked) == [True] * 50
        return found

    assert run(block()) == 7


def test_a_turn_is_given_back_whatever_ends_it() -> None:
    async def fail() -> int:
        turns = Turns("too many", at_once=1, most_waiting=0, patience_s=0.0)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await turns.serve(client(), lambda: 1 // 0)
        return await turns.serve(client(), lambda: 7)

    assert run(fail()) == 7
