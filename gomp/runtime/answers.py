"""What the coordinator itself is asked, and when the answer comes: at once, when a cycle is over, or when all free memory is returned.

A walk through the heap takes memory. Where there is none, it comes after a collection that is to make some. Where a stop would wait for a
process that is being killed, everything waits until that is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from gomp.core.gc.cycle import flush_caches_stw
from gomp.core.shm.records import (
    GC_TRIGGER_FORCED,
    GCSTATS,
    RUNTIME,
    SCHED,
    gcstats_dtype,
    layout_version,
    runtime_dtype,
    sched_dtype,
    view,
)
from gomp.core.shm.segments import Segments
from gomp.errors import MessageTooLarge, OutOfMemory, RuntimeLost
from gomp.runtime import memstats
from gomp.runtime.channel import Channel
from gomp.runtime.collector import Collector
from gomp.runtime.deadlocks import Deadlocks
from gomp.runtime.dispatcher import Dispatcher
from gomp.runtime.limits import Limits
from gomp.runtime.memstats import MemStats
from gomp.runtime.requests import Asker
from gomp.runtime.scavenger import Scavenger
from gomp.runtime.stopping import NAMES_SHOWN
from gomp.runtime.tracing import Tracing

_WALKS = ("verify", "retainers")


class Answers:
    """``resize(asker)`` answers who wants another number of Ps; ``stopped_world()`` stops the world for a block."""

    def __init__(
        self,
        collector: Collector,
        scavenger: Scavenger,
        dispatcher: Dispatcher,
        limits: Limits,
        deadlocks: Deadlocks,
        tracing: Tracing,
        shared: Segments,
        resize: Callable[[Asker], None],
        stopped_world: Callable[[], AbstractContextManager[None]],
        is_held_up: Callable[[], bool],
        crash: Callable[[str, Sequence[str]], None],
    ) -> None:
        self._collector = collector
        self._scavenger = scavenger
        self._dispatcher = dispatcher
        self._limits = limits
        self._deadlocks = deadlocks
        self._tracing = tracing
        self._shared = shared
        self._resize = resize
        self._stopped_world = stopped_world
        self._is_held_up = is_held_up
        self._crash = crash
        self._deferred: list[Asker] = []  # until nothing holds up a stop
        self._collecting: list[tuple[int, Asker]] = []  # until so many cycles have ended
        self._releasing: list[Asker] = []  # until all free memory is returned
        self._declarations: dict[int, str] = {}  # of frames, by the keys of their types: see runtime/declarations.py

    def give(self, asker: Asker, may_wait: bool = True) -> None:
        """Answer, or remember to. Without ``may_wait`` no room is made any more for a walk that has none: it has been."""
        if asker.request.op == "look":  # which needs nobody
            asker.hand([self._shared.heap_fd, self._shared.meta_fd], version=layout_version())
            return
        if self._is_held_up():
            self._deferred.append(asker)
            return
        try:
            self._try(asker, may_wait)
        except (OutOfMemory, MessageTooLarge) as error:
            asker.refuse(f"{asker.request.op}: {error}")
        except OSError as error:  # there is no descriptor, to load a module with for example
            asker.refuse(f"{asker.request.op}: {error.strerror}")
        except RuntimeLost:  # the runtime ends
            pass

    def give_due(self) -> None:
        """Answer those who have waited long enough."""
        self._give_deferred()
        self._end_collections()
        self._end_releases()
        self._tracing.step()

    def forget(self, channel: Channel) -> None:
        """Nobody is left to hear the answers to what ``channel`` has asked."""
        self._deferred = [asker for asker in self._deferred if asker.channel is not channel]
        self._collecting = [waiter for waiter in self._collecting if waiter[1].channel is not channel]
        self._releasing = [asker for asker in self._releasing if asker.channel is not channel]
        self._tracing.forget(channel)

    def _try(self, asker: Asker, may_wait: bool) -> None:
        message = asker.request
        if message.op in _WALKS:
            self._walk(asker, may_wait)
        elif message.op in ("collect", "free_os_memory"):
            self._collect_for(asker)
        elif message.op == "find_leaks":
            self._collecting.append((self._collector.want_leaks(), asker))
        elif message.op == "set" and message["setting"] == "procs":
            self._resize(asker)
        elif message.op == "trace":
            self._tracing.begin(asker)
        elif message.op == "end_trace":
            self._tracing.end(asker)
        elif message.op == "declare":
            self._declarations[message["key"]] = message["pickle"]
        elif message.op == "declared":
            asker.answer(pickle=self._declarations.get(message["key"], ""))
        elif message.op in ("waits", "looked"):
            self._deadlocks.hear(asker)
        elif message.op == "set":
            asker.answer(old=self._limits.set(message["setting"], message["value"]))
        else:
            asker.answer(**self._stats().to_json())

    # --- later --------------------------------------------------------------------------------------------------------

    def _collect_for(self, asker: Asker) -> None:
        self._collecting.append((self._collector.want(GC_TRIGGER_FORCED), asker))

    def _give_deferred(self) -> None:
        if self._deferred and not self._is_held_up():
            deferred, self._deferred = self._deferred, []
            for asker in deferred:
                self.give(asker)

    def _end_collections(self) -> None:
        """Tell those whose collection is over, or go on with what they want released."""
        done = int(view(runtime_dtype, RUNTIME)[0].xcycle_done)
        ended = [asker for target, asker in self._collecting if done >= target]
        self._collecting = [waiter for waiter in self._collecting if done < waiter[0]]
        for asker in ended:
            if asker.request.op == "find_leaks":
                asker.answer(leaked=int(view(sched_dtype, SCHED)[0].leaked))
            elif asker.request.op == "collect":
                asker.answer(num_gc=int(view(gcstats_dtype, GCSTATS)[0].num_gc))
            else:
                self._scavenger.release_all(asker.request.fields.get("now", True))
                self._releasing.append(asker)

    def _end_releases(self) -> None:
        if not self._releasing or self._scavenger.releasing:
            return
        self._limits.set_budget()
        released, self._releasing = self._releasing, []
        for asker in released:
            if asker.request.op in _WALKS:
                self.give(asker, may_wait=False)
            else:
                asker.answer(heap_released=memstats.read().heap_released)

    # --- what the heap says -------------------------------------------------------------------------------------------

    def _walk(self, asker: Asker, may_wait: bool) -> None:
        """Raises OutOfMemory, where it may not wait."""
        message = asker.request
        try:
            if message.op == "verify":
                self._verify(asker, message["level"])
            else:
                asker.answer(**self._retainers(message["p"], message["slot"]))
        except OutOfMemory:
            if not may_wait:
                raise
            self._collect_for(asker)

    def _verify(self, asker: Asker, level: int) -> None:
        from gomp.runtime.verifyaside import verify_aside

        with self._stopped_world():
            found = verify_aside(level)
            asker.answer(**found)
            if found["problems"]:
                self._crash("the heap is not sound", found["problems"])

    def _retainers(self, p: int, slot: int) -> dict[str, Any]:
        """What leads to the object in that handle; {"problem": why not} if there is none."""
        from gomp.runtime.retainers import Search, may_search

        with self._stopped_world():
            if not may_search(p, slot):
                return {"problem": f"P{p} has no reference number {slot}"}
            found = Search(p, slot).run()
        if found["root"] and self._dispatcher.has_process(found["root"].get("p", -1)):
            running = [task.name for task in self._dispatcher.tasks.of(found["root"]["p"]) if task.has_started]
            found["root"]["programs"] = running[:NAMES_SHOWN]
        return found

    def _stats(self) -> MemStats:
        """Exact counters: as Go's ReadMemStats, with the world stopped and every P's cache given back."""
        with self._stopped_world():
            flush_caches_stw()
            return memstats.read()
