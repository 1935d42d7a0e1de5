"""Answers that several parts of the service give: one line that refuses, the head alone, and what is sent bit by bit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping

from anyio import move_on_after
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

# What is shown as a page by itself may load nothing and be in no frame.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
PIECE = 1 << 18  # bytes
SEND_S = 60.0  # the longest that anything is sent which was made as a whole


def refusal(status: int, why: object) -> Response:
    """One line that says what is wrong."""
    return PlainTextResponse(f"{why}\n", status_code=status, headers=HEADERS)


def head(media_type: str) -> Response:
    """What HEAD gets where the answer itself takes long to make: nothing of that is done, so how long it would be is not said either."""
    answer = Response(media_type=media_type, headers=HEADERS)
    del answer.headers["content-length"]
    return answer


def is_head(request: Request) -> bool:
    return request.method == "HEAD"


class Streamed(StreamingResponse):
    """What ``pieces`` gives, until the client has it all or leaves; then, whatever has ended it, ``ends`` is called."""

    def __init__(
        self,
        pieces: AsyncIterator[bytes] | AsyncIterator[str],
        media_type: str,
        headers: Mapping[str, str],
        ends: Callable[[], None],
        within_s: float | None = None,
    ) -> None:
        super().__init__(pieces, media_type=media_type, headers=headers)
        self._ends = ends
        self._within_s = within_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with move_on_after(self._within_s):
                await super().__call__(scope, receive, send)
        finally:
            self._ends()


def sent(content: bytes, media_type: str, headers: Mapping[str, str], ends: Callable[[], None]) -> Response:
    """``content``, piece by piece: of what the client does not take, only one is kept twice; and who has not taken it all in SEND_S is cut off."""
    size = {"Content-Length": str(len(content))}
    return Streamed(_cut(content), media_type, {**headers, **size}, ends, SEND_S)


async def _cut(content: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(content), PIECE):
        yield content[at : at + PIECE]
