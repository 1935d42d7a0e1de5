"""The live page over HTTP: a document, its files, and the stream of events that moves it.

It is served on the listener of the metrics, where nothing can be changed and the page says so; and on the control listener if that is a port that
wants a token. There the document and its files, which hold nothing of the runtime but its name, can be had without: the page asks for the token,
keeps it in memory, and sends it with each request, for the stream too. A page of another site can neither read it nor make a browser send it, as
it would a cookie. On a Unix socket there is no page: no browser reaches that, and what a tunnel would make of it has no token.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from gomp.service.answers import Streamed
from gomp.service.live import values
from gomp.service.live.feed import MAX_FOLLOWERS, Feed
from gomp.service.turns import Turns

_EVENTS = "text/event-stream"
_DOCUMENT = Template(resources.files("gomp.service.live").joinpath("page.html").read_text(encoding="utf-8"))
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Page:
    """What the page is to know before the first event. ``control``: how settings are changed; ``here``: on this listener, with the token.
    ``control_url``: of a ``tcp`` listener."""

    name: str
    control: Literal["unix", "tcp", "off", "here"]
    control_url: str = ""


def is_public(path: str) -> bool:
    """Whether what is there says nothing of the runtime but its name."""
    return path == "/" or path.startswith("/static/")


class _Files(StaticFiles):
    """Each is read whole: one that is sent bit by bit is open for as long as its client does not take it."""

    def file_response(self, full_path: Any, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(full_path, *args, **kwargs)
        if isinstance(response, FileResponse):
            kept = {name: response.headers[name] for name in ("etag", "last-modified")}
            response = Response(Path(full_path).read_bytes(), media_type=response.media_type, headers=kept)
        response.headers.update(_HEADERS)
        return response


def routes(page: Page, feed: Feed, scrapes: Turns) -> list[BaseRoute]:
    """The document at ``/``, its files below ``/static``, the stream at ``/live`` and all metrics at ``/live/metrics``."""
    document = _DOCUMENT.substitute(
        name=escape(page.name), control=page.control, control_url=escape(page.control_url)
    ).encode()

    async def root(request: Request) -> Response:
        return HTMLResponse(document, headers=_HEADERS)

    async def live(request: Request) -> Response:
        if feed.is_full:
            return PlainTextResponse(f"{MAX_FOLLOWERS} pages are open already: close one\n", status_code=503)
        if request.method == "HEAD":
            return Response(media_type=_EVENTS)
        feed.join()
        return Streamed(feed.follow(), _EVENTS, {"Cache-Control": "no-store"}, feed.leave)

    async def live_metrics(request: Request) -> Response:
        return await scrapes.serve(request, lambda: JSONResponse(values.read(), headers={"Cache-Control": "no-store"}))

    return [
        Route("/", root),
        Route("/live", live),
        Route("/live/metrics", live_metrics),
        Mount("/static", _Files(packages=[("gomp.service.live", "static")])),
    ]
