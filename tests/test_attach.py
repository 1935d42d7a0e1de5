"""``gomp.attach``: other processes take part in a runtime that runs, and leave it in any way at all."""

from __future__ import annotations

import math
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

import gomp
from gomp.core.jit import cache_key
from gomp.core.shm import layout
from gomp.core.shm.records import p_dtype, view
from gomp.runtime import discovery
from gomp.runtime.connected import Connected
from gomp.runtime.ending import Ending
from gomp.runtime.events import Events
from tests.attaching import Item
from tests.forked_children import Child, Server

NAME = f"attach-{os.getpid()}"
LENT = 2
WAIT_S = 30


@pytest.fixture(scope="module")
def rt() -> Iterator[gomp.Runtime]:
    with gomp.Runtime(procs=2, max_procs=2, max_heap="256MiB", name=NAME, max_attached=LENT) as runtime:
        yield runtime
        assert runtime.verify(3).startswith("verified")


@pytest.fixture(scope="module", autouse=True)
def processes() -> Iterator[None]:
    global _server
    _server = Server("tests.attaching")
    yield
    _server.close()


_server: Server


def start(name: str, what: str, *arguments: object) -> Child:
    return _server.start(name, what, *arguments)


def attached() -> list[int]:
    return next(info.attached for info in discovery.list_runtimes() if info.name == NAME)


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


@pytest.fixture
def all_free(rt: gomp.Runtime) -> Iterator[None]:
    """In the end nobody has a P, nothing of who had one is left, and the heap is whole."""
    rt.gc()
    before = gomp.num_goroutine()
    yield
    wait_until(lambda: attached() == [], "somebody is attached still")
    for idx in range(3, 3 + LENT):
        record = view(p_dtype, layout.p_addr(idx))[0]
        words = view(np.dtype("i8"), layout.handles_addr(idx), int(record.handles))
        assert (int(record.xpid), int(record.pidfd), words.any()) == (0, 0, False)
    assert gomp.num_goroutine() == before
    rt.verify(3)


def said(process: Child, seconds: float = WAIT_S) -> str:
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err
    return out.strip()


def here(process: Child) -> None:
    assert process.stdout.readline() == "here\n"


def test_it_takes_part_in_everything(rt: gomp.Runtime, all_free: None) -> None:
    shared = gomp.map(str, Item)
    shared["from owner"] = gomp.new(Item, number=1)
    gomp.globals["shared"] = shared
    gomp.globals["numbers"] = numbers = gomp.array(int, 10)
    gomp.globals["asked"] = asked = gomp.Chan[int](1)
    gomp.globals["answered"] = answered = gomp.Chan[int]()
    process = start(NAME, "use")
    assert asked.recv(timeout=WAIT_S) in {int(view(p_dtype, layout.p_addr(i))[0].xpid) for i in range(2)}
    answered.send(5, timeout=WAIT_S)
    assert said(process) == "5 verified"
    assert shared["from attached"].number == 2
    assert gomp.globals["chain"].next.next.number == 997
    assert numbers[3] == 33
    for name in ("shared", "numbers", "asked", "answered", "chain"):
        del gomp.globals[name]


def test_it_has_tasks_done_by_an_executor_which_ends_with_its_part(all_free: None) -> None:
    assert said(start(NAME, "execute")) == f"{sum(range(1, 21))}\nthis process has left the runtime {NAME}"


@pytest.mark.parametrize("what", ["leave", "exit_without_a_word"])
def test_it_leaves_by_itself(all_free: None, what: str) -> None:
    assert said(start(NAME, what)) == (
        f"RuntimeLost: this process has left the runtime {NAME}: attach again" if what == "leave" else ""
    )


