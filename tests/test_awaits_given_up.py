"""A wait in asyncio that is given up just as it comes to its end: nothing of it is left, and nothing is kept from others."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Coroutine
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
