"""The goroutine profile: what each goroutine does, where it stands and where it was started; as records, as Go's texts, and in groups.

Read from shared memory by any process that has it mapped, at any time: see :mod:`~gomp.core.mutator.goroutinedump`. A frame's line is that of the
action which its step has returned last, since a step begins anew after each. Who waits in a program has no frames of its own: then the line is that
of the wait.
"""

from __future__ import annotations

import functools
import json
import math
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from gomp.core.mutator.goroutinedump import DUMP_BYTES, MOST_FRAMES, dump_goroutines
from gomp.core.mutator.sites import NO_SITE
from gomp.core.shm import layout
from gomp.core.shm.atomics import allowed_range
from gomp.core.shm.records import (
    G_RUNNABLE,
    G_RUNNING,
    G_WAITING,
    SCHED,
    WAITS_FOR_GROUP,
    WAITS_FOR_LOCK,
    WAITS_FOR_STEP,
    WAITS_FOR_TAKER,
    WAITS_IN_SELECT,
    WAITS_TO_RECEIVE,
    WAITS_TO_SEND,
    sched_dtype,
    view,
)
from gomp.runtime.sitetable import UNKNOWN, Labels, Site, frame_at, labels_of, site_of

_AT_A_TIME = 2048  # goroutines
_WORDS = (
    "id", "status", "wait", "has_chan", "site", "parent", "since_ns", "leaked", "stack", "depth", "p", "home", "labels", "place", "hash", "nframes",
)  # fmt: skip
_dtype = np.dtype([*((name, "i8") for name in _WORDS), ("frames", "i8", (MOST_FRAMES, 2))])
if _dtype.itemsize != DUMP_BYTES:
    raise AssertionError("the kernel and its reader have different records")

_STATES = {G_RUNNABLE: "runnable", G_RUNNING: "running", G_WAITING: "waiting"}
# What Go calls them, and behind: what it does not have.
WAITS = {
    WAITS_TO_RECEIVE: "chan receive",
    WAITS_TO_SEND: "chan send",
    WAITS_FOR_GROUP: "sync.WaitGroup.Wait",
    WAITS_FOR_LOCK: "sync.Mutex.Lock",
    WAITS_IN_SELECT: "select",
    WAITS_FOR_TAKER: "failed, to be reported",
    WAITS_FOR_STEP: "waiting for a frame to be declared here",
}
_AT_NOTHING = {WAITS_TO_RECEIVE: " (nil chan)", WAITS_TO_SEND: " (nil chan)", WAITS_IN_SELECT: " (no cases)"}
_MINUTE_NS = 60_000_000_000


@dataclass(frozen=True)
class GoroutineRecord:
    """A goroutine as it was at one moment."""

    id: int
    status: str  # "runnable", "running" or "waiting"
    wait_reason: str  # in Go's words, as "chan receive"; "" if it does not wait. Or, if it is runnable, why nobody can run it yet
    waiting_ns: int  # since a collection first saw it wait as it does; 0: none has
    leaked: bool  # the last look for leaks has found that nothing will end its wait
    frames: tuple[Site, ...]  # the innermost first, at most 100
    created_at: Site
    parent: int  # id of the goroutine that started it, 0: a program did
    stack_bytes: int
    frame_bytes: int  # of those, in use
    p: int  # the P that runs it, or ran it last
    labels: Labels  # that it was started with, or who has started it was

    @property
    def state(self) -> str:
        """What Go writes in brackets behind its number."""
        text = self.wait_reason or self.status
        if self.leaked:
            text += " (leaked)"
        minutes = self.waiting_ns // _MINUTE_NS
        return f"{text}, {minutes} minutes" if minutes else text


@dataclass(frozen=True)
class Group:
    """Goroutines with the same frames at the same lines, and the same labels: how many, and one of them."""

    count: int
    frames: tuple[Site, ...]
    labels: Labels = ()


# --- reading ----------------------------------------------------------------------------------------------------------


def _dumps() -> Iterator[Any]:
    """All goroutines, some thousand records at a time. What one names is used before the next."""
    buffer = np.zeros(8 + _AT_A_TIME * DUMP_BYTES, np.uint8)
    out = buffer.ctypes.data
    first = 1
    while first:
        with allowed_range(out, buffer.nbytes):
            first = int(dump_goroutines(first, _AT_A_TIME, out))
        n = int(buffer[:8].view("i8")[0])
        yield buffer[8 : 8 + n * DUMP_BYTES].view(_dtype)


@functools.lru_cache(maxsize=4096)
def _frame(key: int, line: int) -> Site:
    return frame_at(key, line)


@functools.lru_cache(maxsize=4096)
def _site(number: int) -> Site:
    return site_of(number)


