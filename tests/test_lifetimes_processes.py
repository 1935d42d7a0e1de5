"""Finalizers, cleanups and weak pointers in real processes: in scripts and in Ps, with kills, and at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

import gomp

pytestmark = pytest.mark.usefixtures("compiled_kernels")
DEADLINE_S = 30


@gomp.struct
class Thing:
    next: Thing
    number: int


def wait_until(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.005)


def register_on_this_p(n):
    """Objects that die at once, with a function of this process each, and one that does not; the P's process."""
    ran = gomp.new(Thing)
    gomp.globals["ran"] = ran
    for number in range(n):
        gomp.set_finalizer(gomp.new(Thing, None, number), note)
        gomp.add_cleanup(gomp.new(Thing), note_cleanup, number)
    kept = gomp.new(Thing)
    gomp.set_finalizer(kept, note)
    gomp.add_cleanup(kept, note_cleanup, 0)
    gomp.globals["kept"] = kept
    return os.getpid()


def note(thing):
    gomp.globals["ran"].number += 1


def note_cleanup(number):
    gomp.globals["ran"].number += 1000


def test_they_run_in_a_script_and_are_counted():
    ran = []
    with gomp.Runtime(procs=1) as rt:
        for number in range(100):
            gomp.set_finalizer(gomp.new(Thing, None, number), lambda thing: ran.append(thing.number))
            gomp.add_cleanup(gomp.new(Thing), ran.append, -number)
        rt.gc()
        wait_until(lambda: len(ran) == 200)
        assert sorted(ran) == sorted([*range(100), *(-n for n in range(100))])
        rt.gc()
        rt.verify()
        stats = rt.stats()
    assert (stats.finalizers.queued, stats.finalizers.executed, stats.finalizers.lost) == (100, 100, 0)
    assert (stats.cleanups.queued, stats.cleanups.executed, stats.cleanups.failed) == (100, 100, 0)


def test_they_run_in_the_p_that_registered_them():
    with gomp.Runtime(procs=2) as rt:
        rt.run(register_on_this_p, 10)
        rt.gc()
        wait_until(lambda: gomp.globals["ran"].number == 10 * 1001)
        del gomp.globals["kept"]
        rt.gc()
        wait_until(lambda: gomp.globals["ran"].number == 10 * 1001 + 1)
        rt.gc()
        wait_until(lambda: gomp.globals["ran"].number == 11 * 1001)
        rt.verify()


def test_what_a_killed_p_had_registered_is_lost_and_the_rest_goes_on():
    ran = []
    with gomp.Runtime(procs=2) as rt:
        pid = rt.run(register_on_this_p, 0)
        kept = gomp.globals["kept"]
        pointer = gomp.weak(kept)
        mine = gomp.new(Thing)
        gomp.add_cleanup(mine, ran.append, "mine")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: rt.stats().repairs.count == 1)
        stats = rt.stats()
        assert (stats.finalizers.lost, stats.cleanups.lost) == (1, 1)
        assert pointer.value() == kept
        gomp.set_finalizer(kept, lambda _: ran.append("theirs"))
        del gomp.globals["kept"]
        del kept, mine
        rt.gc()
        wait_until(lambda: sorted(ran) == ["mine", "theirs"])
        assert pointer.value() is None
        rt.verify()


def test_a_heap_under_load_with_specials_verifies_while_ps_are_killed():
    with gomp.Runtime(procs=2, gogc=50) as rt:
        for round_ in range(4):
            busy = [rt.go(churn, 300) for _ in range(2)]
            time.sleep(0.2)
            pid = next(p.pid for p in rt.stats().ps if p.idx == round_ % 2)
            os.kill(pid, signal.SIGKILL)
            for goroutine in busy:
                with contextlib.suppress(gomp.WorkerDied):
                    goroutine.wait(DEADLINE_S)
            wait_until(lambda: rt.stats().repairs.count == round_ + 1)  # noqa: B023 (at once)
            rt.verify()
        rt.gc()
        rt.verify()


def churn(n):
    pointers = []
    for number in range(n):
        thing = gomp.new(Thing, None, number)
        gomp.set_finalizer(thing, lambda thing: None)
        gomp.add_cleanup(thing, lambda number: None, number)
        pointers.append(gomp.weak(thing))
        if number % 50 == 0:
            gomp.gc()
            for pointer in pointers:
                alive = pointer.value()
                assert alive is None or 0 <= alive.number < n
    return n


def script(body, environment, seconds=150):
    """Run a script that opens a runtime; what it printed, and how long it took."""
    head = "import gomp, os, sys, time\n@gomp.struct\nclass Thing:\n    number: int\n    two: int\n    three: int\n"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr, time.monotonic() - began


