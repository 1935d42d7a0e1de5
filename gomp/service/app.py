"""What the service answers: all of it read from shared memory when asked, so it also answers while the world is stopped."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from gomp.service import metrics, page, pprof, trace

_PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
}


def make_app(name: str) -> Starlette:
    """The application of the runtime called ``name``, whose segments are mapped in this process."""
    registry = metrics.registry()

    async def root(request: Request) -> Response:
        return HTMLResponse(page.render(metrics.snapshot(), name), headers=_PAGE_HEADERS)

    async def scrape(request: Request) -> Response:
        return _encode(registry, request.headers.get("accept", ""))

    return Starlette(
        routes=[
            Route("/", root),
            Route("/metrics", scrape),
            Route("/livez", _livez),
            Route("/readyz", _readyz),
            *pprof.routes(name),
            *trace.routes(name),
        ]
    )


def _encode(registry: CollectorRegistry, accept: str) -> Response:
    encode, content_type = choose_encoder(accept)
    return Response(encode(registry), media_type=None, headers={"Content-Type": content_type})


async def _livez(request: Request) -> Response:
    """The service runs, and with it the coordinator: their lives end together."""
    return PlainTextResponse("ok\n")


async def _readyz(request: Request) -> Response:
    """The runtime takes programs."""
    if metrics.is_ready():
        return PlainTextResponse("ready\n")
    return PlainTextResponse("not ready\n", status_code=503)
