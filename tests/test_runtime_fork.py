"""A process forked inside a ``with gomp.Runtime()`` block, by multiprocessing or by hand, has nothing of the runtime."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import gomp
from gomp import forked
from gomp.runtime import discovery

pytestmark = pytest.mark.alone


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@contextmanager
def forked_child(rt: gomp.Runtime) -> Iterator[str]:
    """A child that leaves its copy of the block and lives on; gives what it says of the runtime."""
    inherited = [*rt._descriptors, rt._open().mailbox.channel.fileno()]
    reader, writer = os.pipe()

    def live_on() -> None:
        rt.close()
        try:
            rt.gc()
        except gomp.RuntimeLost as error:
            os.write(writer, f"{error}; kept {[fd for fd in inherited if is_open(fd)]}".encode())
        signal.pause()

    child = forked.fork(live_on)
    os.close(writer)
    try:
        with open(reader, "rb", buffering=0) as pipe:
            yield pipe.read(1000).decode()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_references_in_a_forked_child_are_its_parent_s() -> None:
    reader, writer = os.pipe()
    with gomp.Runtime(procs=1, max_heap="64MiB"):
        numbers = gomp.array(int, 3)
        pointer = gomp.weak(numbers)

        def look() -> None:
            said = [repr(numbers), repr(pointer)]
            for use in (lambda: numbers[0], lambda: pointer.value()):
                try:
                    use()
                except gomp.RuntimeLost as error:
                    said.append(str(error))
            os.write(writer, "\n".join(said).encode())

        os.waitpid(forked.fork(look), 0)
    os.close(writer)
    with open(reader) as pipe:
        said = pipe.read().splitlines()
    whose = "belongs to the process that this one was forked from, and a fork shares no heap: have the work done on a P, with rt.run or"
    assert said[:2] == ["<Array[int] of another process>", "<weak pointer of another process>"]
    assert [line.partition(" gomp.")[0] for line in said[2:]] == [
        f"this Array[int] {whose}",
        f"this weak pointer {whose}",
    ]


def test_a_forked_child_has_no_runtime_and_does_not_keep_its_parents_alive() -> None:
    rt = gomp.Runtime(procs=1, max_heap="64MiB")
    rt.start()
    with forked_child(rt) as said:
        assert (
            said == "this runtime belongs to the process that this one was forked from, which alone can use it; kept []"
        )
        assert rt.run(abs, -1) == 1, "the end of the child's block was not the parent's"
        began = time.monotonic()
        rt.close()
        assert time.monotonic() - began < 2
        assert rt._process.returncode == 0, "it was not killed"
        assert rt.name not in {info.name for info in discovery.list_runtimes()}
