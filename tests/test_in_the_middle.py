"""What Python lets happen in the middle of an operation: its collector, signals, debuggers, and what numbers and lists do when they are asked."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

import gomp
from gomp.errors import RuntimeLost
from gomp.runtime.executor import Executor
from gomp.runtime.transit import outbox
from tests.free_slots import free_handles, free_slots


@gomp.struct
class Node:
    next: Node
    value: int


class Last:
    """Uses a reference when it dies."""

    def __init__(self, use: Callable[[Any], Any], said: list[Any]) -> None:
        self.node = gomp.new(Node, value=7)
        self.use, self.said, self.me = use, said, self

    def __del__(self) -> None:
        try:
            self.said.append(self.use(self.node))
        except RuntimeLost as error:
            self.said.append(str(error))


def _set_next(node: Node) -> None:
    node.next = node


def _set_value(node: Node) -> None:
    node.value = 3


@pytest.mark.parametrize(
    "use", [lambda n: n.value, lambda n: n.next, _set_next, _set_value, lambda n: gomp.array(Node, [n]), gomp.weak]
)
def test_a_reference_that_dies_with_its_user_is_dead(rt: gomp.Runtime, use: Callable[[Any], Any]) -> None:
    said: list[Any] = []
    for _ in range(20):
        Last(use, said)
    others = [gomp.new(Node, value=n) for n in range(20)]
    gc.collect()
    assert len(said) == 20
    # The collector of Python ends them in whichever order it likes: some were used before they died.
    assert all("has died" in one for one in said if isinstance(one, str))
    assert [(n.value, n.next) for n in others] == [(n, None) for n in range(20)]
    rt.verify()


def test_ending_a_reference_by_hand_is_ending_it_once(rt: gomp.Runtime) -> None:
    node = gomp.new(Node)
    node.__del__()
    node.__del__()
    b, c = gomp.new(Node, value=2), gomp.new(Node, value=3)
    assert (b.value, c.value) == (2, 3)
    with pytest.raises(RuntimeLost, match="has died"):
        _ = node.value
    del node
    assert len(set(free_handles())) == free_slots()


@pytest.mark.parametrize("sees", [sys.settrace, sys.setprofile])
def test_a_debugger_that_looks_at_every_line(rt: gomp.Runtime, sees: Callable[[Any], None]) -> None:
    def look(frame: Any, event: str, arg: Any) -> Any:
        return look

    wrong: list[Any] = []

    def work(base: int) -> None:
        sees(look)
        try:
            for n in range(base, base + 1500):
                node = gomp.new(Node, value=n, next=gomp.new(Node, value=-n))
                if (node.value, node.next.value) != (n, -n):
                    wrong.append((n, node.value))
        except BaseException as error:
            wrong.append(error)
        finally:
            sees(None)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(10_000 * i,)) for i in range(1, 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []
    assert len(set(free_handles())) == free_slots()


class Growing(float):
    grown: list[Any]

    def __float__(self) -> float:
        self.grown.extend([1.5] * 100)
        return 1.5


def test_a_list_that_grows_while_it_is_read(rt: gomp.Runtime) -> None:
    values: list[Any] = []
    one = Growing(1)
    one.grown = values
    values.append(one)
    made = gomp.array(float, values)
    others = [gomp.array(float, [n]) for n in range(20)]
    assert (len(made), [len(o) for o in others]) == (1, [1] * 20)
    rt.verify()


class Five:
    def __index__(self) -> int:
        return 5


@pytest.mark.parametrize("value", [Five(), Decimal("1.5"), "5", None])
def test_what_one_way_of_storing_refuses_the_others_refuse(rt: gomp.Runtime, value: Any) -> None:
    node, ints, floats = gomp.new(Node), gomp.array(int, 1), gomp.array(float, 1)
    for store in (
        lambda: setattr(node, "value", value),
        lambda: gomp.new(Node, value=value),
        lambda: gomp.array(int, [value]),
        lambda: ints.__setitem__(0, value),
        lambda: gomp.array(float, [value]),
        lambda: floats.__setitem__(0, value),
    ):
        with pytest.raises(TypeError):
            store()
    assert (node.value, ints[0], floats[0]) == (0, 0, 0)


def test_a_handler_may_send_while_what_was_sent_is_settled(rt: gomp.Runtime) -> None:
    """Neither waits for the other."""
    node, rounds = gomp.new(Node), 0
    rt.run(_value, node)

    def on_alarm(number: int, frame: Any) -> None:
        nonlocal rounds
        rounds += 1
        rt.go(_value, node)
        outbox.settle()
        signal.setitimer(signal.ITIMER_REAL, 0.0003)

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
    try:
        while rounds < 100:
            outbox.settle()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rt.run(_value, node) == 0


def _value(node: Node) -> int:
    return node.value


def test_an_answer_that_has_come_is_given_whatever_comes_after(
    rt: gomp.Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Executor(rt) as executor:
        first = executor.submit(abs, -1)
        assert first.result(10) == 1

        def lose() -> None:
            if sys._getframe(1).f_code.co_name == "_settle":
                raise RuntimeLost("gone")

        second = executor.submit(_slow, 0.3)
        third = executor.submit(_slow, 2.0)  # so that its answer comes second
        while not second.running():
            pass
        monkeypatch.setattr(executor._tasks, "_send_waiting", lose)
        assert second.result(20) == 1
        with pytest.raises(RuntimeLost, match="gone"):
            third.result(20)


def _slow(seconds: float) -> int:
    import time

    time.sleep(seconds)
    return 1


# --- each in a process of its own: it would die of SIGSEGV --------------------------------------------------------------

BEGIN = """
import ctypes, signal, gomp
@gomp.struct
class Node:
    next: "Node"
    value: int
