"""A script's runtime from outside: it starts, runs functions on its Ps, survives what it should, ends, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import gomp
from gomp.core.shm import layout
from gomp.core.shm.records import SPAN_IN_USE
from gomp.runtime import discovery
from gomp.runtime.current import num_procs


@pytest.fixture(scope="module")
def rt() -> Iterator[gomp.Runtime]:
    with gomp.Runtime(procs=2, max_heap="256MiB") as runtime:
        yield runtime


def double(x: int) -> int:
    return 2 * x


def fail() -> None:
    raise KeyError("nothing here")


def sum_of_children(n: int) -> int:
    return sum(g.wait() for g in [gomp.go(double, i) for i in range(n)])


def fill_heap() -> int:
    kept = []
    while True:
        try:
            kept.append(gomp.array(int, 100_000))
        except gomp.OutOfMemory:
            return len(kept)


def test_a_function_runs_on_a_p_and_gives_its_result(rt: gomp.Runtime) -> None:
    assert rt.run(double, 21) == 42
    assert rt.run(os.getpid) != os.getpid()


def test_what_a_function_raises_is_raised_with_its_traceback_as_the_cause(rt: gomp.Runtime) -> None:
    with pytest.raises(KeyError, match="nothing here") as caught:
        rt.run(fail)
    assert "in fail" in str(caught.value.__cause__)


@pytest.mark.alone
def test_large_arguments_and_results_do_not_wait_for_other_events(rt: gomp.Runtime) -> None:
    data = bytes(20 << 20)
    start = time.monotonic()
    assert len(rt.run(bytes, data)) == len(data)
    assert time.monotonic() - start < 2.0, "socket buffers of 200 KiB, each filled at the next event or after 0.5 s"


def test_a_program_that_exits_ends_nothing_but_itself(rt: gomp.Runtime) -> None:
    with pytest.raises(gomp.ProgramError, match="SystemExit: 5"):
        rt.run(sys.exit, 5)
    assert rt.run(double, 21) == 42


def test_goroutines_are_spread_over_the_ps_and_may_start_more_than_there_are_ps(rt: gomp.Runtime) -> None:
    assert rt.run(sum_of_children, 50) == sum(2 * i for i in range(50))
    pids = {g.wait() for g in [rt.go(os.getpid) for _ in range(4)]}
    assert len(pids) == rt.run(num_procs) == 2


def test_who_asks_again_and_again_without_waiting_is_told(rt: gomp.Runtime) -> None:
    goroutine = rt.go(abs, -3)
    for _ in range(1000):
        with contextlib.suppress(TimeoutError):
            assert goroutine.wait(0) == 3
            return
        time.sleep(0.01)
    raise AssertionError("the result never arrives")


def test_an_unknown_program_is_named(rt: gomp.Runtime) -> None:
    with pytest.raises(gomp.ConfigError, match="there is no program no_such_program"):
        rt.run("no_such_program")


def test_a_wrong_parameter_is_answered_with_the_right_ones(rt: gomp.Runtime) -> None:
    with pytest.raises(gomp.ConfigError, match="its parameters are depth, goroutines"):
        rt.run("binary_trees", deepth=4)


def test_a_collection_frees_what_nobody_holds(rt: gomp.Runtime) -> None:
    kept = gomp.array(int, 1_000_000)
    dropped = gomp.array(int, 1_000_000)
    rt.gc()
    before = rt.stats()
    del dropped
    rt.gc()
    after = rt.stats()
    assert before.heap_alloc - after.heap_alloc == 8_003_584, "977 pages"
    assert after.num_forced_gc >= before.num_forced_gc + 1
    assert len(kept) == 1_000_000


def test_a_full_heap_fails_the_allocation_and_nothing_else(rt: gomp.Runtime) -> None:
    first, second = rt.run(fill_heap), rt.run(fill_heap)
    assert first > 100
    assert second == pytest.approx(first, abs=4), "what the first one held came back"
    rt.verify(3)


def test_spans_and_marks_can_be_looked_at_but_not_written(rt: gomp.Runtime) -> None:
    kept = gomp.array(int, 30)
    spans, marks = rt.spans, rt.marks
    assert len(spans) == len(marks) > 0, f"{kept} is in one of them"
    assert marks.shape[1] == 128
    for array in (spans, marks):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[0]


def committed_blocks(fd: int) -> int:
    return os.fstat(fd).st_blocks


def test_marks_are_those_of_small_objects_and_looking_commits_no_memory(rt: gomp.Runtime) -> None:
    kept = gomp.array(int, 30)
    spans = rt.spans
    page = int(np.flatnonzero((spans["state"] == SPAN_IN_USE) & (spans["elem_size"] == 256))[0])
    heap, end = rt._segments.heap_fd, (page + 1) * layout.PAGE_SIZE
    before = committed_blocks(heap)
    assert not rt.marks.any(), f"there is {kept}, and no collection"
    assert committed_blocks(heap) == before
    os.pwrite(heap, b"\xaa", end - 128)
    marks = rt.marks
    os.pwrite(heap, b"\0", end - 128)
    assert marks[page, 0] == 0xAA
    assert np.count_nonzero(marks) == 1


def test_one_process_has_one_runtime_open_at_a_time(rt: gomp.Runtime) -> None:
    with pytest.raises(gomp.RuntimeLost, match="open already"):
        gomp.Runtime(procs=1).start()


def test_a_running_runtime_can_be_found_and_verified_from_outside(rt: gomp.Runtime) -> None:
    assert rt.name in {info.name for info in discovery.list_runtimes()}
    with discovery.connect(rt.name) as client:
        assert client.verify(2)["problems"] == []
        assert client.stats().num_gc == rt.stats().num_gc


def test_a_name_in_use_is_refused_in_one_line(rt: gomp.Runtime) -> None:
    code = f"import gomp\ngomp.Runtime(procs=1, name={rt.name!r}).start()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert f"ConfigError: a runtime named {rt.name} is running" in done.stderr.splitlines()[-1]


# --- ends -------------------------------------------------------------------------------------------------------------

SCRIPT = """
import os, signal, sys, time, gomp
from gomp.core.shm.records import RUNTIME, runtime_dtype, view
from workers.binary_trees import build_and_count
with gomp.Runtime(procs=2, max_heap="64MiB") as rt:
    pids = [rt.go(os.getpid) for _ in range(2)]
    print(rt.name, rt._process.pid, *sorted(set(g.wait() for g in pids)), flush=True)
    try:
        {body}
    except gomp.GompError as error:
        print(type(error).__name__, error, flush=True)
