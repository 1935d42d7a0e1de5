"""Ctrl-C in a script. SIGINT comes from a forked child, because nothing else of the script runs while a compiled program does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

import gomp
from gomp import forked
from gomp.core.shm.records import POLL_INTERRUPT
from gomp.runtime import interrupt
from gomp.runtime.pythoncalls import PythonCall

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module", autouse=True)
def rt() -> Iterator[gomp.Runtime]:
    with gomp.Runtime(procs=1, max_heap="64MiB") as runtime:
        yield runtime


@gomp.compiled
def spin(turns: int) -> int:
    n = 0
    while turns != 0:
        n = (n + 1) & 7
        turns -= 1
    return n


def press_ctrl_c_after(seconds: float) -> None:
    script = os.getpid()

    def press() -> None:
        time.sleep(seconds)
        os.kill(script, signal.SIGINT)

    forked.fork(press)


def test_ctrl_c_ends_a_compiled_program_with_keyboard_interrupt() -> None:
    spin(1)
    press_ctrl_c_after(0.1)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt) as caught:
        spin(-1)
    assert time.monotonic() - began < 1
    assert caught.value.__context__ is None, "Interrupted is not shown with it"
    os.wait()
    assert spin(9) == 1, "nothing is left of it"


def test_ctrl_c_between_programs_is_for_python_alone() -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert spin(9) == 1


def test_a_forked_child_that_is_interrupted_does_not_touch_the_heap_that_it_has_not() -> None:
    def interrupted() -> None:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    _, status = os.waitpid(forked.fork(interrupted), 0)
    assert status == 0


def test_whoever_sets_another_handler_keeps_it_and_python_gets_its_own_back() -> None:
    ours = interrupt._current_action().handler
    interrupt.handler.uninstall()
    pythons = interrupt._current_action().handler
    interrupt.handler.install()
    assert interrupt._current_action().handler == ours != pythons
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupt.handler.uninstall()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert interrupt._current_action().handler != pythons
    signal.signal(signal.SIGINT, previous)
    interrupt.handler.install()


def test_ctrl_c_in_python_that_a_program_has_called_leaves_nothing_for_its_next_poll() -> None:
    """The call has raised it: what the program does on its way out is not ended by the same Ctrl-C."""

    def press() -> tuple[int, ...]:
        signal.raise_signal(signal.SIGINT)
        return ()

    with pytest.raises(KeyboardInterrupt):
        PythonCall(press, ())()
    assert not interrupt.handler.word[0] & POLL_INTERRUPT