@functools.lru_cache(maxsize=4096)
def _labels(number: int) -> Labels:
    return labels_of(number)


def _forget_names() -> None:
    """Another runtime may have other places at the same numbers."""
    _frame.cache_clear()
    _site.cache_clear()
    _labels.cache_clear()


def _frames(dump: Any) -> tuple[Site, ...]:
    if not dump["nframes"]:
        place = int(dump["place"]) or int(dump["site"])
        return (_site(place),) if dump["home"] and place != NO_SITE else ()
    return tuple(_frame(int(key), int(line)) for key, line in dump["frames"][: int(dump["nframes"])])


def _records(dumps: Any) -> Iterator[GoroutineRecord]:
    """Goroutines with the same frames share them."""
    now_ns = time.monotonic_ns()
    frames: dict[tuple[int, int], tuple[Site, ...]] = {}
    columns = [dumps[name].tolist() for name in _WORDS]
    for i, words in enumerate(zip(*columns, strict=True)):
        dump = dict(zip(_WORDS, words, strict=True))
        key = dump["hash"], dump["nframes"] or -(dump["place"] or dump["site"]) * bool(dump["home"])
        if key not in frames:
            frames[key] = _frames(dumps[i])
        yield _record(dump, frames[key], now_ns)


def _record(dump: dict[str, int], frames: tuple[Site, ...], now_ns: int) -> GoroutineRecord:
    is_waiting, since = dump["status"] == G_WAITING, dump["since_ns"]
    reason = WAITS.get(dump["wait"], "waiting") if is_waiting else ""
    if is_waiting and not dump["has_chan"]:
        reason += _AT_NOTHING.get(dump["wait"], "")
    return GoroutineRecord(
        id=dump["id"],
        status="runnable" if is_waiting and dump["wait"] == WAITS_FOR_STEP else _STATES.get(dump["status"], "waiting"),
        wait_reason=reason,
        waiting_ns=max(now_ns - since, 0) if is_waiting and since else 0,
        leaked=bool(is_waiting and dump["leaked"]),
        frames=frames,
        created_at=_site(dump["site"]),
        parent=dump["parent"],
        stack_bytes=dump["stack"],
        frame_bytes=dump["depth"],
        p=dump["p"],
        labels=_labels(dump["labels"]),
    )


def _is_leaked(dumps: Any) -> Any:
    return (dumps["status"] == G_WAITING) & (dumps["leaked"] != 0)


def read(only_leaked: bool = False, most: int | None = None) -> list[GoroutineRecord]:
    """The goroutines by id, or the leaked ones among them; at most so many, of the first records of the table."""
    _forget_names()
    found: list[GoroutineRecord] = []
    for dumps in _dumps():
        if only_leaked:
            dumps = dumps[_is_leaked(dumps)]
        found += _records(dumps[: None if most is None else most - len(found)])
        if most is not None and len(found) >= most:
            break
    return sorted(found, key=lambda g: g.id)


def frames_of_running(g: int) -> tuple[Site, ...]:
    """Those of the goroutine whose record is at ``g``, the innermost first; none if there is none such, or it has ended meanwhile."""
    number, beside = divmod(g - layout.GS_BASE, layout.G_RECORD)
    ngs = int(view(sched_dtype, SCHED)[0].ngs)
    if beside or not 1 <= number <= ngs:
        return ()
    buffer = np.zeros(8 + DUMP_BYTES, np.uint8)
    with allowed_range(buffer.ctypes.data, buffer.nbytes):
        after = dump_goroutines(number, 1, buffer.ctypes.data)  # of it, or else of the next that there is
    if after != (number + 1 if number < ngs else 0) or not int(buffer[:8].view("i8")[0]):
        return ()
    dump = buffer[8:].view(_dtype)[0]
    return tuple(frame_at(int(key), int(line)) for key, line in dump["frames"][: int(dump["nframes"])])


def groups(only_leaked: bool = False) -> list[Group]:
    """Goroutines by their frames, most of them first. A million takes some tenths of a second."""
    _forget_names()
    counts: Counter[tuple[int, int]] = Counter()
    frames: dict[int, tuple[Site, ...]] = {}
    for dumps in _dumps():
        if only_leaked:
            dumps = dumps[_is_leaked(dumps)]
        # Who has no frames is told apart by where he waits.
        places = np.where(dumps["place"] != NO_SITE, dumps["place"], dumps["site"])
        keys = np.where(dumps["nframes"] == 0, places * (dumps["home"] != 0), dumps["hash"])
        _, first, n = np.unique(keys ^ dumps["labels"] << 48, return_index=True, return_counts=True)
        for at, count in zip(first.tolist(), n.tolist(), strict=True):
            key = int(keys[at])
            counts[key, int(dumps["labels"][at])] += count
            if key not in frames:
                frames[key] = _frames(dumps[at])
    return [Group(count, frames[key], _labels(labels)) for (key, labels), count in counts.most_common()]


