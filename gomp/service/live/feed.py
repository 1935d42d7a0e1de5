"""What is sent to the pages that are open: one reading for all of them, and nothing while there are none.

1. While somebody follows, a task looks every LOOK_S at what the Ps do, and every FRAME_S reads the figures. The map of the heap is drawn every MAP_S
   in a thread that nothing waits for, and never for more than MAP_SHARE of the time, whoever comes and goes: a heap of a TiB has a hundred million
   pages.
2. Each reading is encoded once. A follower waits for the next one and sends what it has not sent yet: the latest reading and the latest map, and of
   the cycles those that it has not told. What it was too slow for is forgotten, so none has a queue.
3. There are MAX_FOLLOWERS at most, each of which has joined before it is answered: whoever else comes is told so. Who takes nothing at all for a
   while is cut off by the system (UNREAD_S in service/process.py).

The readings go on while the world is stopped, so they are the heartbeat too.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from gomp.cgroup import MemoryCgroup
from gomp.core.shm import layout, records
from gomp.runtime import doing, reading
from gomp.service.live import pagemap
from gomp.service.turns import NoTurn, in_thread

LOOK_S = 0.05
FRAME_S = 0.5
MAP_S = 1.0
MAP_SHARE = 0.02
MAX_FOLLOWERS = 32
CYCLES_TOLD = 128  # to whoever comes, or has slept

Event = bytes


def encode(kind: str, data: Any) -> Event:
    """An event as a stream of events has it."""
    return f"event: {kind}\ndata: {json.dumps(data, separators=(',', ':'), allow_nan=False)}\n\n".encode()


def _heap_fd() -> int:
    """The coordinator's descriptor of the heap, which this process has inherited."""
    return int(records.view(records.p_dtype, layout.p_addr(layout.COORDINATOR_P))[0].heap_fd)


class Feed:
    """The readings of the runtime whose segments are mapped here, for all pages of this process."""

    def __init__(self, frame_s: float = FRAME_S) -> None:
        self._frame_s = frame_s
        self._cgroup = MemoryCgroup.of_this_process()  # found now: later there may be no descriptor to look with
        self._followers = 0
        self._task: asyncio.Task[None] | None = None
        self._next = asyncio.Event()  # set, and another one in its place, when there is a reading
        self._frame = self._map = b""
        self._drawing: asyncio.Task[None] | None = None
        self._map_due_s = 0.0
        self._cycles: deque[dict[str, Any]] = deque(maxlen=CYCLES_TOLD)

    @property
    def is_full(self) -> bool:
        return self._followers >= MAX_FOLLOWERS

    def join(self) -> None:
        """Another one follows, from now until it is said to :meth:`leave`. It was asked for whether there is a place."""
        self._followers += 1

    def leave(self) -> None:
        """One follows no longer."""
        self._followers -= 1
        if not self._followers and self._task:
            self._task.cancel()
            self._task = None

    async def follow(self) -> AsyncIterator[Event]:
        """For one that has joined: each reading until it has enough, or those that there is time for."""
        told, map_sent = 0, b""
        task = self._reading()
        while True:
            # Whoever was busy with the last reading when the task failed has missed that it is over.
            if not task.done():
                await self._next.wait()
            if task.done():
                task.result()  # raises what it has failed with
            yield self._frame
            if self._map is not map_sent:
                map_sent = self._map
                yield map_sent
            if cycles := [cycle for cycle in self._cycles if cycle["number"] > told]:
                told = cycles[-1]["number"]
                yield encode("cycles", cycles)

    def _reading(self) -> asyncio.Task[None]:
        """The task that reads, begun if there is none."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._read())
            self._task.add_done_callback(lambda _: self._announce())
        return self._task

    async def _read(self) -> None:
        looks: list[str] = []
        frame_due = time.monotonic()
        while True:
            looks.append(doing.look())
            self._cycles.extend(reading.read_cycles(self._cycles[-1]["number"] if self._cycles else 0))
            now = time.monotonic()
            self._draw(now)
            if now >= frame_due:
                frame_due = max(frame_due + self._frame_s, now)
                self._frame = encode("frame", reading.read(looks, _heap_fd(), self._cgroup))
                looks = []
                self._announce()
            await asyncio.sleep(LOOK_S)

    def _draw(self, now_s: float) -> None:
        """Have the map drawn if it is time. Raises what the last drawing has failed with."""
        if self._drawing is not None and self._drawing.done():
            drawn, self._drawing = self._drawing, None
            drawn.result()
        if self._drawing is None and now_s >= self._map_due_s:
            self._drawing = asyncio.create_task(self._draw_map(now_s))

    async def _draw_map(self, began_s: float) -> None:
        self._map_due_s = began_s + MAP_S
        try:
            self._map = await in_thread(lambda: encode("map", pagemap.read().to_json()))
        except NoTurn:  # the system allows no more threads: the last one stays
            return
        took_s = time.monotonic() - began_s
        self._map_due_s = began_s + max(MAP_S, took_s / MAP_SHARE)

    def _announce(self) -> None:
        ready, self._next = self._next, asyncio.Event()
        ready.set()
