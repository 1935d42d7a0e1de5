"""``/debug/trace?seconds=5``: what every P does for so long, as JSON for ui.perfetto.dev; it comes while it is recorded.

A client that leaves ends the trace. There is one at a time: whoever asks for another is told so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from gomp.errors import ConfigError, GompError, RuntimeLost
from gomp.runtime.discovery import choose
from gomp.runtime.traces import Recording, check_seconds
from gomp.service.headers import NOT_STORED

_DEFAULT_SECONDS = "1"  # as Go's
_AS_FILE = {"Content-Disposition": 'attachment; filename="trace.json"'}


def routes(name: str) -> list[Route]:
    """That of the runtime called ``name``, whose segments are mapped in this process."""

    async def trace(request: Request) -> Response:
        try:
            seconds = check_seconds(request.query_params.get("seconds", _DEFAULT_SECONDS))
            recording = await run_in_threadpool(lambda: Recording(choose(name), seconds, maps=False))
        except ConfigError as error:
            return _sentence(400, error)
        except RuntimeLost as error:
            return _sentence(503, error)
        except GompError as error:  # there is another one, or no room for this
            return _sentence(409, error)
        return StreamingResponse(_pieces(recording), media_type="application/json", headers=NOT_STORED | _AS_FILE)

    return [Route("/debug/trace", trace)]


async def _pieces(recording: Recording) -> AsyncIterator[str]:
    try:
        async for piece in iterate_in_threadpool(recording.pieces()):
            if piece:
                yield piece
    finally:
        recording.close()


def _sentence(status: int, error: GompError) -> Response:
    return PlainTextResponse(f"{error}\n", status_code=status, headers=NOT_STORED)
