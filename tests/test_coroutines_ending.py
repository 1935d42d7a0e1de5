"""What becomes of Python's goroutines, and of what is awaited, when the runtime ends."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Generator
from typing import Any

import pytest

import gomp
from gomp.runtime import listening


def _turn() -> Generator[Any, Any, None]:
    yield


async def _receive(ch: gomp.Chan[int]) -> int:
    return await ch.receiving()


def test_what_is_awaited_when_the_runtime_ends() -> None:
    async def body() -> None:
        with gomp.Runtime(procs=1):
            ch = gomp.Chan[int]()
            waiting = asyncio.ensure_future(_receive(ch))
            ours = gomp.go(_receive(ch))
            await asyncio.sleep(0.01)
        with pytest.raises(gomp.RuntimeLost):
            await waiting
        with pytest.raises(gomp.RuntimeLost):
            await ours

    asyncio.run(asyncio.wait_for(body(), 30))


@pytest.mark.parametrize("gives_up", [False, True], ids=["", "given up"])
def test_a_select_that_has_come_to_its_end_when_the_runtime_ends(gives_up) -> None:
    """Who awaits it has his turn in the next runtime, in which its goroutine is another's."""

    async def body() -> None:
        with gomp.Runtime(procs=1):
            ch, other = gomp.Chan[int](), gomp.Chan[int]()
            selecting = asyncio.ensure_future(gomp.selecting(other.receiving(), ch.receiving()))
            while not listening._waits:
                await asyncio.sleep(0)
            ch.send(1)
            while listening._waits:
                time.sleep(0.001)  # a thread hears of it, and the task has no turn
        with gomp.Runtime(procs=1) as rt:
            ch = gomp.Chan[int]()
            waiting = asyncio.ensure_future(_receive(ch))
            while not listening._waits:
                await asyncio.sleep(0)
            if gives_up:
                selecting.cancel()
            with pytest.raises(asyncio.CancelledError if gives_up else gomp.RuntimeLost):
                await selecting
            rt.verify(3)
            await ch.sending(2)
            assert await waiting == 2

    asyncio.run(asyncio.wait_for(body(), 30))


def test_a_loop_is_not_told_by_a_traceback_of_ours(caplog, monkeypatch) -> None:
    """Who is called by it when the runtime has just been lost says nothing: whoever awaits is told."""

    def be_lost() -> bool:
        raise gomp.RuntimeLost("the runtime has ended")

    async def body() -> None:
        monkeypatch.setattr(listening.loops, "run", be_lost)
        asyncio.get_running_loop().call_soon(listening.loops._turn)
        await asyncio.sleep(0.01)

    asyncio.run(body())
    assert caplog.records == []


def test_go_after_the_end() -> None:
    body = _turn()
    with pytest.raises(gomp.RuntimeLost):
        gomp.go(body)


def test_leaving_the_runtime_leaves_them_behind() -> None:
    ended: list[str] = []

    async def waits(ch: gomp.Chan[int]) -> None:
        try:
            await ch.receiving()
        finally:
            ended.append("closed")

    with gomp.Runtime(procs=1):
        started = gomp.go(waits(gomp.Chan[int]()))
        gomp.go(_turn()).wait(10)
    assert ended == ["closed"]
    with pytest.raises(gomp.RuntimeLost):
        started.wait()
    with gomp.Runtime(procs=1):
        assert gomp.num_goroutine() == 0


def test_a_forked_child_has_none_of_them() -> None:
    with gomp.Runtime(procs=1):
        started = gomp.go(_receive(gomp.Chan[int]()))
        gomp.go(_turn()).wait(10)
        if (pid := os.fork()) == 0:
            try:
                started.wait(1)
            except gomp.RuntimeLost:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
