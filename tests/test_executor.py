"""``gomp.Executor`` does what the executors of ``concurrent.futures`` do, on the Ps."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

import gomp
from gomp.runtime.transit import outbox
from tests.free_slots import free_slots


@gomp.struct
class Counter:
    n: int


@pytest.fixture
def executor(rt) -> Iterator[gomp.Executor]:
    with gomp.Executor(rt) as made:
        yield made


def square(x):
    return x * x


def nap(seconds):
    time.sleep(seconds)
    return seconds


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def fail(text):
    raise LookupError(text)


def wait_for(file):
    while not file.exists():
        time.sleep(0.01)


def until_running(sent):
    while not all(f.running() for f in sent):
        time.sleep(0.01)


def test_submit_and_map(executor):
    assert executor.submit(square, 7).result() == 49
    assert executor.submit(pow, 2, exp=5).result() == 32
    assert list(executor.map(square, range(20))) == [x * x for x in range(20)]
    assert list(executor.map(pow, [2, 3, 4], [2, 2])) == [4, 9]
    assert isinstance(executor, cf.Executor)


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_map_in_chunks(executor, chunksize):
    assert list(executor.map(lambda x, y: x - y, range(10), range(10, 20), chunksize=chunksize)) == [-10] * 10
    assert list(executor.map(square, [], chunksize=chunksize)) == []


def test_map_refuses_a_chunksize_of_nothing(executor):
    with pytest.raises(ValueError, match="at least 1"):
        executor.map(square, [1], chunksize=0)


def test_map_times_out(executor):
    with pytest.raises(TimeoutError):
        list(executor.map(nap, [0.5], timeout=0.05))


def test_what_a_task_raises_is_its_future_s_exception(executor):
    future = executor.submit(fail, "not here")
    assert isinstance(future.exception(), LookupError)
    with pytest.raises(LookupError, match="not here") as caught:
        future.result()
    assert "in fail" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "square() missing 1 required positional argument: 'x'"),
        ((1, 2), {}, "square() takes 1 positional argument but 2 were given"),
        ((1,), {"y": 2}, "square() got an unexpected keyword argument 'y'"),
    ],
)
def test_arguments_that_a_function_does_not_take_are_a_type_error(rt, executor, args, kwargs, message):
    for call in (rt.run, lambda *args, **kwargs: executor.submit(*args, **kwargs).result()):
        with pytest.raises(TypeError) as raised:
            call(square, *args, **kwargs)
        assert str(raised.value) == message


def test_a_task_whose_p_dies_gets_worker_died_and_the_next_go_on(executor):
    futures = [executor.submit(die), *(executor.submit(square, i) for i in range(6))]
    with pytest.raises(gomp.WorkerDied, match="die: P"):
        futures[0].result()
    for i, future in enumerate(futures[1:]):
        if not isinstance(future.exception(), gomp.WorkerDied):  # the other P had it, or it had not started
            assert future.result() == i * i
    assert executor.submit(square, 3).result() == 9


def test_what_cannot_be_pickled_fails_its_own_future(executor):
    assert isinstance(executor.submit(square, threading.Lock()).exception(), TypeError)
    assert isinstance(executor.submit(threading.Lock).exception(), TypeError)
    assert executor.submit(square, 3).result() == 9


def test_what_has_not_been_sent_can_be_cancelled(executor, tmp_path):
    gate = tmp_path / "gate"
    running = [executor.submit(wait_for, gate) for _ in range(2)]
    waiting = [executor.submit(square, i) for i in range(5)]
    until_running(running)
    assert not running[0].cancel()
    assert all(f.cancel() for f in waiting[1:])
    gate.touch()
    done, _ = cf.wait([*running, *waiting], timeout=30)
    assert len(done) == 7
    assert waiting[0].result() == 0
    assert all(f.cancelled() for f in waiting[1:])


def test_as_completed_and_callbacks(executor):
    heard = []
    futures = [executor.submit(nap, s) for s in (0.3, 0.0)]
    for future in futures:
        future.add_done_callback(lambda f: heard.append(f.result()))
    assert [f.result() for f in cf.as_completed(futures)] == [0.0, 0.3]
    assert heard == [0.0, 0.3]


def test_asyncio_runs_in_it(executor):
    async def main():
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, square, i) for i in range(8)))

    assert asyncio.run(main()) == [i * i for i in range(8)]


def test_shutdown_waits_and_takes_no_more(rt):
    executor = gomp.Executor(rt)
    futures = [executor.submit(nap, 0.1) for _ in range(4)]
    executor.shutdown()
    assert all(f.done() for f in futures)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(square, 1)
    executor.shutdown()


def test_shutdown_cancels_what_has_not_been_sent(rt, tmp_path):
    gate = tmp_path / "gate"
    executor = gomp.Executor(rt)
    futures = [executor.submit(wait_for, gate) for _ in range(6)]
    until_running(futures[:2])
    executor.shutdown(wait=False, cancel_futures=True)
    assert [f.cancelled() for f in futures] == [False, False, True, True, True, True]
    gate.touch()
    executor.shutdown()
    assert not futures[0].cancelled()
    cf.wait(futures, timeout=1)


def test_an_executor_that_is_dropped_ends_its_thread(rt):
    executor = gomp.Executor(rt)
    thread = executor._thread
    future = executor.submit(square, 4)
    del executor
    assert future.result() == 16
    thread.join(10)
    assert not thread.is_alive()


def add(counter, array, value):
    counter.n += value
    array[value] += 1
    return counter


def test_tasks_share_objects_and_arrays_and_leak_no_slot(rt, executor):
    counter, array = gomp.new(Counter), gomp.ndarray(100)
    gc.collect()
    outbox.settle()
    free = free_slots()
    for i in range(100):
        assert executor.submit(add, counter, array, i).result() == counter
    assert (counter.n, array.sum()) == (4950, 100)
    gc.collect()
    outbox.settle()
    assert len(outbox) == 0
    assert free_slots() >= free


def test_the_script_s_threads_go_on_beside_it(rt, executor):
    futures = [executor.submit(nap, 0.02) for _ in range(20)]
    assert [rt.run(square, i) for i in range(20)] == [i * i for i in range(20)]
    assert {f.result() for f in futures} == {0.02}


def test_many_threads_submit(executor):
    results = []

    def work(k):
        results.extend(f.result() for f in [executor.submit(square, 1000 * k + i) for i in range(30)])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted((1000 * k + i) ** 2 for k in range(5) for i in range(30))


def test_large_arguments_pass_whole(executor):
    data = np.random.default_rng(1).integers(0, 255, 20_000_000, dtype=np.uint8)
    assert executor.submit(lambda d: int(d.sum()), data).result() == int(data.sum())


def test_its_thread_sleeps_while_there_is_nothing(rt, executor):
    executor.submit(square, 1).result()
    time.sleep(0.1)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1


def test_it_its_runtime_and_goroutines_stay_where_they_are(rt, executor):
    def use():
        return executor.submit(abs, 1)

    with pytest.raises(
        TypeError, match=r"an executor stays in the script that made it: a task starts others with gomp\.go"
    ):
        executor.submit(use).result()
    with pytest.raises(
        TypeError, match="a runtime stays in the script that opened it: what runs on a P starts goroutines with"
    ):
        rt.run(lambda: rt.gc())
    started = rt.go(abs, 1)
    with pytest.raises(TypeError, match="a goroutine is waited for in the process that started it"):
        rt.run(lambda: started.wait())
    assert started.wait() == 1


def test_only_a_script_has_one(rt):
    with pytest.raises(TypeError, match="starts goroutines"):
        gomp.Executor()
    with pytest.raises(TypeError, match="starts goroutines"):
        rt.run(lambda: gomp.Executor())


ENDED = """
import gomp, time
with gomp.Runtime(procs=1, max_heap="64MiB") as rt:
    executor = gomp.Executor(rt)
    futures = [executor.submit(time.sleep, 60) for _ in range(3)]