@pytest.mark.parametrize("what", ["stay", "wait"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_is_killed(rt: gomp.Runtime, all_free: None, what: str, number: signal.Signals) -> None:
    gomp.globals["never"] = gomp.Chan[int]()
    process = start(NAME, what)
    here(process)
    process.send_signal(number)
    process.communicate(timeout=WAIT_S)
    wait_until(lambda: attached() == [], "it is attached still")
    del gomp.globals["never"]


@pytest.mark.parametrize("what", ["have_made", "have_made_and_leave"])
def test_results_that_nobody_takes_any_more_are_gone(rt: gomp.Runtime, all_free: None, what: str) -> None:
    for _ in range(2):  # and the next who has its P does not inherit them
        process = start(NAME, what)
        if what == "have_made":
            here(process)
            time.sleep(0.2)
            process.kill()
        process.communicate(timeout=WAIT_S)
        wait_until(lambda: attached() == [], "it is attached still")

    def are_gone() -> bool:
        rt.gc()
        return rt.stats().heap_objects < 1000

    wait_until(are_gone, f"there are {rt.stats().heap_objects} objects")


def test_it_is_killed_again_and_again(rt: gomp.Runtime, all_free: None) -> None:
    _kill_in_a_loop(rt, 60)


@pytest.mark.slow
def test_it_is_killed_500_times(rt: gomp.Runtime, all_free: None) -> None:
    _kill_in_a_loop(rt, 500)


def _kill_in_a_loop(rt: gomp.Runtime, times: int) -> None:
    gomp.globals["never"] = gomp.Chan[int]()
    gomp.globals["shared"] = shared = gomp.map(str, Item)
    rt.gc()
    before = rt.stats()
    assert said(start(NAME, "killed", times), WAIT_S + times / 2) == "done"
    wait_until(lambda: attached() == [], "it is attached still")
    assert {int(key.split()[1]) for key in shared} <= {item.number % 50 for item in shared.values()}
    del gomp.globals["never"], gomp.globals["shared"], shared
    rt.gc()
    now = rt.stats()
    assert 0 < now.repairs.count - before.repairs.count <= times
    assert now.heap_objects <= before.heap_objects + 100


def test_whoever_waits_for_a_p_gets_the_next_that_is_free(rt: gomp.Runtime, all_free: None) -> None:
    holders = [start(NAME, "stay") for _ in range(LENT)]
    for holder in holders:
        here(holder)
    pids = ", ".join(map(str, attached()))
    assert said(start(NAME, "refused")) == (
        f"NoFreeP: each of the {LENT} Ps that the runtime {NAME} lends is lent, to the processes {pids}: attach with a timeout, or start it with a "
        "larger max_attached"
    )
    given_up = start(NAME, "again", 1)
    waiting = [start(NAME, "again", 3) for _ in range(2)]
    time.sleep(1.5)
    given_up.kill()
    given_up.communicate()
    holders[0].kill()
    assert all(float(said(process)) >= 0 for process in waiting)
    holders[1].kill()
    for holder in holders:
        holder.communicate()


@pytest.mark.alone
def test_it_takes_less_than_5_ms_where_the_kernels_are_loaded(all_free: None) -> None:
    """That of thirty which had the processors to itself."""
    assert float(said(start(NAME, "again", 30))) < 5


def test_what_becomes_another_program_has_left(all_free: None) -> None:
    process = start(NAME, "become_another")
    here(process)
    wait_until(lambda: attached() == [], "it is attached still")
    assert process.poll() is None, "the other program is nobody's business"
    process.kill()
    process.communicate()


def test_who_hangs_up_and_goes_on_is_killed(all_free: None) -> None:
    process = start(NAME, "hang_up")
    here(process)
    process.communicate(timeout=WAIT_S)
    assert process.returncode == -signal.SIGKILL


def test_who_is_interrupted_while_it_lets_go_does_not_say_that_it_has(all_free: None) -> None:
    process = start(NAME, "interrupted_twice")
    process.communicate(timeout=WAIT_S)
    assert process.returncode == -signal.SIGKILL


def test_who_cannot_be_understood_is_killed_and_ends_nothing(rt: gomp.Runtime, all_free: None) -> None:
    process = start(NAME, "talk_nonsense")
    here(process)
    process.communicate(timeout=WAIT_S)
    assert process.returncode == -signal.SIGKILL
    assert gomp.num_procs() == 2  # which says if the runtime has ended


def test_it_works_from_a_thread_of_asyncio(all_free: None) -> None:
    assert said(start(NAME, "in_a_thread_of_asyncio")) == "[7]"


@pytest.mark.parametrize(
    ("what", "before"), [("of_another_build", ""), ("of_another_build_that_is_not_described", "kernels are loaded\n")]
)
def test_another_build_is_refused_by_name(all_free: None, what: str, before: str) -> None:
    """Before kernels of its own are compiled, if it can be."""
    ours = f"{version('gomp')}, build {cache_key()}"
    assert said(start(NAME, what)) == (
        f"{before}ConfigError: the runtime {NAME} is of gomp {ours}, and this process has gomp {version('gomp')}, build another: "
        "use the gomp, and the Python, that it was started with"
    )


def test_arrays_that_are_still_looked_at_show_zeros(all_free: None) -> None:
    process = start(NAME, "look_on")
    out, err = process.communicate(timeout=WAIT_S)
    assert (out, process.returncode) == ("[1. 1. 1.] [0. 0. 0.]\n", 0)
    assert "RuntimeWarning: arrays of the runtime that is left are still looked at: they show zeros from now on" in err


_CONNECTS = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    print(sock.recv(1), flush=True)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be somebody else")
def test_other_users_are_hung_up_on(rt: gomp.Runtime) -> None:
    """Its file and its directory are this user's alone; and whoever comes to the socket all the same is asked who they are."""
    place = discovery.directory() / f"{NAME}.sock"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (place, place.parent)] == [0o600, 0o700]
    ending = Ending()
    with tempfile.TemporaryDirectory(dir="/tmp") as directory, socket.socket(socket.AF_UNIX) as listener:
        Path(directory).chmod(0o755)
        listener.bind(f"{directory}/socket")
        Path(directory, "socket").chmod(0o777)
        listener.listen()
        others = Connected(Events(), ending, Mock(), Mock(), Mock(), Mock(), 1)
        others.listen(listener)
        for user, is_heard in ((65534, False), (0, True)):
            connects = ["/usr/bin/env", "python3", "-c", _CONNECTS, listener.getsockname()]
            process = subprocess.Popen(connects, user=user, stdout=subprocess.PIPE)
            others._on_connect()
            assert len(ending.peers) == is_heard
            for channel in ending.peers:
                channel.close()
            assert process.communicate(timeout=WAIT_S)[0] == b"b''\n"


_SCRIPT = """
import os, signal
import gomp
from gomp.core.shm import layout
from gomp.core.shm.records import STATUS_KERNEL, p_dtype, view
from tests import share_load
with gomp.Runtime(name={name!r}, {options}) as rt:
    print("ready", flush=True)
    while line := input():
        print(repr(eval(line)), flush=True)
"""


class Script:
    """A process with a runtime of its own, which answers what it is asked."""

    def __init__(self, options: str, **environment: str) -> None:
        self.name = f"{NAME}-other"
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT.format(name=self.name, options=options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=os.environ | environment,
        )  # fmt: skip

    def __enter__(self) -> Script:
        assert self._line() == "ready"
        return self

    def ask(self, expression: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{expression}\n")
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __exit__(self, *exc: object) -> None:
        self.process.communicate("\n", timeout=WAIT_S)


def test_a_runtime_may_lend_none() -> None:
    with Script("procs=1, max_heap='64MiB', max_attached=0") as script:
        assert said(start(script.name, "refused")) == (
            f"NoFreeP: the runtime {script.name} lends no Ps: start it with max_attached=1 or more"
        )


def test_who_is_stopped_where_the_world_cannot_stop_is_killed() -> None:
    """And nobody else: the runtime goes on."""
    with Script("procs=1, max_procs=1, max_heap='1GiB'", GOMP_STOP_DEADLINE="0.5") as script:
        process = start(script.name, "stop_inside")
        here(process)
        while script.ask("int(view(p_dtype, layout.p_addr(2))[0].xstatus) == STATUS_KERNEL") != "True":
            process.send_signal(signal.SIGCONT)
            time.sleep(0.01)
            process.send_signal(signal.SIGSTOP)
        assert script.ask("rt.gc() or rt.verify().split()[0]") == "'verified'"
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=WAIT_S)
        assert process.returncode == -signal.SIGKILL


def test_the_first_pages_of_the_heap_may_be_those_of_who_comes_and_goes() -> None:
    with Script("procs=1, max_heap='64MiB'") as script:
        said(start(script.name, "again", 3))
        assert script.ask("rt.verify().split()[0]") == "'verified'"


@pytest.mark.parametrize("how", ["rt.close()", "os.kill(rt._process.pid, signal.SIGKILL)"])
def test_the_end_of_the_runtime_is_told(how: str) -> None:
    """To who waits, and to who goes on."""
    with Script("procs=1, max_heap='64MiB'") as script:
        processes = [start(script.name, what) for what in ("lose", "outlive")]
        for process in processes:
            here(process)
        script.ask(how)
        assert [said(process) for process in processes] == ["the runtime has ended"] * 2


def test_who_is_interrupted_while_it_comes_or_goes_goes_on(all_free: None) -> None:
    """And has nothing mapped, nor has others wait for its P."""
    assert said(start(NAME, "interrupted_coming")) == "here"
    assert said(start(NAME, "interrupted_going")) == "here"


def test_a_program_that_waits_ends_with_the_part_in_which_it_began(all_free: None) -> None:
    """Also if this process has another one before its thread has looked."""
    assert said(start(NAME, "close_on_a_waiting_program")) == "RuntimeLost RuntimeLost RuntimeLost"


def test_other_threads_wait_until_it_is_attached(all_free: None) -> None:
    assert said(start(NAME, "use_too_soon")) == "no runtime is open in this process: use gomp.Runtime()"


def test_of_two_threads_that_come_at_a_time_one_is_told_that_there_is_a_runtime(all_free: None) -> None:
    """And the other has it."""
    assert said(start(NAME, "from_two_threads")) == "this process has a runtime open already: close it first"


@pytest.mark.parametrize("timeout", [-1.0, math.nan, math.inf])
def test_a_wait_may_be_of_any_length(all_free: None, timeout: float) -> None:
    assert said(start(NAME, "wait_for", timeout)) == "here"


def test_a_forked_child_attaches_again_and_again(all_free: None) -> None:
    """Whatever threads of its parent's waited."""
    assert said(start(NAME, "fork_while_a_thread_waits")) == "0 0 0"


@pytest.mark.parametrize("timeout", [None, "5"])
def test_a_timeout_is_a_number(timeout: object) -> None:
    with pytest.raises(TypeError, match=f"a timeout is a number of seconds, not {timeout!r}"):
        gomp.attach(NAME, timeout)  # type: ignore[arg-type]


def test_any_number_is_a_timeout(all_free: None) -> None:
    assert said(start(NAME, "wait_for_numpy", 0.5)) == "here"


def test_a_forked_child_is_not_attached(all_free: None) -> None:
    assert said(start(NAME, "fork_and_show")) == f"<attached no more>\n<attached to {NAME}>"


def _share(n: int, seconds: float) -> None:
    """So many attached processes and programs on two Ps, all that is shared as the models say, and nothing lost of what all have counted."""
    with Script("procs=2, max_procs=2, max_heap='256MiB'") as script:
        assert script.ask("share_load.prepare()") == "None"
        processes = [start(script.name, "share", owner, seconds) for owner in range(n)]
        counted = int(script.ask(f"share_load.on_the_ps(rt, {seconds})"))
        counted += sum(int(said(process, seconds + WAIT_S)) for process in processes)
        assert script.ask("share_load.count()") == str(counted)
        assert script.ask("rt.verify().split()[0]") == "'verified'"


def test_three_processes_and_two_ps_agree_on_what_they_share() -> None:
    _share(3, 2)


@pytest.mark.slow
def test_eight_processes_and_two_ps_agree_for_five_minutes() -> None:
    _share(8, 300)
