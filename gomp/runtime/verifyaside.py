"""A verification in a process of its own: words that are not what they should be may lead it anywhere, or round in circles."""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import time
from dataclasses import asdict
from typing import Any

from gomp.errors import OutOfMemory
from gomp.forked import die_with_parent, fork_with_pipe, how_it_ended, reset_signals
from gomp.runtime.verify import begin, found_so_far, verify

PATIENCE_S = 60.0  # a heap of a GiB takes some seconds


def verify_aside(level: int) -> dict[str, Any]:
    """The fields of :class:`~gomp.runtime.verify.Report`. Called by a process with one thread; the world is stopped.

    If the verification comes to no end, that is a problem, beside those which it has found. Raises OutOfMemory.
    """
    parent = os.getpid()
    begin()

    def look(writer: int) -> None:
        die_with_parent(parent, b"gomp-verifier")
        reset_signals()
        faulthandler.disable()  # the parent says what has become of this process
        try:
            found = asdict(verify(level))
        except OutOfMemory as error:
            found = {"no_room": str(error)}
        with os.fdopen(
            writer, "w", closefd=False
        ) as answer:  # it is closed by the end of this process, which is waited for then
            json.dump(found, answer)

    try:
        pid, reader = fork_with_pipe(look)
    except OSError:  # the system allows no more processes, or files
        return asdict(verify(level))
    with os.fdopen(reader, "rb") as answer:
        text = _read(answer.fileno(), time.monotonic() + PATIENCE_S)
    if text is None:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if not text or status:  # what it had said when it was ended may be half of it
        end = f"was not over after {PATIENCE_S:.0f} s" if text is None else how_it_ended(status)
        return _lost(level, end)
    found = json.loads(text)
    if "no_room" in found:
        raise OutOfMemory(found["no_room"])
    return dict(found)


def _read(fd: int, deadline: float) -> bytes | None:
    """All that is written to it; None if it is not closed by then."""
    parts: list[bytes] = []
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    while poller.poll(max(deadline - time.monotonic(), 0) * 1000):
        part = os.read(fd, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)
    return None


def _lost(level: int, end: str) -> dict[str, Any]:
    problems, at = found_so_far()
    problems = (*problems, f"the verification {end} when it looked at {at}: something there leads nowhere")
    return {"level": level, "spans": 0, "objects": 0, "bytes": 0, "problems": list(problems), "reached": 0}
