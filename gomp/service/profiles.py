"""Which profiles there are, and what each is made of: records, read from shared memory; a file for ``go tool pprof``; a text for people.

Some ask the coordinator for something first. It is a collection, which changes no more than one that the pacer begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gomp.core.shm.records import SCHED, sched_dtype, view
from gomp.runtime import goroutineprofile, memprofile, memstats, pprof
from gomp.runtime.discovery import Client

MOST_TEXT = 64 << 20  # bytes of a text: runtime/pprof's writeGoroutineStacks ends there, too


@dataclass(frozen=True)
class Profile:
    """``read`` reads records, ``since`` says what has come between two readings, ``encode`` makes of records what ``go tool pprof`` reads; ``text``
    is for people, at a level of detail; ``count`` says how many there are, as Go's index does. ``first`` is what the coordinator is asked for before:
    ``always``, or if who wants the profile says so."""

    about: str
    read: Callable[[], list[Any]]
    since: Callable[[list[Any], list[Any]], list[Any]]
    encode: Callable[[list[Any]], bytes]
    text: Callable[[int], str]
    count: Callable[[], int]
    first: Callable[[Client], object] | None = None
    always: bool = False


def _goroutines(only_leaked: bool, debug: int) -> str:
    if debug != 1:
        return goroutineprofile.text_of_all(only_leaked, MOST_TEXT)
    which = "goroutineleak" if only_leaked else "goroutine"
    return goroutineprofile.summary(goroutineprofile.groups(only_leaked), which, MOST_TEXT)


def _memory(about: str, default: str, first: Callable[[Client], object] | None) -> Profile:
    return Profile(
        about,
        memprofile.read,
        memprofile.since,
        lambda records: pprof.encode_memory(records, memprofile.rate(), default),
        lambda debug: memprofile.summary(memprofile.read(), memstats.read()),
        lambda: len(memprofile.read()),
        first,
    )


PROFILES = {
    "allocs": _memory("objects made, ever; a sample", "alloc_space", None),
    "goroutine": Profile(
        "stacks of all goroutines",
        goroutineprofile.groups,
        goroutineprofile.since,
        pprof.encode_goroutines,
        lambda debug: _goroutines(False, debug),
        lambda: memstats.read().goroutines.count,
    ),
    "goroutineleak": Profile(
        "stacks of those that wait for ever; a collection finds them first",
        lambda: goroutineprofile.groups(only_leaked=True),
        goroutineprofile.since,
        lambda groups: pprof.encode_goroutines(groups, "goroutineleak"),
        lambda debug: _goroutines(True, debug),
        lambda: int(view(sched_dtype, SCHED)[0].leaked),
        Client.find_leaks,
        always=True,
    ),
    "heap": _memory("objects in use; a sample. gc=1 collects first", "inuse_space", Client.collect),
}
