"""Programs of Ps that wait in Python, or in compiled code, while there are goroutines to run, and while Ps come and go."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gomp
from gomp.core.shm import layout
from gomp.core.shm.records import p_dtype, view
from tests.running import wait_until_busy


@gomp.frame
class Turns(gomp.Frame[None]):
    left: int

    def step(f) -> gomp.Action:
        if f.left == 0:
            return f.ret()
        f.left -= 1
        return f.yield_()


@gomp.frame
class Calls(gomp.Frame[None]):
    left: int

    def step(f) -> gomp.Action:
        if f.left == 0:
            return f.ret()
        f.left -= 1
        return f.call(Nothing)


@gomp.frame
class Nothing(gomp.Frame[None]):
    def step(f) -> gomp.Action:
        return f.ret()


ENDLESS = 1 << 60


def waits_a_little(seconds: float) -> float:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        gomp.Chan[int]().recv(timeout=seconds)
    return time.monotonic() - began - seconds


@pytest.mark.parametrize("frame", [Turns, Calls])
def test_a_timeout_is_heeded_however_much_there_is_to_run(frame: type[gomp.Frame[None]]) -> None:
    with gomp.Runtime(procs=1) as rt:
        gomp.go(frame, left=ENDLESS)
        gomp.go(frame, left=ENDLESS)
        late = [rt.run(waits_a_little, 0.2) for _ in range(3)]
        assert min(late) < 0.1
        assert max(late) < 2


@gomp.compiled
def answer(asked: gomp.Chan[int], out: gomp.Chan[int], work: int) -> int:
    n = 0
    while asked.recv() >= 0:
        for i in range(work):
            n ^= n * 3 + i
        gomp.go(Turns, left=0)
        out.send(1)
    return n


def ask(asked: gomp.Chan[int], out: gomp.Chan[int], rounds: int) -> int:
    """After how many answers this P was still taken for one that looks for something to run."""
    me, looked = view(p_dtype, layout.SELF_BASE)[0], 0
    for _ in range(rounds):
        asked.send(1)
        out.recv()
        looked += int(me.xspinning)
    asked.send(-1)
    return looked


def test_a_p_that_was_woken_to_look_and_has_got_a_value_looks_no_more() -> None:
    """Nobody else would steal while its program runs."""
    with gomp.Runtime(procs=2) as rt:
        asked, out = gomp.Chan[int](), gomp.Chan[int]()
        answering = rt.go(answer, asked, out, 1_000_000)
        assert rt.run(ask, asked, out, 100) == 0
        answering.wait(10)


@gomp.compiled
def take(ch: gomp.Chan[int]) -> int:
    return ch.recv()


def takes(ch: gomp.Chan[int]) -> int:
    return ch.recv()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("wait", [take, takes])
def test_a_p_that_is_to_leave_or_to_stay_sleeps_while_its_program_waits(wait) -> None:
    with gomp.Runtime(procs=2) as rt:
        ch = gomp.Chan[int]()
        waiting = [rt.go(wait, ch) for _ in range(2)]
        wait_until_busy(2)
        pid = int(view(p_dtype, layout.p_addr(1))[0].xpid)
        for procs in (1, 2):
            gomp.debug.set_max_procs(procs)
            time.sleep(0.3)
            before = cpu_s(pid)
            time.sleep(0.7)
            assert cpu_s(pid) - before < 0.2
        for _ in waiting:
            ch.send(5)
        assert [g.wait(10) for g in waiting] == [5, 5]


LAST_WAIT = """
import os, signal, threading, time, gomp
from gomp.core.shm import layout
from gomp.core.shm.records import G_WAITING, RUNTIME, SCHED, g_dtype, runtime_dtype, sched_dtype, view

def die():
    while not waiting():
        time.sleep(0.01)
    for g in waiting():
        g.done = 1  # as whoever ends a wait says, who is killed before it has said the rest
    os.kill(int(view(runtime_dtype, RUNTIME)[0].coordinator_pid), signal.SIGKILL)

def waiting():
    records = [view(g_dtype, layout.g_addr(n + 1))[0] for n in range(int(view(sched_dtype, SCHED)[0].ngs))]
    return [g for g in records if g.xstatus == G_WAITING]

with gomp.Runtime(procs=1) as rt:
    threading.Thread(target=die, daemon=True).start()
    try:
        gomp.Chan[int]().recv()
    except gomp.RuntimeLost:
        print("lost")
"""


def test_a_wait_whose_end_was_half_said_ends_with_the_runtime() -> None:
    done = subprocess.run([sys.executable, "-c", LAST_WAIT], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("lost\n", 0), done.stderr


async def receives(there: gomp.Chan[int]) -> int:
    return await there.receiving()


def test_many_programs_may_wait_on_one_p() -> None:
    with gomp.Runtime(procs=1) as rt:
        there = gomp.Chan[int]()
        waiting = [rt.go(receives, there) for _ in range(200)]
        for n in range(200):
            there.send(n)
        assert sorted(each.wait() for each in waiting) == list(range(200))


def waits_at_the_end_of(recursion: int) -> int:
    return waits_at_the_end_of(recursion - 1) if recursion > 0 else gomp.go(len, "abc").wait()


def tries_each_depth() -> int:
    """How many of them leave room to wait in."""
    could = 0
    for depth in reversed(range(700, 1000)):
        try:
            could += waits_at_the_end_of(depth) == 3
        except RecursionError:
            continue
    return could


def test_where_python_has_no_room_for_a_wait_nothing_is_lost() -> None:
    with gomp.Runtime(procs=1) as rt:
        assert 0 < rt.run(tries_each_depth) < 300
        assert rt.run(len, "abcd") == 4
        assert rt.stats().ps[0].deaths == 0
