"""``/debug/trace?seconds=1``: what every P does for so long, as JSON for ui.perfetto.dev; it comes while it is recorded.

A client that leaves ends the trace, and one that has not taken all of it SEND_S after its end is cut off. There is one at a time: whoever asks for
another is told so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gomp.errors import ConfigError, GompError, RuntimeLost
from gomp.runtime.discovery import choose
from gomp.runtime.traces import Recording, check_seconds
from gomp.service.answers import HEADERS, SEND_S, Streamed, head, is_head, refusal
from gomp.service.turns import Turns

_DEFAULT_SECONDS = "1"  # as Go's
_JSON = "application/json"
_AS_FILE = {"Content-Disposition": 'attachment; filename="trace.json"'}


def routes(name: str) -> list[Route]:
    """That of the runtime called ``name``, whose segments are mapped in this process."""
    # Two: one that is recorded, and one for the coordinator to tell that there is.
    turns = Turns(
        "a trace is being recorded or waits for the coordinator: ask again when it has ended",
        at_once=2,
        most_waiting=0,
        patience_s=0.0,
    )

    async def trace(request: Request) -> Response:
        try:
            seconds = check_seconds(request.query_params.get("seconds", _DEFAULT_SECONDS))
        except ConfigError as error:
            return refusal(400, error)
        if is_head(request):
            return head(_JSON)
        with ExitStack() as held:
            await turns.take(request)
            held.callback(turns.give_back)
            try:
                recording = await turns.run(lambda: Recording(choose(name), seconds, maps=False))
            except (ConfigError, RuntimeLost) as error:  # it has ended, or does not answer
                return refusal(503, error)
            except GompError as error:  # there is another one, or no room for this
                return refusal(409, error)
            held.callback(recording.close)
            ends = held.pop_all().close
            return Streamed(_pieces(recording, turns), _JSON, HEADERS | _AS_FILE, ends, within_s=seconds + SEND_S)

    return [Route("/debug/trace", trace)]


async def _pieces(recording: Recording, turns: Turns) -> AsyncIterator[str]:
    pieces = recording.pieces()
    while (piece := await turns.run(lambda: next(pieces, None))) is not None:
        if piece:
            yield piece
