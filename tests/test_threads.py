"""One process, several threads: all of them start goroutines, wait for them, and ask the coordinator, at once."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import gomp
from gomp.core.shm import layout
from gomp.core.shm.records import p_dtype, view
from gomp.runtime.channel import Channel, Message
from gomp.runtime.mailbox import Mailbox
from gomp.runtime.transit import outbox
from tests.free_slots import free_slots
from tests.running import wait_until_busy

SOON_S = 20.0


@gomp.struct
class Counter:
    n: int


def square(x: int) -> int:
    return x * x


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def number_in(counter: Counter) -> int:
    return counter.n


def with_threads(rt: gomp.Runtime, n: int, action: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(n) as threads:
        return [future.result(SOON_S) for future in [threads.submit(action, i) for i in range(n)]]


@pytest.mark.alone
def test_whoever_asks_is_answered_while_another_waits(rt: gomp.Runtime) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(rt.run, nap, 1.0)
        time.sleep(0.2)
        began = time.monotonic()
        assert rt.stats().num_gc >= 0
        assert gomp.debug.set_memory_limit(-1) > 0
        assert rt.verify(1).startswith("verified")
        assert time.monotonic() - began < 0.7
        assert not waiting.done()
        assert waiting.result(SOON_S) == 1.0


def test_threads_run_collect_and_look_at_once(rt: gomp.Runtime) -> None:
    def work(i: int) -> int:
        for k in range(12):
            assert rt.run(square, 100 * i + k) == (100 * i + k) ** 2
            assert rt.run(number_in, gomp.new(Counter, n=k)) == k
            if (i + k) % 4 == 0:
                rt.gc()
            elif (i + k) % 4 == 1:
                assert rt.stats().num_gc >= 0
            elif (i + k) % 4 == 2:
                assert rt.verify(i % 4 or 1).startswith(f"verified at level {i % 4 or 1}")
            else:
                assert gomp.debug.free_os_memory() >= 0
        return i

    before = (len(outbox), free_slots())
    assert with_threads(rt, 6, work) == list(range(6))
    outbox.settle()
    assert len(outbox) == 0, before


def sum_in_threads(n: int) -> int:
    """On a P: its threads start goroutines, which may go to this P too, and wait for them; the main thread only joins."""

    def work(i: int) -> int:
        assert gomp.debug.set_memory_limit(-1) > 0
        return sum(g.wait() for g in [gomp.go(square, i) for _ in range(3)])

    with ThreadPoolExecutor(4) as threads:
        return sum(threads.map(work, range(n)))


def test_threads_of_programs(rt: gomp.Runtime) -> None:
    goroutines = [rt.go(sum_in_threads, 8) for _ in range(4)]
    assert {g.wait(SOON_S) for g in goroutines} == {3 * sum(i * i for i in range(8))}


def test_asyncio(rt: gomp.Runtime) -> None:
    async def main() -> list[int]:
        stats, *numbers = await asyncio.gather(
            asyncio.to_thread(rt.stats), *(asyncio.to_thread(rt.run, square, i) for i in range(10))
        )
        assert stats.num_gc >= 0
        return numbers

    assert asyncio.run(main()) == [i * i for i in range(10)]


def test_callbacks_of_an_executor(rt: gomp.Runtime) -> None:
    seen: Future[tuple[int, int]] = Future()

    def look(done: Future[int]) -> None:
        seen.set_result((done.result() + rt.run(square, 2), rt.stats().num_gc))

    with gomp.Executor(rt) as executor:
        goroutine = rt.go(nap, 0.3)
        executor.submit(square, 3).add_done_callback(look)
        assert goroutine.wait(SOON_S) == 0.3
        assert seen.result(SOON_S)[0] == 13


def test_a_result_is_given_once(rt: gomp.Runtime) -> None:
    goroutine = rt.go(square, 3)
    with ThreadPoolExecutor(2) as threads:
        outcomes = [threads.submit(goroutine.wait, SOON_S) for _ in range(2)]
        assert sorted(type(f.exception(SOON_S)).__name__ for f in outcomes) == ["NoneType", "RuntimeError"]
    with pytest.raises(RuntimeError, match="taken already"):
        goroutine.wait()


def test_who_has_no_patience_does_not_take_it_from_others(rt: gomp.Runtime) -> None:
    first, second = rt.go(nap, 0.8), rt.go(nap, 0.6)
    with ThreadPoolExecutor(2) as threads:
        impatient = threads.submit(first.wait, 0.2)
        patient = threads.submit(second.wait, SOON_S)
        with pytest.raises(TimeoutError):
            impatient.result(SOON_S)
        assert patient.result(SOON_S) == 0.6
    assert first.wait(SOON_S) == 0.8


def test_a_ctrl_c_in_the_thread_that_receives_concerns_nobody_else(rt: gomp.Runtime) -> None:
    mine, others = rt.go(nap, 1.5), rt.go(nap, 0.8)
    with ThreadPoolExecutor(2) as threads:
        threads.submit(lambda: (time.sleep(0.3), os.kill(os.getpid(), signal.SIGINT)))
        waiting: list[Future[float]] = []

        def wait_for_mine() -> None:
            waiting.append(threads.submit(others.wait, SOON_S))
            mine.wait(SOON_S)

        with pytest.raises(KeyboardInterrupt):
            wait_for_mine()
        assert waiting[0].result(SOON_S) == 0.8
    assert mine.wait(SOON_S) == 1.5


def ps() -> list[Any]:
    return [view(p_dtype, layout.p_addr(i))[0] for i in range(2)]


def test_a_large_call_is_on_its_way_before_anybody_waits(rt: gomp.Runtime, tmp_path: Path) -> None:
    file = tmp_path / "arrived"
    goroutine = rt.go(lambda data: file.write_text(str(len(data))), bytes(8 << 20))
    deadline = time.monotonic() + SOON_S
    while not file.exists() or not file.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert goroutine.wait() > 0


# --- ends -------------------------------------------------------------------------------------------------------------


def outcome_of(action: Callable[[], object]) -> str:
    try:
        return repr(action())
    except Exception as error:
        return type(error).__name__


def test_a_killed_p_ends_the_waits_for_its_goroutines_alone(rt: gomp.Runtime) -> None:
    with ThreadPoolExecutor(6) as threads:
        doomed = [threads.submit(outcome_of, lambda: rt.run(nap, 60)) for _ in range(2)]
        wait_until_busy(2)
        others = [threads.submit(outcome_of, lambda: rt.stats().num_gc >= 0) for _ in range(2)]
        for p in ps():
            os.kill(int(p.xpid), signal.SIGKILL)
        others += [threads.submit(outcome_of, lambda: rt.run(square, 5)) for _ in range(2)]
        assert [f.result(SOON_S) for f in doomed] == ["WorkerDied", "WorkerDied"]
        assert [f.result(SOON_S) for f in others] == ["True", "True", "25", "25"]


ENDS_FOR_ALL = """
import time, gomp
from concurrent.futures import ThreadPoolExecutor
def outcome_of(action):
    try:
        return repr(action())
    except Exception as error:
        return type(error).__name__
