"""Deadlock: nothing can run, and nobody is left who could change that (proc.go, checkdead). Found by the coordinator.

Go counts its threads. Here any thread of Python may send to a channel, in a P or in the script. So what is found is less, and certain: that every
thread of every process of the runtime waits without end for what only the others can bring (``stillness``), and no goroutine can run.

1. Who waits without end in a program says so after a second, and from time to time then. Somebody who is a root of the wait is always among those.
2. If the table of goroutines says that none can run, the coordinator asks all processes what they do. If each is STILL, it asks them all once more.
3. If each is STILL again with the same count of changes, and the table says after each round what it said before, it is a deadlock: goroutines whose
   wait a program waits in get :class:`gomp.Deadlock`. All others stay as they are, and may go on by what those programs do about it.

Why that is certain. Take the moment T between the two rounds.

- No goroutine has run since before the first question: none could then, nor after, and the table counts how often each has. A P may run them in the
  middle of a wait, which changes nothing of its own count.
- At T every process waits. It did when it answered first, before T, and did nothing until its second answer, after T: its count is the same.
- At T no message is under way that makes anybody act. What a process had sent before its first answer was received before that, and what is sent to
  one before the second question is there before it: then it would not have been STILL, or its count had changed. The coordinator itself has nothing
  to send: each call has started, each P has a process.
- So nothing happens after T, but by who is not in this count: a signal, a thread that waits for something else, a process that connects, a timeout.
  With any of these a process is not STILL, or the runtime is not closed: a service is there for others, and so is a script's runtime with a name.
  Finalizers and cleanups do not count in Go; here the threads that run them do, once they are there.

Where all is still, but for what is not certain, the log says so, once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

from gomp.core.shm.records import (
    G_CASE,
    G_DEAD,
    G_STATUS_MASK,
    G_WAITING,
    RUNTIME,
    SCHED,
    WAITS_TO_RECEIVE,
    g_dtype,
    runtime_dtype,
    sched_dtype,
    view,
)
from gomp.errors import RuntimeLost
from gomp.runtime import goroutineprofile
from gomp.runtime.channel import Channel
from gomp.runtime.dispatcher import Dispatcher
from gomp.runtime.ending import Ending
from gomp.runtime.family import Family
from gomp.runtime.recordaddr import g_addr
from gomp.runtime.requests import Asker
from gomp.runtime.stillness import ACTS

log = logging.getLogger("gomp.coordinator")

_TEXT = "all goroutines are asleep - deadlock!"  # Go's
_MOST_SHOWN = 100
_SAID_AFTER_S = 4
_AT_A_TIME = 1 << 16  # records


class Answer(NamedTuple):
    """What a process has said that it does."""

    state: str
    changes: int
    why: str
    waits: tuple[tuple[int, str], ...]  # ids of goroutines of Python's that wait there, and a line for each


class Census(NamedTuple):
    """Of all goroutines, where none can run: how often each has run, added up, and the ids of those in whose waits programs wait."""

    runs: int
    waiters: tuple[int, ...]


class _Look:
    """Both rounds of asking the processes at ``channels``, begun when the table said what ``census`` is."""

    def __init__(self, channels: list[Channel], census: Census) -> None:
        self.channels, self.census = channels, census
        self.first: dict[Channel, Answer] = {}
        self.answers: dict[Channel, Answer] = {}


class Deadlocks:
    """``name``: of a runtime that others are to find; with "" nobody is expected but the script that owns it."""

    def __init__(self, family: Family, ending: Ending, dispatcher: Dispatcher, name: str) -> None:
        self._family, self._ending, self._dispatcher, self._name = family, ending, dispatcher, name
        self._number = 0  # of the last round
        self._look: _Look | None = None
        self._unanswered: set[Channel] = set()
        self._seconds = 0  # that somebody has waited
        self._has_said = False

    def hear(self, asker: Asker) -> None:
        """What a process says: that one waits, or what it does."""
        message = asker.request
        if message.op == "waits":
            self._seconds = message["seconds"]
            self._begin()
        else:
            waits = tuple((goid, line) for goid, line in message["waits"])
            answer = Answer(message["state"], message["changes"], message["why"], waits)
            self._answered(asker.channel, message["n"], answer)

    def _begin(self) -> None:
        """Look, unless somebody has not answered the last question yet, and so does something."""
        channels = self._channels()
        self._unanswered.intersection_update(channels)
        if self._unanswered or not self._is_quiet():
            return
        found = census()
        if found is not None and found.waiters:
            self._look = _Look(channels, found)
            self._ask(self._look)

    def _is_quiet(self) -> bool:
        """Whether the coordinator itself has nothing for anybody."""
        return bool(view(runtime_dtype, RUNTIME)[0].xready) and self._dispatcher.tasks.have_all_started()

    def _ask(self, look: _Look) -> None:
        self._number += 1
        for channel in look.channels:
            try:
                channel.send("look", n=self._number)
            except RuntimeLost:
                self._look = None
                return
            self._unanswered.add(channel)

    def _answered(self, channel: Channel, n: int, answer: Answer) -> None:
        self._unanswered.discard(channel)
        look = self._look
        if look is None or n != self._number or channel not in look.channels:
            return
        look.answers[channel] = answer
        if answer.state == ACTS:
            self._look = None
        elif len(look.answers) == len(look.channels):
            self._end_round(look)

    def _end_round(self, look: _Look) -> None:
        self._look = None
        if census() != look.census or not self._is_quiet():
            return
        if not look.first:
            self._look = look
            look.first, look.answers = look.answers, {}
            self._ask(look)
        elif look.first == look.answers and look.channels == self._channels():
            self._found(look)

    def _channels(self) -> list[Channel]:
        return [*self._family.channels(), *self._ending.holders]

    # --- what is done about it ----------------------------------------------------------------------------------------

    def _found(self, look: _Look) -> None:
        if why := self._doubts(look):
            self._say(look, why)
            return
        text = f"{_TEXT}\n\n{_shown(look)}"
        for channel in look.channels:
            try:
                channel.send("deadlock", ids=list(look.census.waiters), text=text)
            except RuntimeLost:  # it has died: its pidfd tells
                continue

    def _doubts(self, look: _Look) -> str:
        """Who could act all the same, in words; "" if nobody could."""
        if not self._ending.owners:
            return "others may start programs here"
        if self._name:
            return f"others may connect to a runtime with a name, {self._name}"
        if len(self._ending.peers) > len(self._ending.owners):
            return "another process is connected"
        return next((answer.why for answer in look.answers.values() if answer.why), "")

    def _say(self, look: _Look, why: str) -> None:
        """Once: a service whose programs wait for requests may be as it should."""
        if self._has_said or self._seconds < _SAID_AFTER_S:
            return
        self._has_said = True
        level = logging.WARNING if self._ending.owners else logging.INFO
        log.log(level, "all goroutines wait, and nothing runs; it may be no deadlock, for %s\n%s", why, _shown(look))


def census() -> Census | None:
    """None if a goroutine runs, is about to, or is to be looked at by its process."""
    runs, waiters = 0, []
    for records in _tables():
        status = records["xstatus"] & G_STATUS_MASK
        there = (status != G_DEAD) & (status != G_CASE)
        waits = (status == G_WAITING) & (records["wait"] >= WAITS_TO_RECEIVE) & (records["done"] == 0)
        if (there & ~waits).any():
            return None
        runs += int(records["runs"].sum())
        waiters += records["id"][there & (records["home"] != 0)].tolist()
    return Census(runs, tuple(waiters))


def _tables() -> Iterator[Any]:
    """The records of all goroutines, some at a time."""
    n = int(view(sched_dtype, SCHED)[0].ngs)
    for first in range(1, n + 1, _AT_A_TIME):
        yield view(g_dtype, g_addr(first), min(_AT_A_TIME, n + 1 - first))


def _shown(look: _Look) -> str:
    """A line for each goroutine: its number, what it waits for, and where. Those that await another are in no record: their processes know them."""
    lines = {g.id: goroutineprofile.line_of(g) for g in goroutineprofile.read(most=_MOST_SHOWN + 1)}
    if len(lines) <= _MOST_SHOWN:
        lines = {goid: line for answer in look.answers.values() for goid, line in answer.waits} | lines
    shown = [lines[goid] for goid in sorted(lines)[:_MOST_SHOWN]]
    return "\n".join(shown if len(lines) <= _MOST_SHOWN else [*shown, "..."])
