"""A process that may open no more files: all goes on that opens nothing, and what does fails by itself."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gomp
from gomp import forked
from gomp.core import COMPILED
from gomp.core.shm import layout
from gomp.core.shm.records import RUNTIME, p_dtype, runtime_dtype, view
from gomp.runtime import codes, compiled, stacks
from tests.attaching import Numbers, chain, receive, spin

if not COMPILED:
    pytest.skip("runs programs in other processes", allow_module_level=True)

WAIT_S = 30.0


@gomp.frame
class Countdown(gomp.Frame[int]):
    left: int
    got: int
    is_back: bool

    def step(f) -> gomp.Action:
        if f.left == 0 or f.is_back:
            return f.ret(f.got + 1)
        f.is_back = True
        return f.call(Countdown, left=f.left - 1, into="got")


def programs() -> int:
    """One of each kind."""
    chain(1000)
    gomp.go(spin, 10).wait()
    numbers: gomp.Chan[int] = Numbers(2)
    gomp.select(numbers.sending(1))
    assert receive(numbers) == 1
    gomp.gc()
    return Countdown.run(left=10)


def open_a_file() -> None:
    os.close(os.open("/proc/self/stat", os.O_RDONLY))


def compile_something() -> None:
    @gomp.compiled
    def new(n: int) -> int:
        return n + os.getpid() % 1

    new(1)


def pid_of(i: int) -> int:
    return int(view(p_dtype, layout.p_addr(i))[0].xpid)


def coordinator_pid() -> int:
    return int(view(runtime_dtype, RUNTIME)[0].coordinator_pid)


@contextlib.contextmanager
def without_descriptors(pid: int) -> Iterator[None]:
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def rt() -> Iterator[gomp.Runtime]:
    with gomp.Runtime(procs=1, max_procs=1, max_heap="64MiB") as runtime:
        assert runtime.run(programs) == 11  # whatever they need is loaded
        pid = pid_of(0)
        yield runtime
        assert pid_of(0) == pid
        assert runtime.run(programs) == 11
        assert runtime.verify(3).startswith("verified")


def test_a_p_goes_on_with_what_opens_nothing(rt: gomp.Runtime) -> None:
    with without_descriptors(pid_of(0)):
        for _ in range(3):
            assert rt.run(programs) == 11
            rt.gc()
        assert rt.verify(3).startswith("verified")
        assert gomp.debug.goroutines() == []


def test_an_idle_p_says_what_it_does_when_somebody_waits_without_end(rt: gomp.Runtime) -> None:
    """After a second the coordinator asks them all."""
    numbers: gomp.Chan[int] = Numbers(0)
    with without_descriptors(pid_of(0)), ThreadPoolExecutor(1) as threads:
        received = threads.submit(numbers.recv)
        time.sleep(2.5)
        numbers.send(1, timeout=WAIT_S)
        assert received.result(WAIT_S) == 1


@pytest.mark.parametrize("program", [open_a_file, compile_something])
def test_a_program_that_opens_something_fails_alone(rt: gomp.Runtime, program: Callable[[], None]) -> None:
    with without_descriptors(pid_of(0)):
        with pytest.raises(OSError, match="Too many open files") as raised:
            rt.run(program)
        assert raised.value.errno == errno.EMFILE
        assert rt.run(programs) == 11


def outcome_in_child(look: Callable[[], None]) -> int:
    """The exit code of a forked process that looks, and may open nothing."""

    def child() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
        look()

    return os.waitstatus_to_exitcode(os.waitpid(forked.fork(child), 0)[1])


def test_a_p_knows_where_its_stack_ends_from_its_coordinator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library would read /proc/self/maps."""
    if hasattr(stacks._own, "low"):
        monkeypatch.delattr(stacks._own, "low")
    compiled.prepare()
    assert outcome_in_child(lambda: print(stacks.stack_low())) == 0


def test_a_forked_process_forgets_its_parents_code_without_opening_anything() -> None:
    def forget_without_what_others_have_loaded() -> None:
        sys.modules.pop("numpy.ctypeslib", None)
        vars(np).pop("ctypeslib", None)
        codes._forget()

    assert outcome_in_child(forget_without_what_others_have_loaded) == 0


def test_a_coordinator_refuses_what_it_has_no_descriptor_for_and_goes_on(rt: gomp.Runtime) -> None:
    with without_descriptors(coordinator_pid()):
        with pytest.raises(gomp.GompError, match=r"^verify: Too many open files$"):
            rt.verify(3)  # what does that has not been loaded yet
        rt.gc()
    assert rt.verify(3).startswith("verified")


def test_a_coordinator_verifies_by_itself_where_it_can_start_nobody_who_would(rt: gomp.Runtime) -> None:
    rt.verify(3)
    with without_descriptors(coordinator_pid()):
        assert rt.verify(3).startswith("verified")


@pytest.mark.parametrize("check", ["verify=3", "gccheckmark=1", "checkfinalizers=1"])
def test_a_collection_ends_without_the_look_that_there_is_no_descriptor_for(
    check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GODEBUG", check)
    with gomp.Runtime(procs=1, max_procs=1, max_heap="64MiB") as rt:
        with without_descriptors(coordinator_pid()):
            rt.gc()
        rt.gc()
        assert rt.verify(3).startswith("verified")
