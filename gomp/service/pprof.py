"""``/debug/pprof/``: the profiles of goroutines, as Go's net/http/pprof has them.

    /debug/pprof/goroutine      every goroutine; read from shared memory, so it is answered whatever the world does
    /debug/pprof/goroutineleak  those that wait for ever; a whole collection looks for them first

``?debug=0`` is what ``go tool pprof`` reads, ``debug=1`` a text with those together that stand at the same lines, ``debug=2`` one with each by
itself.
"""

from __future__ import annotations

import asyncio

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gomp.errors import GompError
from gomp.runtime import goroutineprofile, pprof
from gomp.runtime.discovery import connect

_MOST_SHOWN = 100_000  # one by one: as Go ends its text at 64 MiB
_PROFILES = {"goroutine": "stacks of all goroutines", "goroutineleak": "stacks of those that wait for ever"}
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


def routes(name: str) -> list[Route]:
    """Those of the runtime called ``name``, whose segments are mapped in this process."""
    turn = asyncio.Lock()  # one profile at a time: others wait for theirs

    async def index(request: Request) -> Response:
        lines = [f"{profile:16}{what}" for profile, what in _PROFILES.items()]
        return PlainTextResponse("\n".join([*lines, ""]), headers=_HEADERS)

    async def profile(request: Request) -> Response:
        debug = request.query_params.get("debug", "0")
        if debug not in ("0", "1", "2"):
            return PlainTextResponse(f"debug is 0, 1 or 2, not {debug[:20]!r}\n", status_code=400, headers=_HEADERS)
        which = request.url.path.rpartition("/")[2]
        async with turn:
            try:
                return await run_in_threadpool(_answer, name, which, int(debug))
            except GompError as error:
                return PlainTextResponse(f"{error}\n", status_code=503, headers=_HEADERS)

    return [
        Route("/debug/pprof/", index),
        *(Route(f"/debug/pprof/{which}", profile) for which in _PROFILES),
    ]


def _answer(name: str, which: str, debug: int) -> Response:
    if debug:
        return PlainTextResponse(text(name, which, debug), headers=_HEADERS)
    if is_leaks := which == "goroutineleak":
        _find_leaks(name)
    found = pprof.encode(goroutineprofile.groups(is_leaks), which)
    disposition = {"Content-Disposition": f'attachment; filename="{which}"'}
    return Response(found, media_type="application/octet-stream", headers=_HEADERS | disposition)


def text(name: str, which: str, debug: int) -> str:
    """The profile ``which`` for people. Raises GompError."""
    if is_leaks := which == "goroutineleak":
        _find_leaks(name)
    if debug == 1:
        return goroutineprofile.summary(goroutineprofile.groups(is_leaks), which)
    return goroutineprofile.tracebacks(goroutineprofile.read(is_leaks, _MOST_SHOWN))


def _find_leaks(name: str) -> None:
    with connect(name) as client:
        client.find_leaks()
