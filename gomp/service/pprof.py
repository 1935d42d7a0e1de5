"""``/debug/pprof/``: profiles, as Go's net/http/pprof has them.

    /debug/pprof/heap           what is in use, by the code that made it: as of the last collection; gc=1 runs one first
    /debug/pprof/allocs         the same profile, which shows all that was ever made
    /debug/pprof/goroutine      every goroutine; read from shared memory, so it is answered whatever the world does
    /debug/pprof/goroutineleak  those that wait for ever; a whole collection looks for them first
    /debug/pprof/profile        what each P and the coordinator did for seconds=30: the CPU time of programs and of the collector
    /debug/pprof/cmdline        how the runtime was started

``?debug=0`` is what ``go tool pprof`` reads, ``debug=1`` a text with those together that stand at the same lines, ``debug=2`` one with each goroutine
by itself. ``?seconds=N`` of all but ``profile`` and ``cmdline`` is what has come in N seconds, as in Go.

What the coordinator is asked for has turns of its own, so one that does not answer holds up nobody who only reads.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gomp.core.shm.records import RUNTIME, runtime_dtype, view
from gomp.runtime import cpuprofile
from gomp.runtime.discovery import connect
from gomp.service import pprofindex
from gomp.service.answers import HEADERS, head, is_head, refusal, sent
from gomp.service.profiles import PROFILES
from gomp.service.turns import GONE, LOOK_S, NoTurn, Turns

_SECONDS, _MOST_SECONDS = 30, 600
_MOST_SPANS = 8
_POSITIVE = re.compile("0*[1-9][0-9]*")
_FILE = "application/octet-stream"
_PAGE = "text/html; charset=utf-8"
_TEXT = "text/plain; charset=utf-8"
ANSWER_S = 30.0  # that the coordinator has for what it is asked for first
# go tool pprof gives up when half as long again as it has asked for is over.
PATIENCE_S = 10.0


class Profiles:
    """Those of the runtime called ``name``, whose segments are mapped in this process; for all its listeners, which share the turns."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._reading = Turns(
            "many profiles are being read: ask again later", at_once=4, most_waiting=16, patience_s=PATIENCE_S
        )
        self._texts = Turns(
            "other texts are being made: ask again later", at_once=1, most_waiting=8, patience_s=PATIENCE_S
        )
        self._asking = Turns(
            "others wait for the coordinator already: ask again, or for a profile that needs no collection",
            at_once=1,
            most_waiting=8,
            patience_s=PATIENCE_S,
        )
        self._spans = Turns(
            f"{_MOST_SPANS} profiles of some seconds are being made: ask again when one has ended",
            at_once=_MOST_SPANS,
            most_waiting=0,
            patience_s=0.0,
            status=429,
        )
        self._cpu = Turns(
            "another CPU profile is being recorded: there is one at a time; ask again when it has ended",
            at_once=1,
            most_waiting=4,
            patience_s=PATIENCE_S,
            status=409,
        )

    async def prepare(self, request: Request, which: str, collect: bool) -> None:
        """Have done what the profile ``which`` wants done first. Raises GompError, NoTurn."""
        first = PROFILES[which].first
        if first is None or not (collect or PROFILES[which].always):
            return
        await self._asking.serve(request, lambda: self._ask(first))

    def _ask(self, first: Callable[[Any], object]) -> None:
        with connect(self.name, ANSWER_S) as client:
            first(client)

    async def send(self, request: Request, make: Callable[[], bytes], media_type: str, name: str = "") -> Response:
        """What ``make`` makes of records, as a file of that ``name`` if there is one. Raises NoTurn, and what ``make`` raises."""
        named = {"Content-Disposition": f'attachment; filename="{name}"'} if name else {}
        with ExitStack() as held:
            await self._reading.take(request)
            held.callback(self._reading.give_back)
            content = await self._reading.run(make)
            return sent(content, media_type, HEADERS | named, held.pop_all().close)

    async def send_text(self, request: Request, make: Callable[[], bytes], media_type: str) -> Response:
        """As :meth:`send`, of a text: one is made at a time, as that takes three or four times its bytes, which may be MOST_TEXT."""
        await self._texts.take(request)
        try:
            return await self.send(request, make, media_type)
        finally:
            self._texts.give_back()

    async def read(self, request: Request, which: str) -> list[Any]:
        """The records of a profile. Raises GompError, NoTurn."""
        return await self._reading.serve(request, PROFILES[which].read)

    async def since(self, request: Request, which: str, seconds: int) -> list[Any]:
        """What comes in so many seconds. Raises GompError, NoTurn."""
        await self._spans.take(request)
        try:
            await self.prepare(request, which, False)
            before = await self.read(request, which)
            await _pass_time(request, seconds)
            await self.prepare(request, which, False)
            return PROFILES[which].since(before, await self.read(request, which))
        finally:
            self._spans.give_back()

    async def cpu(self, request: Request, seconds: int) -> bytes:
        """The CPU profile of so many seconds. Raises NoTurn."""
        await self._cpu.take(request)
        looks, ends = cpuprofile.CpuProfile(), threading.Event()
        passing = asyncio.ensure_future(_pass_time(request, seconds))
        passing.add_done_callback(lambda _: ends.set())
        try:
            await self._cpu.run(lambda: _look_until(looks, ends))
            await passing
            return await self._cpu.run(looks.encode)
        finally:
            passing.cancel()
            self._cpu.give_back()


