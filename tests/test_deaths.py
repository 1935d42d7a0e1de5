"""Processes of Ps that are killed, stopped or stuck: who waits is told, everybody else goes on, and another process takes the place."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

import gomp
from gomp.core.sched.status import enter_waiting
from gomp.core.shm import layout
from gomp.core.shm.records import GCSTATS, RUNTIME, gcstats_dtype, p_dtype, runtime_dtype, view
from gomp.runtime import current
from gomp.runtime.restarts import RECENT_S, TOLERATED, Restarts
from tests.running import busy_ps, wait_until_busy

PROCS = 2


@gomp.struct
class Node:
    next: Node
    value: int


CHAIN = gomp.Global("deaths.chain", Node)


@gomp.compiled
def chain(n: int) -> Node:
    head = None
    for i in range(n):
        head = gomp.new(Node, head, i)
    return head


@gomp.compiled
def total(head: Node) -> int:
    n = 0
    while head is not None:
        n += head.value
        head = head.next
    return n


@gomp.compiled
def allocate_for_ever() -> int:
    kept = chain(1000)
    while True:
        kept = gomp.new(Node, kept.next, 1)
    return kept.value


@pytest.fixture
def rt(monkeypatch: pytest.MonkeyPatch) -> Iterator[gomp.Runtime]:
    monkeypatch.setenv("GOMP_STOP_DEADLINE", "0.5")
    with gomp.Runtime(procs=PROCS, max_heap="256MiB") as runtime:
        yield runtime


def p_record(idx: int):
    return view(p_dtype, layout.p_addr(idx))[0]


def wait_until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain until {what}"
        time.sleep(0.001)


def where_am_i() -> tuple[int, int]:
    return int(view(p_dtype, layout.SELF_BASE)[0].idx), os.getpid()


def start_and_find(rt, body, *args):
    """A goroutine that has started, and the P that runs it."""
    assert not busy_ps(), "nothing runs yet"
    goroutine = rt.go(body, *args)
    return goroutine, wait_until_busy(1).pop()


def wait_until_idle(rt: gomp.Runtime) -> None:
    wait_until(lambda: all(int(p_record(i).xidle) for i in range(PROCS)), "both Ps wait for something to run")


def kill(idx: int, number: int = signal.SIGKILL) -> int:
    pid = int(p_record(idx).xpid)
    os.kill(pid, number)
    return pid


def wait_until_replaced(idx: int, pid: int) -> None:
    wait_until(lambda: int(p_record(idx).xpid) not in (0, pid) and p_record(idx).xidle, f"P{idx} has another process")


def test_who_waits_for_a_goroutine_whose_p_is_killed_is_told_and_the_rest_goes_on(rt):
    CHAIN.set(chain(1000))
    wait_until_idle(rt)
    goroutine, idx = start_and_find(rt, time.sleep, 60)
    pid = kill(idx)
    with pytest.raises(gomp.WorkerDied, match=rf"sleep: P{idx} \(pid {pid}\) was killed by SIGKILL"):
        goroutine.wait(10)
    wait_until_replaced(idx, pid)
    assert {rt.run(where_am_i)[0] for _ in range(20)} <= set(range(PROCS))
    assert total(CHAIN.get()) == sum(range(1000))
    assert "verified" in rt.verify()
    assert view(runtime_dtype, RUNTIME)[0].xready == 1
    assert p_record(idx).deaths == 1


@pytest.mark.parametrize("phase", ["at any time", "while the heap is marked"])
def test_a_p_that_is_killed_in_machine_code_leaves_a_sound_heap(rt, phase):
    kept = chain(200_000)
    for _ in range(5):
        wait_until_idle(rt)
        goroutine, idx = start_and_find(rt, allocate_for_ever)
        time.sleep(0.02)
        if phase != "at any time":
            wait_until(lambda: view(runtime_dtype, RUNTIME)[0].xgcphase, "a cycle is on")
        pid = kill(idx)
        with pytest.raises(gomp.WorkerDied):
            goroutine.wait(10)
        assert "verified" in rt.verify()
        rt.gc()
        assert total(kept) == sum(range(200_000))
        wait_until_replaced(idx, pid)
    rt.gc()
    rt.gc()
    assert rt.stats().heap_objects < 210_000


def test_goroutines_that_had_not_started_run_elsewhere(rt):
    wait_until_idle(rt)
    blockers = [rt.go(time.sleep, 60) for _ in range(PROCS)]
    queued = [rt.go(where_am_i) for _ in range(10)]
    wait_until_busy(PROCS)
    kill(0)
    with pytest.raises(gomp.WorkerDied):
        blockers[0].wait(10)
    assert [goroutine.wait(10)[0] for goroutine in queued[::2]] == [0] * 5
    kill(1)
    assert len([goroutine.wait(10) for goroutine in queued[1::2]]) == 5


def sleep_after(n: int) -> int:
    return n


def test_a_p_that_dies_after_each_goroutine_loses_no_result(rt):
    for _ in range(4):
        idx, pid = rt.run(where_am_i)
        os.kill(pid, signal.SIGKILL)
        wait_until_replaced(idx, pid)


STUCK = """
import os, signal, time, gomp

