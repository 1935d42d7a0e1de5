"""``/debug/pprof/``: profiles, as Go's net/http/pprof has them.

    /debug/pprof/heap           what is in use, by the code that made it: as of the last collection; gc=1 runs one first
    /debug/pprof/allocs         the same profile, which shows all that was ever made
    /debug/pprof/goroutine      every goroutine; read from shared memory, so it is answered whatever the world does
    /debug/pprof/goroutineleak  those that wait for ever; a whole collection looks for them first
    /debug/pprof/profile        what each P and the coordinator did for seconds=30: the CPU time of programs and of the collector
    /debug/pprof/cmdline        how the runtime was started

``?debug=0`` is what ``go tool pprof`` reads, ``debug=1`` a text with those together that stand at the same lines, ``debug=2`` one with each goroutine
by itself. ``?seconds=N`` of all but ``profile`` and ``cmdline`` is what has come in N seconds, as in Go.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """``prepare`` has done what has to be done first; ``read`` reads records, ``since`` says what has come between two readings, ``encode`` makes of
    records what ``go tool pprof`` reads; ``text`` is for people, at a level of detail."""

    about: str
    prepare: Callable[[str, bool], None]
    read: Callable[[], list[Any]]
    since: Callable[[list[Any], list[Any]], list[Any]]
    encode: Callable[[list[Any]], bytes]
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


def _memory(about: str, prepare: Callable[[str, bool], None], default: str) -> Profile:
    return Profile(
        about,
        prepare,
        memprofile.read,
        memprofile.since,
        lambda records: pprof.encode_memory(records, memprofile.rate(), default),
        lambda debug: memprofile.summary(memprofile.read(), memstats.read()),
    )


_PROFILES = {
    "allocs": _memory("objects made, ever; a sample", _no_need, "alloc_space"),
    "goroutine": Profile(
        "stacks of all goroutines",
        _no_need,
        goroutineprofile.groups,
        goroutineprofile.since,
        pprof.encode_goroutines,
        lambda debug: _goroutines(False, debug),
    ),
    "goroutineleak": Profile(
        "stacks of those that wait for ever",
        _find_leaks,
        lambda: goroutineprofile.groups(only_leaked=True),
        goroutineprofile.since,
        lambda groups: pprof.encode_goroutines(groups, "goroutineleak"),
        lambda debug: _goroutines(True, debug),
    ),
    "heap": _memory("objects in use; a sample. gc=1 collects first", _collect, "inuse_space"),
}
_OTHERS = {
    "cmdline": "how the runtime was started",
    "profile": "CPU time, of programs and of the collector, by P, for seconds=30",
}
_SECONDS, _MOST_SECONDS = 30, 600
_PATIENCE_S = (
    10.0  # for the turn of a CPU profile: go tool pprof gives up when half as long again as it has asked for is over
)
_GONE = 499  # nginx's: the client has closed the connection


def routes(name: str) -> list[Route]:
    """Those of the runtime called ``name``, whose segments are mapped in this process."""
    turn, cpu_turn = asyncio.Lock(), asyncio.Lock()  # one profile at a time: others wait for theirs

    async def read(which: str) -> list[Any]:
        async with turn:
            return await run_in_threadpool(_read, name, which)

    async def index(request: Request) -> Response:
        about = {which: profile.about for which, profile in _PROFILES.items()} | _OTHERS
        return PlainTextResponse("".join(f"{which:16}{about[which]}\n" for which in sorted(about)), headers=_HEADERS)

    async def profile(request: Request) -> Response:
        which, debug = request.path_params["which"], request.query_params.get("debug", "0")
        if which not in _PROFILES:
            other = "; /debug/trace is a trace" if which == "trace" else ""
            return _refusal(404, f"there is no profile {which[:20]!r}: /debug/pprof/ lists those there are{other}")
        if debug not in ("0", "1", "2"):
            return _refusal(400, f"debug is 0, 1 or 2, not {debug[:20]!r}")
        collect = request.query_params.get("gc", "0") not in ("", "0")
        if (seconds := request.query_params.get("seconds")) is not None:
            if debug != "0":
                return _refusal(400, "seconds and debug do not go together")
            try:
                return await difference(request, which, seconds)
            except GompError as error:
                return _refusal(503, str(error))
        async with turn:
            try:
                return await run_in_threadpool(_answer, name, which, int(debug), collect)
            except GompError as error:
                return _refusal(503, str(error))

    async def difference(request: Request, which: str, seconds: str) -> Response:
        if not _is_duration(seconds):
            return _no_duration(seconds)
        before = await read(which)
        if not await _pass_time(request, int(seconds), lambda: None):
            return _refusal(_GONE, "nobody waits for it any more")
        found = _PROFILES[which].since(before, await read(which))
        return _attachment(f"{which}-delta", _PROFILES[which].encode(found))

    async def cpu(request: Request) -> Response:
        seconds = request.query_params.get("seconds", str(_SECONDS))
        if not _is_duration(seconds):
            return _no_duration(seconds)
        try:
            await asyncio.wait_for(cpu_turn.acquire(), _PATIENCE_S)
        except TimeoutError:
            return _refusal(
                409, "another CPU profile is being recorded: there is one at a time; ask again when it has ended"
            )
        try:
            looks = cpuprofile.CpuProfile()
            if not await _pass_time(request, int(seconds), looks.look):
                return _refusal(_GONE, "nobody waits for it any more")
        finally:
            cpu_turn.release()
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
    return _attachment(which, _PROFILES[which].encode(_read(name, which, collect)))


def _read(name: str, which: str, collect: bool = False) -> list[Any]:
    _PROFILES[which].prepare(name, collect)
    return _PROFILES[which].read()


def _attachment(which: str, content: bytes) -> Response:
    disposition = {"Content-Disposition": f'attachment; filename="{which}"'}
    return Response(content, media_type="application/octet-stream", headers=_HEADERS | disposition)


def text(name: str, which: str, debug: int, collect: bool = False) -> str:
    """The profile ``which`` for people. Raises GompError."""
    _PROFILES[which].prepare(name, collect)
    return _PROFILES[which].text(debug)