with gomp.Runtime(procs=2, max_heap="64MiB") as rt:
    actions = [
        lambda: rt.run(time.sleep, 60),
        lambda: rt.run(time.sleep, 60),
        lambda: [rt.stats() for _ in range(1_000_000)],
        lambda: [rt.gc() for _ in range(1_000_000)],
        lambda: [rt.run(abs, i) for i in range(1_000_000)],
    ]
    with ThreadPoolExecutor(len(actions)) as threads:
        told = [threads.submit(outcome_of, action) for action in actions]
        time.sleep(0.5)
        {end}
        print(*sorted(future.result(20) for future in told))
"""


@pytest.mark.parametrize("end", ["rt._process.kill()", "rt.close()"], ids=["killed", "closed"])
def test_when_the_runtime_ends_everybody_who_waits_is_told(end: str) -> None:
    command = [sys.executable, "-c", ENDS_FOR_ALL.replace("{end}", end)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == 5 * ["RuntimeLost"], done.stderr


# --- the mailbox alone ------------------------------------------------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[Mailbox, Channel, list[Message]]]:
    ours, theirs = map(Channel, socket.socketpair())
    told: list[Message] = []
    mailbox = Mailbox(ours, told.append, lambda: None)
    yield mailbox, theirs, told
    mailbox.close()
    theirs.close()


def test_answers_are_matched_by_their_numbers(pair: tuple[Mailbox, Channel, list[Message]]) -> None:
    mailbox, theirs, told = pair
    first, second, third = (mailbox.number() for _ in range(3))
    for number in (third, first, second):
        theirs.send("stats", request=number)
    theirs.send("settle")
    assert [mailbox.take(n, 1.0) for n in (first, second, third)] == [
        Message("stats", {"request": n}) for n in (first, second, third)
    ]
    assert [m.op for m in told] == ["stats"] * 3 + ["settle"]


@pytest.mark.parametrize("is_there", [False, True], ids=["before", "after"])
def test_an_answer_that_is_forgotten_is_not_lost(pair: tuple[Mailbox, Channel, list[Message]], is_there: bool) -> None:
    mailbox, theirs, _ = pair
    forgotten, other = mailbox.number(), mailbox.number()
    if not is_there:
        mailbox.forget(forgotten)
    theirs.send("done", request=forgotten)
    theirs.send("done", request=other)
    assert mailbox.take(other, 1.0)
    mailbox.forget(forgotten)
    assert [m["request"] for m in mailbox.unwanted] == [forgotten]
    assert mailbox.take(forgotten, 0.0) is None


@pytest.mark.parametrize("where", ["_receive", "_end_receiving", "_deliver"])
def test_ctrl_c_leaves_the_next_one_a_receiver(
    pair: tuple[Mailbox, Channel, list[Message]], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """As a function of the receiver's is called. What has arrived is not lost, and nobody waits for a receiver that is gone."""
    mailbox, theirs, _ = pair
    plain = getattr(mailbox, where)

    def interrupted(*args: Any) -> Any:
        monkeypatch.setattr(mailbox, where, plain)
        raise KeyboardInterrupt

    numbers = [mailbox.number() for _ in range(3)]
    for number in numbers[1:]:
        theirs.send("stats", request=number)
    monkeypatch.setattr(mailbox, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        mailbox.take(numbers[0], 1.0)
    last = numbers[2] if where == "_deliver" else numbers[1]
    assert mailbox.take(last, 1.0)


def test_messages_of_several_threads_do_not_mix(pair: tuple[Mailbox, Channel, list[Message]]) -> None:
    mailbox, theirs, _ = pair
    sizes = [100_003, 1, 300_007, 0, 70_001, 5]
    threads = [
        threading.Thread(target=mailbox.post, args=("go", bytes([i]) * n), kwargs={"i": i}) for i, n in enumerate(sizes)
    ]
    for thread in threads:
        thread.start()
    came = {}
    while len(came) < len(sizes):
        message = theirs.next(SOON_S)
        assert message
        came[message["i"]] = message.payload
    assert came == {i: bytes([i]) * n for i, n in enumerate(sizes)}
    for thread in threads:
        thread.join()


def test_who_sends_to_somebody_who_waits_to_be_heard_hears_him(pair: tuple[Mailbox, Channel, list[Message]]) -> None:
    mailbox, theirs, arrived = pair
    theirs.send("settle", b"x" * (4 << 20))
    with ThreadPoolExecutor(1) as threads:
        sent = threads.submit(mailbox.post, "go", b"y" * (4 << 20))
        until = time.monotonic() + SOON_S
        while not theirs.is_flushed:
            assert time.monotonic() < until, "nobody hears what is said to who sends"
            theirs.flush()
        message = theirs.next(SOON_S)
        assert message
        assert len(message.payload) == 4 << 20
        sent.result(SOON_S)
    assert [len(message.payload) for message in arrived] == [4 << 20]


def test_a_lost_connection_is_told_to_everybody_who_waits_and_asks(
    pair: tuple[Mailbox, Channel, list[Message]],
) -> None:
    mailbox, theirs, _ = pair
    with ThreadPoolExecutor(5) as threads:
        waits = [threads.submit(mailbox.take, mailbox.number(), SOON_S) for _ in range(5)]
        time.sleep(0.1)
        theirs.send("lost", why="it is over")
        for wait in waits:
            with pytest.raises(gomp.RuntimeLost, match="it is over"):
                wait.result(SOON_S)
    with pytest.raises(gomp.RuntimeLost, match="it is over"):
        mailbox.post("stats")
