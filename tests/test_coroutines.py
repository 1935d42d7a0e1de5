"""Goroutines whose body is Python, and channels, groups and locks awaited in asyncio."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import pickle
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import pytest

import gomp
from gomp.runtime import goroutineprofile, listening
from tests.chan_load import wait_until_none
from tests.free_slots import free_slots


@gomp.struct
class Item:
    value: int


def doubling(source: gomp.Chan[int], results: gomp.Chan[int]) -> Generator[Any, Any, int]:
    n = 0
    while True:
        try:
            value = yield source.receiving()
        except gomp.ClosedChannel:
            return n
        yield results.sending(2 * value)
        n += 1


async def doubling_too(source: gomp.Chan[int], results: gomp.Chan[int]) -> int:
    n = 0
    async for value in source:
        await results.sending(2 * value)
        n += 1
    return n


def double_all(n: int, workers: int) -> tuple[int, int]:
    """What n goroutines of either kind have doubled, and how many values that were."""
    source, results = gomp.Chan[int](), gomp.Chan[int]()
    started = [gomp.go(doubling(source, results)) for _ in range(workers)]
    started += [gomp.go(doubling_too, source, results) for _ in range(workers)]

    async def feed() -> None:
        for value in range(n):
            await source.sending(value)
        source.close()

    async def total() -> int:
        return sum([await results.receiving() for _ in range(n)])

    gomp.go(feed)
    summed = gomp.go(total).wait(30)
    return summed, sum(g.wait(30) for g in started)


@pytest.mark.parametrize("where", ["script", "P"])
def test_they_meet_at_channels(rt: gomp.Runtime, where: str) -> None:
    done = double_all(100, 5) if where == "script" else rt.run(double_all, 100, 5)
    assert done == (2 * sum(range(100)), 100)
    wait_until_none()
    rt.verify()


def fan_out(n: int) -> tuple[int, int]:
    """n of them, each of which gets a number from a channel of its own and says what it is."""
    results = gomp.Chan[int](64)

    def say(mine: gomp.Chan[int]) -> Generator[Any, Any, None]:
        value = yield mine.receiving()
        yield results.sending(value)

    own = [gomp.Chan[int]() for _ in range(n)]
    started = [gomp.go(say(ch)) for ch in own]

    async def feed() -> None:
        for value, ch in enumerate(own):
            await ch.sending(value)

    async def total() -> int:
        return sum([await results.receiving() for _ in range(n)])

    summed = gomp.go(total)
    while gomp.num_goroutine() < n + 1:
        gomp.go(_turn()).wait(10)
    waiting = gomp.num_goroutine()
    gomp.go(feed)
    for g in started:
        g.wait(60)
    return waiting, summed.wait(60)


def _turn() -> Generator[Any, Any, None]:
    yield


def test_fan_out_is_a_program(rt: gomp.Runtime) -> None:
    assert rt.run("fan_out", n=100) == sum(range(100))


@pytest.mark.parametrize("where", ["script", "P"])
def test_ten_thousand_of_them(rt: gomp.Runtime, where: str) -> None:
    n = 10_000
    waiting, summed = fan_out(n) if where == "script" else rt.run(fan_out, n)
    assert (waiting, summed) == (n + 1, sum(range(n)))
    wait_until_none()


def test_a_program_may_be_one(rt: gomp.Runtime) -> None:
    async def program(ch: gomp.Chan[int]) -> int:
        return await ch.receiving() + 1

    ch = gomp.Chan[int](1)
    started = rt.go(program, ch)
    ch.send(3)
    assert started.wait(10) == 4


def test_references_come_and_go(rt: gomp.Runtime) -> None:
    async def pass_on(ch: gomp.Chan[Item], n: int) -> None:
        for value in range(n):
            await ch.sending(gomp.new(Item, value=value))
        await ch.sending(None)  # type: ignore[arg-type]
        ch.close()

    async def collect(ch: gomp.Chan[Item]) -> list[Any]:
        return [item and item.value async for item in ch]

    def once() -> list[Any]:
        ch = gomp.Chan[Item]()
        gomp.go(pass_on(ch, 20))
        return gomp.go(collect(ch)).wait(10)  # type: ignore[no-any-return]

    once()
    gc.collect()
    free = free_slots()
    assert once() == [*range(20), None]
    gc.collect()
    assert free_slots() == free


def test_one_waits_for_another_and_gets_what_it_raises(rt: gomp.Runtime) -> None:
    def fails(n: int) -> Generator[Any, Any, None]:
        yield
        raise ValueError(f"no {n}")

    async def outer(n: int) -> str:
        try:
            await gomp.go(fails(n))
        except ValueError as error:
            return str(error)
        return "nothing"

    def outermost() -> Generator[Any, Any, tuple[str, str]]:
        first = yield gomp.go(outer(1))
        second = yield outer(2)  # without a goroutine of its own
        return first, second

    assert gomp.go(outermost).wait(10) == ("no 1", "no 2")
    with pytest.raises(ValueError, match="no 3"):
        gomp.go(fails, 3).wait(10)


def test_what_nobody_waits_for_is_logged(rt: gomp.Runtime, caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> Generator[Any, Any, None]:
        yield
        raise ValueError("on its own")

    gomp.go(fails)
    gomp.go(_turn()).wait(10)
    gc.collect()
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "fails" in record.getMessage()
    assert "on its own" in caplog.text


def test_selects_groups_and_locks(rt: gomp.Runtime) -> None:
    a, b, done, mutex = gomp.Chan[int](), gomp.Chan[Item](), gomp.WaitGroup(), gomp.Mutex()
    total = gomp.array(int, 1)

    async def worker() -> None:
        while True:
            place, value, ok = await gomp.selecting(a.receiving(), b.receiving())
            if not ok:
                return done.done()
            async with mutex:
                now = total[0]
                await _nap()
                total[0] = now + (value if place == 0 else value.value)

    async def _nap() -> None:
        await gomp.go(_turn())

    async def feed() -> int:
        for n in range(100):
            place, _, _ = await gomp.selecting(a.sending(n), b.sending(gomp.new(Item, value=n)))
            assert place in (0, 1)
        assert await gomp.selecting(default=True) == (-1, None, False)
        a.close()
        await done.waiting()
        await mutex.locking()
        mutex.unlock()
        return int(total[0])

    done.add(7)
    for _ in range(7):
        gomp.go(worker)
    assert gomp.go(feed).wait(20) == sum(range(100))
    wait_until_none()
    rt.verify()


def test_compiled_goroutines_have_their_turn_between_those_of_python(rt: gomp.Runtime) -> None:
    def both() -> int:
        ch, stop = gomp.Chan[int](), []

        async def turns() -> None:
            while not stop:
                await gomp.go(_turn())

        started = gomp.go(turns)
        gomp.go(Count, ch=ch, n=500)
        got = sum(ch)
        stop.append(True)
        started.wait(10)
        return got

    assert rt.run(both) == sum(range(500))


@gomp.frame
class Count:
    ch: gomp.Chan[int]
    n: int
    at: int

    def step(f) -> gomp.Action:
        if f.at == f.n:
            f.ch.close()
            return f.ret()
        f.at += 1
        return f.send(f.ch, f.at - 1)


def test_another_thread_starts_and_waits(rt: gomp.Runtime) -> None:
    ch = gomp.Chan[int]()
    got: list[int] = []

    async def one() -> int:
        return await ch.receiving()

    thread = threading.Thread(target=lambda: got.append(gomp.go(one).wait(10)))
    thread.start()
    ch.send(5)  # which runs it: the main thread waits
    end = time.monotonic() + 10
    while not got and time.monotonic() < end:
        gomp.go(_turn()).wait(10)
    thread.join(10)
    assert got == [5]


def test_a_p_with_some_is_killed(rt: gomp.Runtime) -> None:
    """Those at the same channel elsewhere go on."""
    ch, pids = gomp.Chan[int](), gomp.Chan[int](1)

    async def wait_there() -> int:
        pids.send(os.getpid())
        return await gomp.go(wait_here())

    async def wait_here() -> int:
        return await ch.receiving()

    lost = rt.go(wait_there)
    mine = gomp.go(wait_here())
    os.kill(pids.recv(10), signal.SIGKILL)
    with pytest.raises(gomp.WorkerDied):
        lost.wait(20)
    ch.send(3, 10)
    assert mine.wait(10) == 3
    wait_until_none()
    rt.verify()


# --- asyncio ----------------------------------------------------------------------------------------------------------


def in_loop(body: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async def within() -> Any:
        async with asyncio.timeout(30):
            return await body()

    return asyncio.run(within())


def test_where_the_system_allows_no_thread_who_awaits_is_told_and_takes_nothing(
    rt: gomp.Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    ch = gomp.Chan[int]()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def body() -> int:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await ch.receiving()
        assert not listening.loops
        with pytest.raises(TimeoutError):
            ch.send(1, timeout=0)
        sent = rt.go(ch.send, 2)
        received: int = await ch.receiving()
        sent.wait(30)
        return received

    assert in_loop(body) == 2


def test_asyncio_awaits_programs_on_ps(rt: gomp.Runtime) -> None:
    def add_one(source: gomp.Chan[int], results: gomp.Chan[int]) -> None:
        for value in source:
            results.send(value + 1)
        results.close()

    async def body() -> list[int]:
        source, results = gomp.Chan[int](), gomp.Chan[int]()
        rt.go(add_one, source, results)

        async def feed() -> None:
            for n in range(50):
                await source.sending(n)
            source.close()

        feeding = asyncio.create_task(feed())
        got = [value async for value in results]
        await feeding
        return got

    assert in_loop(body) == list(range(1, 51))


def test_what_is_cancelled_has_sent_and_received_nothing(rt: gomp.Runtime) -> None:
    async def body() -> None:
        a, b, mutex, group = gomp.Chan[int](), gomp.Chan[int](), gomp.Mutex(), gomp.WaitGroup()
        mutex.lock()
        group.add(1)
        waits: list[Callable[[], Awaitable[Any]]] = [
            a.receiving,
            lambda: b.sending(1),
            mutex.locking,
            group.waiting,
            lambda: gomp.selecting(a.receiving(), b.sending(2)),
        ]
        for make in waits:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await make()
        assert gomp.num_goroutine() == 0
        with pytest.raises(TimeoutError):
            a.send(1, timeout=0)
        with pytest.raises(TimeoutError):
            b.recv(timeout=0)
        mutex.unlock()
        group.done()

    in_loop(body)
    rt.verify()


def test_cancelling_at_any_moment(rt: gomp.Runtime) -> None:
    """What is sent while its receiver is cancelled goes to another, or is lost with it; the sender is told that it was sent."""

    async def body() -> None:
        ch = gomp.Chan[int]()
        stop = threading.Event()
        sent = [0]

        def send() -> None:
            while not stop.is_set():
                try:
                    ch.send(1, timeout=0.01)
                    sent[0] += 1
                except TimeoutError:
                    continue

        sender = threading.Thread(target=send)
        sender.start()
        got = cancelled = 0
        try:
            for n in range(300):
                task = asyncio.ensure_future(_receive(ch))
                for _ in range(n % 7):
                    await asyncio.sleep(0)
                if n % 3 == 0:
                    await asyncio.sleep(0.0005)
                if task.done():
                    got += task.result()
                    continue
                task.cancel()
                try:
                    got += await task
                except asyncio.CancelledError:
                    cancelled += 1
        finally:
            stop.set()
            while sender.is_alive():
                await asyncio.sleep(0.01)
        assert got <= sent[0] <= got + cancelled

    in_loop(body)
    wait_until_none()
    rt.verify()


async def _receive(ch: gomp.Chan[int]) -> int:
    return await ch.receiving()


def test_a_loop_awaits_goroutines_too(rt: gomp.Runtime) -> None:
    async def body() -> int:
        async def inner() -> int:
            return 3

        started = gomp.go(inner())
        waiting = asyncio.ensure_future(_outcome(started))
        await asyncio.sleep(0)
        gomp.go(_turn()).wait(10)  # goroutines run in the main thread while it waits in gomp
        return await waiting

    assert in_loop(body) == 3


async def _outcome(started: Any) -> Any:
    return await started


def test_the_thread_that_listens_ends_when_nothing_is_awaited(rt: gomp.Runtime) -> None:
    ch = gomp.Chan[int]()

    async def body() -> int:
        waiting = asyncio.ensure_future(_receive(ch))
        await asyncio.sleep(0.01)
        assert any(t.name == listening._THREAD for t in threading.enumerate())
        await ch.sending(1)
        return await waiting

    assert in_loop(body) == 1
    end = time.monotonic() + 5
    while any(t.name == listening._THREAD for t in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)


# --- bad input --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_awaited(rt: gomp.Runtime) -> None:
    def yields(what: Any) -> Generator[Any, Any, None]:
        yield what

    async def sleeps() -> None:
        await asyncio.sleep(0.1)

    with pytest.raises(TypeError, match=r"awaits or yields what gomp has to wait for.*not 3"):
        gomp.go(yields(3)).wait(10)
    with pytest.raises(RuntimeError, match="no running event loop") as caught:
        gomp.go(sleeps).wait(10)
    assert "What needs an event loop belongs in asyncio.run" in caught.value.__notes__[0]
    with pytest.raises(TypeError, match="takes nothing else"):
        gomp.go(yields(3), 4)  # type: ignore[call-overload]
    with pytest.raises(RuntimeError, match=r"awaited in asyncio, or in a goroutine"):
        gomp.Chan[int]().receiving().__await__().send(None)
    with pytest.raises(TypeError, match="in the process that started it"):
        pickle.dumps(gomp.go(_turn()))


def test_one_that_would_wait_for_itself(rt: gomp.Runtime) -> None:
    async def blocks() -> None:
        gomp.go(_turn()).wait()

    with pytest.raises(RuntimeError, match="with await or yield"):
        gomp.go(blocks).wait(10)


# --- what is shown of them --------------------------------------------------------------------------------------------


async def _receives(ch: gomp.Chan[int]) -> int:
    return await ch.receiving()


async def _asks(ch: gomp.Chan[int]) -> int:
    return await _receives(ch)


@gomp.frame
class Takes:
    ch: gomp.Chan[int]
    has: bool

    def step(f) -> gomp.Action:
        if f.has:
            return f.ret()
        f.has = True
        return f.recv(f.ch)


async def _starts(ch: gomp.Chan[int]) -> int:
    gomp.go(Takes, ch=ch)
    return await gomp.go(_asks, ch)  # type: ignore[no-any-return]


def test_they_are_shown_with_their_lines_and_who_has_started_them(rt: gomp.Runtime) -> None:
    ch, before, others = gomp.Chan[int](), gomp.num_goroutine(), {g.id for g in gomp.debug.goroutines()}
    first = gomp.go(_starts(ch), labels={"kind": "example"})
    assert gomp.num_goroutine() == before + 1
    deadline = time.monotonic() + 20
    while len(found := [g for g in gomp.debug.goroutines() if g.id not in others and g.status == "waiting"]) < 3:
        assert time.monotonic() < deadline
        with pytest.raises(TimeoutError):
            first.wait(timeout=0.01)  # they run meanwhile
    starter, takes, asks = found
    assert [[f.function for f in g.frames] for g in found] == [["_starts"], ["Takes.step"], ["_receives", "_asks"]]
    assert [g.wait_reason for g in found] == ["end of a goroutine", "chan receive", "chan receive"]
    assert (starter.id, starter.parent) == (first.id, 0)
    assert starter.created_at.function.startswith("test_they_are_shown")
    for g in (takes, asks):
        assert (g.parent, g.created_at.function, dict(g.labels)) == (first.id, "_starts", {"kind": "example"})
    (seen_elsewhere,) = [g for g in goroutineprofile.read() if g.id == asks.id]
    assert [f.function for f in seen_elsewhere.frames] == ["_receives"]
    ch.send(1)
    ch.send(2)
    assert first.wait(20) in (1, 2)
    wait_until_none()


def _blocks(ch: gomp.Chan[int]) -> Generator[Any, Any, int]:
    value = ch.recv()  # as programs wait
    yield
    return value


def _blocking(ch: gomp.Chan[int]) -> int:
    return gomp.go(_blocks(ch), labels={"who": "first"}).wait(20)  # type: ignore[no-any-return]


def _nothing() -> Generator[Any, Any, str]:
    yield
    return "done"


def _beside(ch: gomp.Chan[int]) -> tuple[int, dict[str, str], str]:
    goid = gomp.go(Takes, ch=ch)
    (found,) = [g for g in gomp.debug.goroutines() if g.id == goid]
    return found.parent, dict(found.labels), gomp.go(_nothing()).wait(20)


def test_a_call_that_a_p_runs_meanwhile_is_none_of_a_goroutines_doing(rt: gomp.Runtime) -> None:
    ch, other = gomp.Chan[int](), gomp.Chan[int]()
    before = {g.id for g in gomp.debug.goroutines()}
    everywhere = [rt.go(_blocking, ch) for _ in range(rt.settings.procs)]
    deadline = time.monotonic() + 20
    while len(found := {g.id for g in gomp.debug.goroutines()} - before) < len(everywhere):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert rt.run(_beside, other) == (0, {}, "done")
    assert found <= {g.id for g in gomp.debug.goroutines()}
    for _ in everywhere:
        ch.send(7)
    other.send(1)
    assert [blocking.wait(timeout=20) for blocking in everywhere] == [7] * len(everywhere)
    wait_until_none()


@gomp.compiled
def _start_takes(ch: gomp.Chan[int]) -> int:
    return gomp.go(Takes, ch=ch)


def _calls(ch: gomp.Chan[int]) -> Generator[Any, Any, int]:
    goid = _start_takes(ch)
    yield
    return goid


def test_what_a_compiled_function_starts_that_one_of_them_calls_is_started_by_it(rt: gomp.Runtime) -> None:
    ch = gomp.Chan[int]()
    caller = gomp.go(_calls(ch), labels={"kind": "caller"})
    goid = caller.wait(20)
    (found,) = [g for g in gomp.debug.goroutines() if g.id == goid]
    assert (found.parent, dict(found.labels)) == (caller.id, {"kind": "caller"})
    assert gomp.go(Takes, ch=ch) != goid
    assert [g.parent for g in gomp.debug.goroutines() if g.frames and g.frames[0].function == "Takes.step"] == [
        caller.id,
        0,
    ]
    ch.close()
    wait_until_none()


def _says_where_it_is() -> Generator[Any, Any, list[str]]:
    def deeper() -> list[str]:
        (found,) = [g for g in gomp.debug.goroutines() if g.status == "running" and g.p == 0]
        return [f.function for f in found.frames]

    yield
    return deeper()


def test_of_one_that_runs_all_lines_are_shown(rt: gomp.Runtime) -> None:
    found = rt.run(_where)
    assert found == ["_says_where_it_is.<locals>.deeper", "_says_where_it_is"]


def _where() -> list[str]:
    return gomp.go(_says_where_it_is()).wait(20)  # type: ignore[no-any-return]


# --- in asyncio, and at their end -------------------------------------------------------------------------------------


def test_one_that_a_loop_awaits_has_its_turns_in_the_loop(rt: gomp.Runtime) -> None:
    async def both() -> list[int]:
        ch = gomp.Chan[int]()
        started = [gomp.go(_receives, ch), gomp.go(_receives, ch), gomp.go(_counts(3))]
        for value in (1, 2):
            await ch.sending(value)
        return [await g for g in started]

    assert sorted(asyncio.run(asyncio.wait_for(both(), 20))) == [1, 2, 3]
    assert not listening.loops
    wait_until_none()


def _counts(n: int) -> Generator[Any, Any, int]:
    for _ in range(n):
        yield
    return n


def _raises(error: BaseException) -> Generator[Any, Any, None]:
    yield
    raise error


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), GeneratorExit()])
def test_what_ends_a_body_ends_nothing_else(rt: gomp.Runtime, error: BaseException) -> None:
    with pytest.raises(type(error)):
        gomp.go(_raises(error)).wait(20)
    assert rt.run(_survives, repr(error).partition("(")[0]) == 3


def _survives(name: str) -> int:
    errors = {"SystemExit": SystemExit, "CancelledError": asyncio.CancelledError, "GeneratorExit": GeneratorExit}
    ended = gomp.go(_raises(errors[name]()))
    other = gomp.go(_counts(3))
    with pytest.raises(errors[name]):
        ended.wait(20)
    return other.wait(20)  # type: ignore[no-any-return]


def test_a_call_goes_to_a_p_whose_main_thread_is_free(rt: gomp.Runtime) -> None:
    busy = rt.run(_compute_later, 2.0)
    time.sleep(0.2)
    began = time.monotonic()
    others = {rt.run(os.getpid) for _ in range(5)}
    assert busy not in others
    assert time.monotonic() - began < 1.5


def _compute_later(seconds: float) -> int:
    gomp.go(_computes(seconds))
    return os.getpid()


def _computes(seconds: float) -> Generator[Any, Any, None]:
    yield
    time.sleep(seconds)
