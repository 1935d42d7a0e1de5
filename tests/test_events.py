"""Descriptors that are watched, and what is called when there is something to read."""

from __future__ import annotations

import os

from gomp.runtime.events import Events


def test_who_gets_the_number_of_a_descriptor_that_was_closed_a_moment_ago_is_not_called_for_it() -> None:
    events, called = Events(), []
    (first, write_first), (second, write_second) = os.pipe(), os.pipe()
    ends = [first, write_first, second, write_second]

    def replace(gone: int) -> None:
        called.append("first come")
        events.unwatch(gone)
        reader, writer = os.pipe()
        os.dup2(reader, gone)
        ends.extend((reader, writer))
        events.watch(gone, lambda: called.append("successor"))

    events.watch(first, lambda: replace(second))
    events.watch(second, lambda: replace(first))
    os.write(write_first, b".")
    os.write(write_second, b".")
    events.wait(1.0)
    assert called == ["first come"]
    for fd in ends:
        os.close(fd)