def stop_itself_in_a_kernel():
    from gomp.core.sched.status import enter_waiting
    enter_waiting()
    os.kill(os.getpid(), signal.SIGSTOP)

def hold_a_kernel():
    from gomp.core.sched.status import enter_waiting
    enter_waiting()
    time.sleep(60)

with gomp.Runtime(procs=2, max_heap="64MiB") as rt:
    goroutine = rt.go({body})
    time.sleep(0.2)
    began = time.monotonic()
    rt.gc()
    print(time.monotonic() - began, flush=True)
    try:
        goroutine.wait(10)
    except gomp.WorkerDied:
        print(rt.verify())
"""


@pytest.mark.parametrize("body", ["stop_itself_in_a_kernel", "hold_a_kernel"])
def test_a_p_that_does_not_stop_is_named_and_killed_at_the_deadline(body):
    done = subprocess.run(
        [sys.executable, "-c", STUCK.replace("{body}", body)],
        env={**os.environ, "GOMP_STOP_DEADLINE": "0.5"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    waited, verified = done.stdout.splitlines()
    assert 0.4 < float(waited) < 5
    assert verified.startswith("verified at level 3")
    assert re.search(rf"P\d \(pid \d+\) did not stop within 0.5 s; it runs {body}; it is killed", done.stderr)


FROZEN = """
import os, signal, threading, time, gomp
from gomp.core.shm.records import RUNTIME, runtime_dtype, view

def stop_itself_in_a_kernel():
    from gomp.core.sched.status import enter_waiting, leave
    enter_waiting()
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(0.2)
    leave()
    return "went on"

