"""A wait in asyncio that is given up just as it comes to its end: nothing of it is left, and nothing is kept from others."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest

import gomp
from gomp.runtime import listening, waits
from tests.chan_load import goroutines

LATE = pytest.mark.parametrize("is_heard_of", [False, True], ids=["before it is heard of", "after"])


@pytest.fixture(scope="module")
def rt():
    with gomp.Runtime(procs=1) as runtime:
        yield runtime


def give_up(waits: Coroutine[Any, Any, Any], end: Callable[[], None], is_heard_of: bool, monkeypatch: Any) -> None:
    """Cancel the task that ``waits`` when its wait has come to its end, and the task does not know that yet."""
    hear = listening.hear

    async def body() -> None:
        task = asyncio.ensure_future(waits)
        while not listening._waits:
            await asyncio.sleep(0)
        if not is_heard_of:
            monkeypatch.setattr(listening, "hear", lambda: None)
        end()
        while is_heard_of and listening._waits:
            time.sleep(0.001)  # a thread hears of it, and the task has no turn
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(body())
    monkeypatch.setattr(listening, "hear", hear)


@LATE
def test_a_select_that_is_given_up_leaves_no_goroutine(rt, is_heard_of, monkeypatch) -> None:
    one, other = gomp.Chan[int](), gomp.Chan[int]()
    give_up(gomp.selecting(one.receiving(), other.sending(1)), one.close, is_heard_of, monkeypatch)
    listening.hear()
    assert goroutines() == 0


@LATE
def test_a_select_that_is_given_up_holds_its_channels_until_it_has_left_their_queues(
    rt, is_heard_of, monkeypatch
) -> None:
    one, other = gomp.Chan[int](), gomp.Chan[int]()
    give_up(gomp.selecting(one.receiving(), other.sending(1)), one.close, is_heard_of, monkeypatch)
    del one, other
    gc.collect()
    rt.gc()
    rt.verify(3)
    listening.hear()
    rt.gc()
    rt.verify(3)


@LATE
def test_a_lock_that_comes_too_late_is_the_next_ones(rt, is_heard_of, monkeypatch) -> None:
    mutex = gomp.Mutex()
    mutex.lock()
    give_up(mutex.locking(), mutex.unlock, is_heard_of, monkeypatch)
    listening.hear()
    mutex.lock(timeout=1)
    mutex.unlock()


def test_a_coroutine_that_is_thrown_away_in_the_middle_of_a_call_ends_its_wait(rt) -> None:
    """Python's garbage collector may do so anywhere."""
    ch = gomp.Chan[int]()

    async def throw_away() -> None:
        task = asyncio.ensure_future(gomp.selecting(ch.receiving()))
        while not listening._waits:
            await asyncio.sleep(0)
        with waits.handing:
            task.get_coro().close()

    thread = threading.Thread(target=asyncio.run, args=(throw_away(),), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert goroutines() == 0


def turns() -> Generator[None, None, int]:
    yield
    return 1


def test_awaiting_a_goroutine_again_and_again_keeps_nothing(rt) -> None:
    ch = gomp.Chan[int]()
    started = gomp.go(receive(ch))

    async def body() -> None:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(wait_for(started), 0.001)

    asyncio.run(body())
    assert not started._signals
    ch.close()
    with pytest.raises(gomp.ClosedChannel):
        started.wait(10)


def test_a_goroutine_that_ends_just_before_it_is_awaited_in_another_thread(rt, monkeypatch) -> None:
    started, running_loop = gomp.go(turns()), listening._running_loop
    asked, ended, got = threading.Event(), threading.Event(), []

    def end_first() -> Any:
        asked.set()
        ended.wait(10)
        return running_loop()

    monkeypatch.setattr(listening, "_running_loop", end_first)

    async def body() -> None:
        got.append(await asyncio.wait_for(wait_for(started), 10))

    thread = threading.Thread(target=asyncio.run, args=(body(),))
    thread.start()
    asked.wait(10)
    assert started.wait(10) == 1
    ended.set()
    thread.join(20)
    assert got == [1]


async def receive(ch: gomp.Chan[int]) -> int:
    return await ch.receiving()


async def wait_for(started: Any) -> Any:
    return await started


def test_what_is_thrown_away_in_another_thread_is_not_counted_any_more(rt) -> None:
    """Of a loop that is closed in the middle of it; and in the main thread that of another thread's loop, where Python's goroutines do not run."""
    ch = gomp.Chan[int]()

    def begin(begun: list[Any]) -> None:
        async def body() -> None:
            coroutine = receive(ch)
            coroutine.send(None)
            begun.append(coroutine)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(body())
        loop.close()

    def in_thread(target: Callable[[list[Any]], None], begun: list[Any]) -> None:
        thread = threading.Thread(target=target, args=(begun,))
        thread.start()
        thread.join()

    def throw_away(begun: list[Any]) -> None:
        begun.pop().close()

    here: list[Any] = []
    there: list[Any] = []
    begin(here)
    in_thread(begin, there)
    in_thread(throw_away, here)
    throw_away(there)
    assert not listening.loops
    assert goroutines() == 0


def test_a_forked_child_listens_itself(rt) -> None:
    async def body(ch: gomp.Chan[int]) -> None:
        waiting = asyncio.ensure_future(receive(ch))
        while not listening._waits:
            await asyncio.sleep(0)
        if (pid := os.fork()) == 0:
            os._exit(0 if listening._thread is None and not listening.loops else 1)
        assert os.waitpid(pid, 0)[1] == 0
        ch.close()
        with pytest.raises(gomp.ClosedChannel):
            await waiting

    asyncio.run(body(gomp.Chan[int]()))
