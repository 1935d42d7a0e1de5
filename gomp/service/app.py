"""What the service answers: read from shared memory when asked, so it also answers while the world is stopped.

What asks the coordinator for something first is said in :mod:`~gomp.service.pprof` and :mod:`~gomp.service.trace`.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gomp.errors import GompError
from gomp.runtime.metrics.snapshot import is_ready
from gomp.service import metrics, pprof, trace
from gomp.service.answers import refusal
from gomp.service.live import routes as live
from gomp.service.shared import Shared


def make_app(shared: Shared, page: live.Page, all_metrics: bool = False) -> Starlette:
    """The application of the runtime that is mapped in this process."""
    registries = {is_open: metrics.registry(all_metrics, is_open) for is_open in (False, True)}

    async def scrape(request: Request) -> Response:
        accept = request.headers.get("accept", "")
        return await shared.scrapes.serve(request, lambda: _encode(registries, accept))

    return Starlette(
        routes=[
            *live.routes(page, shared.feed, shared.scrapes),
            Route("/metrics", scrape),
            Route("/livez", _livez),
            Route("/readyz", _readyz),
            *pprof.routes(shared.profiles),
            *trace.routes(shared.name),
        ],
        exception_handlers={GompError: _not_now, OSError: _refused_by_the_system},
    )


async def _not_now(request: Request, error: Exception) -> Response:
    """What is asked for cannot be read at present, or the coordinator does not do what comes first."""
    return refusal(503, error)


async def _refused_by_the_system(request: Request, error: Exception) -> Response:
    """No descriptor is left, or the like."""
    return refusal(503, getattr(error, "strerror", None) or error)


def _encode(registries: dict[bool, CollectorRegistry], accept: str) -> Response:
    """As ``accept`` has it: by the registry for OpenMetrics, or the other."""
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # the library compares a version that it cannot read
        encode, content_type = choose_encoder("")
    registry = registries[content_type.startswith("application/openmetrics-text")]
    return Response(encode(registry), media_type=None, headers={"Content-Type": content_type})


async def _livez(request: Request) -> Response:
    """The service runs, and with it the coordinator: their lives end together."""
    return PlainTextResponse("ok\n")


async def _readyz(request: Request) -> Response:
    """The runtime takes programs."""
    if is_ready():
        return PlainTextResponse("ready\n")
    return PlainTextResponse("not ready\n", status_code=503)