def routes(profiles: Profiles) -> list[Route]:
    """``/debug/pprof/`` and what is below it. Their GompErrors are the application's to answer."""

    async def index(request: Request) -> Response:
        if is_head(request):
            return head(_PAGE)
        return await profiles.send(request, lambda: pprofindex.page(profiles.name), _PAGE)

    async def profile(request: Request) -> Response:
        which, debug = request.path_params["which"], request.query_params.get("debug", "0")
        seconds = request.query_params.get("seconds")
        if which not in PROFILES:
            other = "; /debug/trace is a trace" if which == "trace" else ""
            return refusal(404, f"there is no profile {which[:20]!r}: /debug/pprof/ lists those there are{other}")
        if debug not in ("0", "1", "2"):
            return refusal(400, f"debug is 0, 1 or 2, not {debug[:20]!r}")
        if seconds is not None and debug != "0":
            return refusal(400, "seconds and debug do not go together")
        if seconds is not None and not _is_duration(seconds):
            return _no_duration(seconds)
        if is_head(request):
            return head(_FILE if debug == "0" else _TEXT)
        if seconds is not None:
            found = await profiles.since(request, which, int(seconds))
            return await profiles.send(request, lambda: PROFILES[which].encode(found), _FILE, f"{which}-delta")
        # As Go, which passes over what it cannot read.
        collect = _POSITIVE.fullmatch(request.query_params.get("gc", "")) is not None
        await profiles.prepare(request, which, collect)
        if debug == "0":
            return await profiles.send(request, lambda: PROFILES[which].encode(PROFILES[which].read()), _FILE, which)
        return await profiles.send_text(request, lambda: PROFILES[which].text(int(debug)).encode(), _TEXT)

    async def cpu(request: Request) -> Response:
        seconds = request.query_params.get("seconds", str(_SECONDS))
        if not _is_duration(seconds):
            return _no_duration(seconds)
        if is_head(request):
            return head(_FILE)
        content = await profiles.cpu(request, int(seconds))
        return await profiles.send(request, lambda: content, _FILE, "profile")

    async def cmdline(request: Request) -> Response:
        pid = int(view(runtime_dtype, RUNTIME)[0].coordinator_pid)
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError as error:
            return refusal(503, f"the coordinator is not there to be asked: {error.strerror}")
        return PlainTextResponse(words.rstrip(b"\0"), headers=HEADERS)

    return [
        Route("/debug/pprof/", index),
        Route("/debug/pprof/cmdline", cmdline),
        Route("/debug/pprof/profile", cpu),
        Route("/debug/pprof/{which}", profile),
    ]


def _is_duration(seconds: str) -> bool:
    return seconds.isascii() and seconds.isdecimal() and len(seconds) < 9 and 1 <= int(seconds) <= _MOST_SECONDS


def _no_duration(seconds: str) -> Response:
    return refusal(400, f"seconds is a whole number from 1 to {_MOST_SECONDS}, not {seconds[:20]!r}")


async def _pass_time(request: Request, seconds: int) -> None:
    """Raises NoTurn if who has asked goes away meanwhile."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if await request.is_disconnected():
            raise NoTurn(GONE, "nobody waits for it any more")
        await asyncio.sleep(min(LOOK_S, left))


def _look_until(looks: cpuprofile.CpuProfile, ends: threading.Event) -> None:
    """Look a hundred times a second, and once more at the end."""
    looks.look()
    while not ends.wait(1 / cpuprofile.HZ):
        looks.look()
    looks.look()