def since(before: list[Group], now: list[Group]) -> list[Group]:
    """What ``now`` has more than the groups ``before``; less, where counts are below 0."""
    counts: Counter[tuple[tuple[Site, ...], Labels]] = Counter()
    for sign, found in ((1, now), (-1, before)):
        for group in found:
            counts[group.frames, group.labels] += sign * group.count
    return [Group(n, frames, labels) for (frames, labels), n in counts.items() if n]


# --- Go's texts -------------------------------------------------------------------------------------------------------


def line_of(g: GoroutineRecord) -> str:
    """In a line: its number, what it waits for, and where."""
    place = f"{g.frames[0].function} at {g.frames[0]}" if g.frames else "in a program"
    return f"goroutine {g.id} [{g.state}]: {place}"


def tracebacks(goroutines: Iterable[GoroutineRecord]) -> str:
    """As Go's goroutine profile with debug=2: each goroutine by itself."""
    return "\n".join(_traceback(g) for g in goroutines)


def text_of_all(only_leaked: bool, most_bytes: int) -> str:
    """All goroutines, or the leaked ones, as :func:`tracebacks` has them, by id. What would not fit is left out, and counted in the last line."""
    _forget_names()
    found: list[tuple[int, str]] = []
    room, left_out = most_bytes, 0
    for dumps in _dumps():
        if only_leaked:
            dumps = dumps[_is_leaked(dumps)]
        if room < 0:
            left_out += len(dumps)
            continue
        for i, g in enumerate(_records(dumps)):
            text = _traceback(g)
            room -= len(text.encode()) + 1
            if room < 0:
                left_out += len(dumps) - i
                break
            found.append((g.id, text))
    found.sort(key=itemgetter(0))
    end = [f"...{left_out} more goroutines left out: a text has {most_bytes} bytes at most...\n"] * bool(left_out)
    return "\n".join([text for _, text in found] + end)


def _traceback(g: GoroutineRecord) -> str:
    labels = ", ".join(f"{_quoted(key)}: {_quoted(value)}" for key, value in g.labels)
    lines = [f"goroutine {g.id} [{g.state}]{f' {{{labels}}}' if labels else ''}:"]
    for frame in g.frames:
        lines += [f"{frame.function or '?'}", f"\t{frame}"]
    if not g.frames:
        lines.append(
            "\tgoroutine running on another process; stack unavailable" if g.status == "running" else "\tno frames"
        )
    if len(g.frames) == MOST_FRAMES:
        lines.append("...additional frames elided...")
    if g.created_at != UNKNOWN:
        by = f" in goroutine {g.parent}" if g.parent else ""
        lines += [f"created by {g.created_at.function}{by}", f"\t{g.created_at}"]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """As it is, if it needs no quotes."""
    return text if re.fullmatch("[A-Za-z0-9./_]*", text) else json.dumps(text)


def summary(found: list[Group], name: str = "goroutine", most_bytes: int | None = None) -> str:
    """As Go's goroutine profile with debug=1: how many have the same frames. What would not fit is left out, and counted in the last line."""
    parts = [f"{name} profile: total {sum(group.count for group in found)}\n"]
    places = addresses(group.frames for group in found)
    room = math.inf if most_bytes is None else most_bytes
    for i, group in enumerate(found):
        text = _summary_of(group, places)
        room -= len(text.encode())
        if room < 0:
            rest = sum(group.count for group in found[i:])
            parts.append(f"# {rest} more goroutines left out: a text has {most_bytes} bytes at most\n")
            break
        parts.append(text)
    return "".join(parts)


def _summary_of(group: Group, places: dict[Site, int]) -> str:
    parts = [f"{group.count} @ {' '.join(f'{places[frame]:#x}' for frame in group.frames)}\n"]
    if group.labels:
        labels = ", ".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in group.labels)
        parts.append(f"# labels: {{{labels}}}\n")
    parts += [f"#\t{places[frame]:#x}\t{frame.function or '?'}\t{frame}\n" for frame in group.frames]
    return "".join([*parts, "\n"])


def addresses(stacks: Iterable[Iterable[Site]]) -> dict[Site, int]:
    """A number for each place, where Go has the address of an instruction."""
    places: dict[Site, int] = {}
    for stack in stacks:
        for frame in stack:
            places.setdefault(frame, len(places) + 1)
    return places