rt = gomp.Runtime(procs=1, max_heap="64MiB")
rt.start()
"""
CLOSING_NUMBER = """
class Closing(int):
    def __index__(self):
        rt.close()
        return 5
    __int__ = __index__
node, array, data, text = gomp.new(Node), gomp.array(int, 4), gomp.bytes(b"abcdefgh"), gomp.str("abcdefgh")
for use in (lambda: gomp.new(Node, value=Closing(5)), lambda: array.__setitem__(1, Closing(77)), lambda: data[Closing(3)]):
    try:
        use()
    except (gomp.RuntimeLost, TypeError):
        pass
    rt.close()
    rt = gomp.Runtime(procs=1, max_heap="64MiB")
    rt.start()
    node, array, data, text = gomp.new(Node), gomp.array(int, 4), gomp.bytes(b"abcdefgh"), gomp.str("abcdefgh")
    assert list(array) == [0] * 4
rt.close()
"""
CLOSING_HANDLER = """
operations = [lambda: bytes(data.view())[0] + data[3] + len(str(gomp.str("text"))), lambda: gomp.new(Node, value=3).next or len(array[5:3000])]
signal.signal(signal.SIGALRM, lambda *_: rt.close())
for operation in operations:
    node, array, data = gomp.new(Node), gomp.array(int, 4000), gomp.bytes(bytes(5000))
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        while True:
            operation()
    except gomp.GompError as error:
        print(type(error).__name__)
    rt = gomp.Runtime(procs=1, max_heap="64MiB")
    rt.start()
assert rt.run(abs, -3) == 3
rt.close()
"""
INTERRUPTED_CLOSE = """
for step in ("_reap",):
    def interrupted(*args):
        raise KeyboardInterrupt
    real = getattr(rt, step)
    setattr(rt, step, interrupted)
    try:
        rt.close()
    except KeyboardInterrupt:
        pass
    rt = gomp.Runtime(procs=1, max_heap="64MiB")
    rt.start()
print(rt.run(abs, -3))
rt.close()
"""


def said(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", BEGIN + script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_number_that_ends_the_runtime_when_it_is_asked() -> None:
    said(CLOSING_NUMBER)


def test_a_handler_that_ends_the_runtime_and_returns() -> None:
    assert said(CLOSING_HANDLER).split() == ["RuntimeLost"] * 2


def test_ctrl_c_while_a_runtime_is_closed() -> None:
    assert said(INTERRUPTED_CLOSE) == "3\n"