def is_stopped(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "T"

with gomp.Runtime(procs=1, max_heap="64MiB") as rt:
    pid, runtime = rt.run(os.getpid), view(runtime_dtype, RUNTIME)[0]
    goroutine = rt.go(stop_itself_in_a_kernel)
    while not is_stopped(pid):
        time.sleep(0.01)
    threading.Thread(target=rt.gc, daemon=True).start()
    while not runtime.xstop:
        time.sleep(0.01)
    coordinator = int(runtime.coordinator_pid)
    os.kill(coordinator, signal.SIGSTOP)
    time.sleep(5)
    os.kill(pid, signal.SIGCONT)
    os.kill(coordinator, signal.SIGCONT)
    print(goroutine.wait(20))
"""


@pytest.mark.slow
def test_the_time_for_which_all_were_frozen_counts_for_no_deadline():
    done = subprocess.run(
        [sys.executable, "-c", FROZEN],
        env={**os.environ, "GOMP_STOP_DEADLINE": "4"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("went on\n", "")


STOPPED_WITH_A_LOCK = """
import os, signal, time, gomp

@gomp.struct
class Node:
    next: "Node"

@gomp.compiled
def allocate(n: int) -> None:
    for i in range(n):
        gomp.new(Node)

def allocate_later(n):
    time.sleep(0.3)
    allocate(n)
    return os.getpid()

def stop_with_a_lock():
    from gomp.core.sched.status import enter_waiting
    from gomp.core.shm.atomics import store_release
    from gomp.core.shm.records import MHEAP_XLOCK
    enter_waiting()
    store_release(MHEAP_XLOCK, 1 + {idx})
    os.kill(os.getpid(), signal.SIGSTOP)

with gomp.Runtime(procs=2, max_heap="64MiB") as rt:
    rt.go(allocate, 1).wait()
    other = rt.go(allocate_later, 1_000_000)
    stopped = rt.go(stop_with_a_lock)
    time.sleep(0.6)
    {then}
    try:
        stopped.wait(30)
    except gomp.WorkerDied as error:
        print(error)
    print(other.wait(20) > 0, rt.verify())
"""


@pytest.mark.parametrize(
    "then", ["rt.gc()", pytest.param("pass", marks=pytest.mark.slow)], ids=["a_stop_waits", "only_who_allocates_waits"]
)
def test_who_is_stopped_with_a_lock_is_killed_and_not_who_waits_for_it(then):
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_WITH_A_LOCK.replace("{idx}", "1").replace("{then}", then)],
        env={**os.environ, "GOMP_STOP_DEADLINE": "0.5"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    died, ended = done.stdout.splitlines()
    assert re.match(r"stop_with_a_lock: P1 \(pid \d+\) was killed by SIGKILL", died)
    assert ended.startswith("True verified at level 3")


def test_a_p_that_says_nonsense_is_killed_and_replaced(rt):
    wait_until_idle(rt)
    with pytest.raises(gomp.WorkerDied):
        rt.run(lambda: (current.peer().mailbox.channel.sock.send(bytes([255] * 8)), time.sleep(60)))
    assert rt.run(os.getpid) > 0


def ask_and_die_in_a_kernel() -> None:
    for _ in range(100):
        current.peer().mailbox.channel.send("stats")
    enter_waiting()
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_p_had_asked_for_when_it_died_is_not_answered(rt):
    wait_until_idle(rt)
    with pytest.raises(gomp.WorkerDied):
        rt.run(ask_and_die_in_a_kernel)
    assert rt.run(os.getpid) > 0
    assert "verified" in rt.verify()


def leave_a_child_that_talks() -> None:
    theirs = os.dup(current.peer().mailbox.channel.fileno())
    if os.fork() == 0:
        try:
            sock = socket.socket(fileno=theirs)
            sock.setblocking(True)
            said = struct.pack("<II", 13, 0) + b'{"op": "go" }'
            while True:
                sock.sendall(said * 100)
        finally:
            os._exit(0)
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_child_of_a_p_that_has_died_is_not_listened_to(rt):
    wait_until_idle(rt)
    goroutine, idx = start_and_find(rt, leave_a_child_that_talks)
    pid = int(p_record(idx).xpid)
    with pytest.raises(gomp.WorkerDied):
        goroutine.wait(10)
    wait_until_replaced(idx, pid)
    assert rt.run(os.getpid) > 0
    assert "verified" in rt.verify()


def test_all_ps_at_once(rt):
    wait_until_idle(rt)
    goroutines = [rt.go(time.sleep, 60) for _ in range(PROCS)]
    wait_until_busy(PROCS)
    for idx in range(PROCS):
        kill(idx)
    for goroutine in goroutines:
        with pytest.raises(gomp.WorkerDied):
            goroutine.wait(10)
    assert rt.run(where_am_i)
    assert view(gcstats_dtype, GCSTATS)[0].repairs >= 1


def wait_for_another() -> str:
    try:
        gomp.go(time.sleep, 60).wait()
    except gomp.WorkerDied as error:
        return str(error)
    return "nothing happened"


def test_a_goroutine_that_waits_for_one_on_a_dead_p_is_told(rt):
    wait_until_idle(rt)
    waiter, idx = start_and_find(rt, wait_for_another)
    wait_until_busy(2)
    kill(1 - idx)
    assert f"P{1 - idx} " in waiter.wait(10)


def test_a_p_that_keeps_dying_is_started_again_later_and_later():
    restarts, now = Restarts(), 0.0
    delays = []
    for _ in range(TOLERATED + 9):
        now += 0.2
        delays.append(restarts.died(now))
    assert delays == [0] * TOLERATED + [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]
    assert restarts.died(now + RECENT_S + 1) == 0


def test_the_processes_of_a_runtime_that_lost_some_end_with_it():
    script = (
        "import os, signal, time, gomp\n"
        ""
        "with gomp.Runtime(procs=2, max_heap='64MiB') as rt:\n"
        "    os.kill(rt.run(os.getpid), signal.SIGKILL)\n"
        "    print(rt.run(os.getpid), rt.run(os.getpid))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for pid in map(int, done.stdout.split()):
        assert not os.path.exists(f"/proc/{pid}")


KILLED_SCRIPT = """
import os, signal, time, gomp
from gomp.core.mutator.poll import request_collection
from gomp.core.sched.status import enter_waiting
from gomp.core.shm.records import GC_TRIGGER_FORCED

rt = gomp.Runtime(procs=1, max_heap="64MiB")
rt.start()
print(rt._process.pid, flush=True)
enter_waiting()
request_collection(GC_TRIGGER_FORCED)
time.sleep(0.2)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_stop_does_not_wait_for_a_script_that_was_killed():
    script = subprocess.Popen([sys.executable, "-c", KILLED_SCRIPT], stdout=subprocess.PIPE, text=True)
    with script:
        pid = int(script.stdout.readline())
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "its coordinator has ended", 5.0)
