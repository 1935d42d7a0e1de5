"""Turns: of each kind of request that takes long, so many are served at once, so many more wait, and all others are told so in a line.

1. Who asks takes a turn of that kind. Whoever has left while it waited is forgotten, and who has waited for the kind's patience is sent away.
2. What blocks runs in a thread. A kind has as many as it has turns, and no kind has another's: one whose coordinator does not answer can keep
   neither a scrape nor a probe from being served.
3. A turn is given back when the answer is sent or has failed, so what is held in memory to be sent is bounded likewise.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Literal, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request

from gomp.service.answers import HEADERS

T = TypeVar("T")
LOOK_S = 0.1  # between two looks whether who waits is still there
GONE = 499  # nginx's: the client has closed the connection
_NO_THREAD = "the service may start no more threads: raise `ulimit -u`, or what its cgroup allows of processes"


class NoTurn(HTTPException):
    """Who has asked is not served: ``detail`` says why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(status, f"{why}\n", HEADERS)


class Turns:
    """Those of one kind of request: ``at_once``, for which ``most_waiting`` wait, none for more than ``patience_s``.

    ``busy`` is what others are told, with ``status``.
    """

    def __init__(self, busy: str, at_once: int, most_waiting: int, patience_s: float, status: int = 503) -> None:
        self._busy = busy
        self._status = status
        self._room = at_once + most_waiting
        self._patience_s = patience_s
        self._free = asyncio.Semaphore(at_once)
        self._threads = CapacityLimiter(at_once)

    async def take(self, request: Request) -> None:
        """Wait for a turn, which the caller gives back. Raises NoTurn."""
        if not self._room:
            raise NoTurn(self._status, self._busy)
        self._room -= 1
        waits = asyncio.ensure_future(self._free.acquire())
        try:
            await self._wait(request, waits)
        except BaseException:
            if not waits.cancel():  # it has its turn by now
                self._free.release()
            self._room += 1
            raise

    async def _wait(self, request: Request, turn: asyncio.Task[Literal[True]]) -> None:
        deadline = time.monotonic() + self._patience_s
        while not (await asyncio.wait({turn}, timeout=LOOK_S))[0]:
            if await request.is_disconnected():
                raise NoTurn(GONE, "nobody waits for it any more")
            if time.monotonic() > deadline:
                raise NoTurn(self._status, self._busy)

    def give_back(self) -> None:
        """The turn is over."""
        self._free.release()
        self._room += 1

    async def serve(self, request: Request, work: Callable[[], T]) -> T:
        """What ``work`` returns, which is all that the turn is for. Raises NoTurn."""
        await self.take(request)
        try:
            return await self.run(work)
        finally:
            self.give_back()

    async def run(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, in a thread of this kind. The caller has a turn, and is not cancelled before the thread is done. Raises NoTurn."""
        return await in_thread(work, self._threads)


async def in_thread(work: Callable[[], T], limiter: CapacityLimiter | None = None) -> T:
    """What ``work`` returns, in a thread. Raises NoTurn, if the system allows no more threads."""
    has_begun = False

    def begin() -> T:
        nonlocal has_begun
        has_begun = True
        return work()

    try:
        return await to_thread.run_sync(begin, limiter=limiter)
    except RuntimeError:
        if has_begun:
            raise
        raise NoTurn(503, _NO_THREAD) from None