for future in futures:
    try: future.result(30)
    except gomp.RuntimeLost as error: print("lost")
try: executor.submit(abs, 1)
except gomp.RuntimeLost as error: print("lost")
executor.shutdown()
try: gomp.Executor(rt)
except gomp.RuntimeLost as error: print(error)
"""


def test_a_runtime_that_ends_fails_what_was_not_done():
    done = subprocess.run([sys.executable, "-c", ENDED], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["lost"] * 4 + ["this runtime is not open: use it in a `with` block"]


LOST = """
import os, signal, time
import gomp
from gomp.core.shm.records import RUNTIME, runtime_dtype, view

FUTURES = []

class User:
    def __init__(self, rt):
        self.executor, self.array = gomp.Executor(rt), gomp.ndarray(8)
    def submit(self):
        FUTURES.append(self.executor.submit(abs, self.array))

def use(rt):
    user = User(rt)
    os.kill(int(view(runtime_dtype, RUNTIME)[0].coordinator_pid), signal.SIGKILL)
    while True:
        user.submit()
        time.sleep(0.01)

try:
    with gomp.Runtime(procs=1, max_heap="64MiB") as rt:
        use(rt)
except gomp.RuntimeLost as error:
    print("lost")
with gomp.Runtime(procs=1, max_heap="64MiB") as rt:
    print(rt.run(abs, -1))
"""


def test_a_future_that_is_lost_and_a_refusal_keep_nothing_of_whoever_got_them():
    """Their arrays would stand in the way of the next runtime."""
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=100, check=False)
    assert (done.stdout, done.returncode) == ("lost\n1\n", 0), done.stderr
