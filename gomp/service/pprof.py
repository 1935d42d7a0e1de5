"""``/debug/pprof/``: profiles, as Go's net/http/pprof has them.

    /debug/pprof/heap           what is in use, by the code that made it: as of the last collection; gc=1 runs one first
    /debug/pprof/allocs         the same profile, which shows all that was ever made
    /debug/pprof/goroutine      every goroutine; read from shared memory, so it is answered whatever the world does
    /debug/pprof/goroutineleak  those that wait for ever; a whole collection looks for them first
    /debug/pprof/profile        what each P and the coordinator did for seconds=30: the CPU time of programs and of the collector
    /debug/pprof/cmdline        how the runtime was started

``?debug=0`` is what ``go tool pprof`` reads, ``debug=1`` a text with those together that stand at the same lines, ``debug=2`` one with each goroutine
by itself. ``?seconds=N`` of ``heap`` and ``allocs`` is what has come in N seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gomp.core.shm.records import RUNTIME, runtime_dtype, view
from gomp.errors import GompError
from gomp.runtime import cpuprofile, goroutineprofile, memprofile, memstats, pprof
from gomp.runtime.discovery import connect

_MOST_SHOWN = 100_000  # one by one: as Go ends its text at 64 MiB
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


@dataclass(frozen=True)
class Profile:
    """``prepare`` has done what has to be done first, ``encode`` is for ``go tool pprof``, ``text`` for people, at a level of detail."""

    about: str
    prepare: Callable[[str, bool], None]
    encode: Callable[[], bytes]
    text: Callable[[int], str]


def _no_need(name: str, collect: bool) -> None:
    """Nothing has to be done."""


def _find_leaks(name: str, collect: bool) -> None:
    with connect(name) as client:
        client.find_leaks()


def _collect(name: str, collect: bool) -> None:
    if collect:
        with connect(name) as client:
            client.collect()


def _goroutines(only_leaked: bool, debug: int) -> str:
    which = "goroutineleak" if only_leaked else "goroutine"
    if debug == 1:
        return goroutineprofile.summary(goroutineprofile.groups(only_leaked), which)
    return goroutineprofile.tracebacks(goroutineprofile.read(only_leaked, _MOST_SHOWN))


def _memory(which: str) -> bytes:
    return pprof.encode_memory(memprofile.read(), memprofile.rate(), _DEFAULTS[which])


def _memory_text(debug: int) -> str:
    stats = memstats.read()
    return memprofile.summary(memprofile.read(), stats)


_PROFILES = {
    "allocs": Profile("objects made, ever; a sample", _no_need, lambda: _memory("allocs"), _memory_text),
    "goroutine": Profile(
        "stacks of all goroutines",
        _no_need,
        lambda: pprof.encode_goroutines(goroutineprofile.groups()),
        lambda debug: _goroutines(False, debug),
    ),
    "goroutineleak": Profile(
        "stacks of those that wait for ever",
        _find_leaks,
        lambda: pprof.encode_goroutines(goroutineprofile.groups(only_leaked=True), "goroutineleak"),
        lambda debug: _goroutines(True, debug),
    ),
    "heap": Profile("objects in use; a sample. gc=1 collects first", _collect, lambda: _memory("heap"), _memory_text),
}
_OTHERS = {
    "cmdline": "how the runtime was started",
    "profile": "CPU time, of programs and of the collector, by P, for seconds=30",
}
_DEFAULTS = {"heap": "inuse_space", "allocs": "alloc_space"}
_SECONDS, _MOST_SECONDS = 30, 600
_GONE = 499  # nginx's: the client has closed the connection


def routes(name: str) -> list[Route]:
    """Those of the runtime called ``name``, whose segments are mapped in this process."""
    turn, cpu_turn = asyncio.Lock(), asyncio.Lock()  # one profile at a time: others wait for theirs

    async def index(request: Request) -> Response:
        about = {which: profile.about for which, profile in _PROFILES.items()} | _OTHERS
        return PlainTextResponse("".join(f"{which:16}{about[which]}\n" for which in sorted(about)), headers=_HEADERS)

    async def profile(request: Request) -> Response:
        which, debug = request.path_params["which"], request.query_params.get("debug", "0")
        if which not in _PROFILES:
            return _refusal(404, f"there is no profile {which[:20]!r}: /debug/pprof/ lists those there are")
        if debug not in ("0", "1", "2"):
            return _refusal(400, f"debug is 0, 1 or 2, not {debug[:20]!r}")
        collect = request.query_params.get("gc", "0") not in ("", "0")
        if (seconds := request.query_params.get("seconds")) is not None:
            if which not in _DEFAULTS or debug != "0":
                return _refusal(400, "seconds is for heap and allocs without debug, and for profile")
            return await difference(request, which, seconds)
        async with turn:
            try:
                return await run_in_threadpool(_answer, name, which, int(debug), collect)
            except GompError as error:
                return _refusal(503, str(error))

    async def difference(request: Request, which: str, seconds: str) -> Response:
        if not _is_duration(seconds):
            return _no_duration(seconds)
        before = await run_in_threadpool(memprofile.read)
        if not await _pass_time(request, int(seconds), lambda: None):
            return _refusal(_GONE, "nobody waits for it any more")
        found = memprofile.since(before, await run_in_threadpool(memprofile.read))
        return _attachment(f"{which}-delta", pprof.encode_memory(found, memprofile.rate(), _DEFAULTS[which]))

    async def cpu(request: Request) -> Response:
        seconds = request.query_params.get("seconds", str(_SECONDS))
        if not _is_duration(seconds):
            return _no_duration(seconds)
        async with cpu_turn:
            looks = cpuprofile.CpuProfile()
            if not await _pass_time(request, int(seconds), looks.look):
                return _refusal(_GONE, "nobody waits for it any more")
        return _attachment("profile", await run_in_threadpool(looks.encode))

    async def cmdline(request: Request) -> Response:
        pid = int(view(runtime_dtype, RUNTIME)[0].coordinator_pid)
        return PlainTextResponse(Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0"), headers=_HEADERS)

    return [
        Route("/debug/pprof/", index),
        Route("/debug/pprof/cmdline", cmdline),
        Route("/debug/pprof/profile", cpu),
        Route("/debug/pprof/{which}", profile),
    ]


def _is_duration(seconds: str) -> bool:
    return seconds.isascii() and seconds.isdecimal() and len(seconds) < 9 and 1 <= int(seconds) <= _MOST_SECONDS


def _no_duration(seconds: str) -> Response:
    return _refusal(400, f"seconds is a whole number from 1 to {_MOST_SECONDS}, not {seconds[:20]!r}")


async def _pass_time(request: Request, seconds: int, look: Callable[[], None]) -> bool:
    """Look a hundred times a second, and once more at the end; false if who has asked goes away meanwhile."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if await request.is_disconnected():
            return False
        look()
        await asyncio.sleep(1 / cpuprofile.HZ)
    look()
    return True


def _refusal(status: int, why: str) -> Response:
    return PlainTextResponse(f"{why}\n", status_code=status, headers=_HEADERS)


def _answer(name: str, which: str, debug: int, collect: bool) -> Response:
    if debug:
        return PlainTextResponse(text(name, which, debug, collect), headers=_HEADERS)
    _PROFILES[which].prepare(name, collect)
    return _attachment(which, _PROFILES[which].encode())


def _attachment(which: str, content: bytes) -> Response:
    disposition = {"Content-Disposition": f'attachment; filename="{which}"'}
    return Response(content, media_type="application/octet-stream", headers=_HEADERS | disposition)


def text(name: str, which: str, debug: int, collect: bool = False) -> str:
    """The profile ``which`` for people. Raises GompError."""
    _PROFILES[which].prepare(name, collect)
    return _PROFILES[which].text(debug)