def test_a_function_that_never_returns_holds_up_no_end(environment):
    out, _, _ = script(
        """
        with gomp.Runtime(procs=1) as rt:
            gomp.set_finalizer(gomp.new(Thing), lambda thing: (print("begun", flush=True), time.sleep(1000)))
            rt.gc()
            time.sleep(0.5)
        print("closed")
        """,
        environment,
    )
    assert out == ["begun", "closed"]


def test_a_script_that_ends_without_closing_its_runtime_ends(environment):
    out, err, _ = script(
        """
        rt = gomp.Runtime(procs=1)
        rt.start()
        kept = gomp.new(Thing)
        gomp.set_finalizer(kept, lambda thing: print("not promised"))
        gomp.add_cleanup(gomp.new(Thing), print, "cleaned")
        rt.gc()
        time.sleep(0.5)
        """,
        environment,
    )
    assert out == ["cleaned"]
    assert "Traceback" not in err


def test_a_forked_child_runs_nothing_and_the_parent_goes_on(environment):
    out, _, _ = script(
        """
        with gomp.Runtime(procs=1) as rt:
            gomp.add_cleanup(gomp.new(Thing), lambda pid: print(os.getpid() == pid, flush=True), os.getpid())
            child = os.fork()
            if child == 0:
                time.sleep(0.2)
                sys.exit(0)
            rt.gc()
            assert os.waitpid(child, 0)[1] == 0
            time.sleep(0.2)
        """,
        environment,
    )
    assert out == ["True"]


def test_checkfinalizers_tells_which_objects_are_never_finalized(environment):
    _, err, _ = script(
        """
        @gomp.struct
        class Node:
            next: "Node"
        with gomp.Runtime(procs=1) as rt:
            to_itself, ring, chain = gomp.new(Node), gomp.new(Node), gomp.new(Node, next=gomp.new(Node))
            to_itself.next = to_itself
            ring.next = gomp.new(Node, next=ring)
            for node in (to_itself, ring, chain):
                gomp.set_finalizer(node, lambda node: None)
            print(hex(ring.address), file=sys.stderr)
            for _ in range(3):
                rt.gc()
            time.sleep(0.2)
        """,
        environment | {"GODEBUG": "checkfinalizers=1"},
    )
    address = err.split()[0]
    mine = len(os.sched_getaffinity(0))  # there is room for so many Ps, and the script's comes after them
    assert "checkfinalizers: queue: 0 finalizers + 0 cleanups" in err
    assert [line for line in err.splitlines() if "leads back" in line] == [
        f"checkfinalizers: the Node at {address} has a finalizer of P{mine} and leads back to itself through another object: it will never run"
    ]


def test_a_second_runtime_starts_with_nothing_of_the_first():
    ran = []
    for number in range(2):
        with gomp.Runtime(procs=1) as rt:
            stopped = gomp.add_cleanup(gomp.new(Thing), ran.append, "stopped")
            stopped.stop()
            gomp.add_cleanup(gomp.new(Thing), ran.append, number)
            rt.gc()
            wait_until(lambda: len(ran) == number + 1)  # noqa: B023 (at once)
            left = gomp.add_cleanup(gomp.new(Thing), ran.append, "left")
    left.stop()
    assert ran == [0, 1]


ENDS_IN_THE_MIDDLE = """
import sys, threading
import gomp
from gomp.runtime import lifetimes

@gomp.struct
class Thing:
    next: "Thing"
    number: int

def note(thing): ...

@gomp.compiled
def register(n: int) -> int:
    thing = gomp.new(Thing, None, n)
    gomp.set_finalizer(thing, note)
    for i in range(1000):
        gomp.new(Thing, thing, i)
    return thing.number

if __name__ == "__main__":
    plain = lifetimes.set_finalizer
    rt = gomp.Runtime(procs=1, max_heap="64MiB")
    rt.__enter__()
    print(register(3))

    def set_and_close(obj, function):
        plain(obj, function)
        ender = threading.Thread(target=rt.close)
        ender.start()
        ender.join()

    lifetimes.set_finalizer = set_and_close
    try:
        register(4)
    except gomp.RuntimeLost as lost:
        print(lost)
    lifetimes.set_finalizer = plain
    with gomp.Runtime(procs=1, max_heap="64MiB") as rt:
        print(register(5), rt.verify()[:19])
"""


def test_another_thread_ends_the_runtime_while_a_program_has_python_do_something(tmp_path):
    """The program comes back to memory that is still mapped, and ends; another runtime begins after it."""
    script = tmp_path / "script.py"
    script.write_text(ENDS_IN_THE_MIDDLE)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["3", "the runtime has ended", "5 verified at level 3"], done.stderr