"""


class Script:
    """A script with a runtime, in a process of its own."""

    def __init__(self, body: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT.format(body=body)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        words = self.process.stdout.readline().split()
        self.name, self.coordinator, self.ps = words[0], int(words[1]), [int(w) for w in words[2:]]

    def finish(self, timeout: float = 20.0) -> str:
        out, self.errors = self.process.communicate(timeout=timeout)
        return out.strip()

    def wait_until_gone(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while any(is_running(pid) for pid in [self.coordinator, *self.ps]):
            assert time.monotonic() < deadline, f"still there after {seconds} s: {[self.coordinator, *self.ps]}"
            os.sched_yield()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def leftovers() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if name.startswith("gomp")}


@pytest.mark.alone
def test_a_script_that_is_killed_takes_its_runtime_with_it() -> None:
    script = Script("time.sleep(60)")
    script.process.kill()
    script.finish()
    script.wait_until_gone(2.0)
    assert leftovers() == set()
    assert script.name not in {info.name for info in discovery.list_runtimes()}


def test_a_killed_coordinator_takes_its_ps_with_it_and_is_reported() -> None:
    script = Script("rt.run(time.sleep, 60)")
    os.kill(script.coordinator, signal.SIGKILL)
    assert script.finish().startswith("RuntimeLost")
    script.wait_until_gone(2.0)
    assert leftovers() == set()


def test_a_program_in_machine_code_ends_when_its_coordinator_is_killed() -> None:
    script = Script("build_and_count(12, 1 << 40)")
    os.kill(script.coordinator, signal.SIGKILL)
    assert script.finish(30.0).startswith("RuntimeLost")


DIE_DURING_A_STOP = (
    "os.kill(rt._process.pid, signal.SIGSTOP); view(runtime_dtype, RUNTIME)[0].xstop = 1; "
    "os.kill(rt._process.pid, signal.SIGKILL)"
)


@pytest.mark.parametrize("call", ["gomp.array(int, 1)", "build_and_count(1, 1)"])
def test_a_script_does_not_wait_for_a_stop_whose_coordinator_was_killed(call: str) -> None:
    script = Script(f"{call}; {DIE_DURING_A_STOP}; {call}")
    assert script.finish().startswith("RuntimeLost")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_coordinator_ends_everything_within_two_seconds(number: signal.Signals) -> None:
    script = Script("rt.run('binary_trees', depth=20, goroutines=2)")
    os.kill(script.coordinator, number)
    script.wait_until_gone(2.0)
    assert script.finish().startswith("RuntimeLost")
    assert leftovers() == set()
