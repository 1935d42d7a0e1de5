"""Processes of Ps that the system refuses to have watched."""

from __future__ import annotations

import errno
import gc
import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from gomp import forked
from gomp.core.shm import layout
from gomp.core.shm.records import p_dtype, view
from gomp.core.shm.segments import Segments
from gomp.runtime import family
from gomp.runtime.ending import Ending
from gomp.runtime.events import Events
from gomp.runtime.family import Family
from gomp.runtime.ps import Ps


class FullEvents(Events):
    """With room for so many more descriptors."""

    room = 1 << 10

    def watch(self, fd: int, handler: Callable[[], object], is_urgent: bool = False) -> None:
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= 1
        super().watch(fd, handler, is_urgent)


def own_children() -> set[str]:
    """Pids of the processes that threads of this one have started, and that nobody has reaped."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


def record() -> bytes:
    return view(p_dtype, layout.p_addr(1)).tobytes()


@pytest.mark.parametrize("room", [0, 1])
def test_a_p_that_cannot_be_watched_is_as_it_was_and_started_later(
    mapped: Segments, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, room: int
) -> None:
    monkeypatch.setattr(Family, "_fork", staticmethod(forked.fork))  # this process may have threads
    monkeypatch.setattr(family.p, "run", lambda idx, shared, wake, channel, *_: channel.send(b"I am"))
    events, children, dispatcher = FullEvents(), Family(mapped, -1), Mock()
    ps = Ps(events, Ending(), children, dispatcher, Mock(), Mock(), Mock(), 2, Mock(), Mock())
    gc.collect()  # what other tests have left may have files open
    before, watched, open_files = record(), dict(events._handlers), os.listdir("/proc/self/fd")
    others = own_children()
    ps.have_stay(1)
    events.room = room
    ps.start_absent()
    assert caplog.messages == ["P1 cannot be started again: No space left on device; the next try is in 1 s"]
    assert (children.ps, record(), events._handlers, os.listdir("/proc/self/fd")) == ({}, before, watched, open_files)
    deadline = time.monotonic() + 30
    while (
        children._unreaped and time.monotonic() < deadline
    ):  # the end of a process as large as this one may take its time
        children.reap_late()
    assert own_children() <= others
    assert 0 < ps.rest_s <= 1
    dispatcher.has_started.assert_not_called()
    events.room = 2
    ps._absent[1] = time.monotonic()
    ps.start_absent()
    channel = children.ps[1].channel
    assert channel
    select.select([channel], [], [], 10)
    assert channel.sock.recv(16) == b"I am"
    assert view(p_dtype, layout.p_addr(1))[0].pidfd == children.ps[1].pidfd
    dispatcher.has_started.assert_called_once_with(1)
    view(p_dtype, layout.p_addr(1))[0].pidfd = 0
    events.unwatch(children.ps[1].pidfd)
    children.bury_p(1)
