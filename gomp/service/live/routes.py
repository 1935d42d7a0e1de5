"""The live page over HTTP: a document, its files, and the stream of events that moves it.

It is served on the listener of the metrics, where nothing can be changed and the page says so; and on the control listener if that is a port that
wants a token. There the document and its files, which hold nothing of the runtime but its name, can be had without: the page asks for the token,
keeps it in memory, and sends it with each request, for the stream too. A page of another site can neither read it nor make a browser send it, as
it would a cookie. On a Unix socket there is no page: no browser reaches that, and what a tunnel would make of it has no token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import PurePath
from string import Template
from typing import Literal

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gomp.service.answers import Streamed, refusal
from gomp.service.live import values
from gomp.service.live.feed import MAX_FOLLOWERS, Feed
from gomp.service.turns import Turns

_EVENTS = "text/event-stream"
_HERE = resources.files("gomp.service.live")
_DOCUMENT = Template(_HERE.joinpath("page.html").read_text(encoding="utf-8"))
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".LICENSE": "text/plain"}


def _read_files() -> Iterator[tuple[str, tuple[bytes, dict[str, str]]]]:
    """The page's files by name, each with its headers."""
    for file in _HERE.joinpath("static").iterdir():
        kind = _KINDS.get(PurePath(file.name).suffix)
        if kind is None or not file.is_file():  # an editor's, or an archiver's
            continue
        content = file.read_bytes()
        tag = hashlib.sha256(content).hexdigest()[:32]
        yield file.name, (content, {**_HEADERS, "Content-Type": f"{kind}; charset=utf-8", "ETag": f'"{tag}"'})


# Read once: they can be had where no descriptor is left, and who does not take one keeps nothing open.
_FILES = dict(_read_files())


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


def routes(page: Page, feed: Feed, scrapes: Turns) -> list[Route]:
    """The document at ``/``, its files below ``/static``, the stream at ``/live`` and all metrics at ``/live/metrics``."""
    document = _DOCUMENT.substitute(
        name=escape(page.name), control=page.control, control_url=escape(page.control_url)
    ).encode()

    async def root(request: Request) -> Response:
        return HTMLResponse(document, headers=_HEADERS)

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _FILES:
            return refusal(404, f"there is no file {name[:40]!r}")
        content, headers = _FILES[name]
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers)

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
        Route("/static/{name}", file),
    ]
