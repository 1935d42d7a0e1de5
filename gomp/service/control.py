"""Changing the collector's settings over HTTP while the runtime runs, on a listener of its own.

    GET  /control                what is in force, and which of it follows the system by itself
    PUT  /control/gogc           the body is a percentage, or off
    PUT  /control/memory-limit   the body is a number of bytes, as 512MiB, or auto, or off
    PUT  /control/procs          the body is a number of Ps, or auto: as many as the processors and the CPU quota say
    POST /control/gc             a whole collection; answered when it is done
    POST /control/free-os-memory the same, and everything that is free is returned to the system; ?now=true: also where it is done lazily
    GET  /control/goroutines     the goroutine profile as text; ?debug=1: in groups; ?leaked=true: a collection first finds those that wait for ever

The coordinator is asked for one thing at a time; who has left before its turn, or has not said all within BODY_S, has changed nothing.

A body is text, or JSON as ``{"value": 200}``. Who may connect may change: the listener is a Unix socket for this user alone or, where that does
not reach, a port of the loopback interface that wants the token of a file only this user can read.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

from anyio import fail_after
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gomp.config import Setting, read_setting, show_setting
from gomp.core.shm.records import PACER, RUNTIME, pacer_dtype, runtime_dtype, view
from gomp.errors import ConfigError, GompError, RuntimeLost
from gomp.runtime import memstats
from gomp.runtime.discovery import Client, connect
from gomp.service.live import routes as live
from gomp.service.profiles import PROFILES
from gomp.service.shared import Shared
from gomp.service.turns import GONE, NoTurn, Turns

MAX_BODY = 1024
BODY_S = 10.0
_SETTINGS: dict[str, Setting] = {"gogc": "gogc", "memory-limit": "memory_limit", "procs": "procs"}


class TooLong(Exception):
    """A body of more than MAX_BODY bytes."""


def make_app(shared: Shared, token: bytes | None) -> Starlette:
    """The application that controls a runtime; with a ``token`` it wants to see that, and has the live page."""
    turns = Turns("many wait for the coordinator already: ask again later", at_once=1, most_waiting=16, patience_s=60.0)

    async def ask(request: Request, what: Callable[[Client], dict[str, Any]]) -> Response:
        """What the coordinator answers."""
        return await turns.serve(request, lambda: _ask(shared.name, what))

    async def show(request: Request) -> Response:
        return JSONResponse(_in_force())

    async def put(request: Request) -> Response:
        setting = _SETTINGS[request.scope["path"].rpartition("/")[2]]
        try:
            with fail_after(BODY_S):
                given = await _read_value(request)
            value = read_setting(setting, given)
        except TooLong:
            return _sentence(413, f"a value has at most {MAX_BODY} bytes")
        except ClientDisconnect:
            return _sentence(GONE, "nobody waits for it any more")
        except TimeoutError:
            return _sentence(408, f"no whole value has come within {BODY_S:g} s")
        except ConfigError as error:
            return _sentence(422, str(error))
        return await ask(request, lambda client: _change(client, setting, value))

    async def collect(request: Request) -> Response:
        return await ask(request, lambda client: {"num_gc": client.collect()})

    async def free_os_memory(request: Request) -> Response:
        now = request.query_params.get("now", "false")
        if now not in ("true", "false"):
            return _sentence(422, f"now is true or false (not {now!r})")
        return await ask(request, lambda client: {"heap_released": client.free_os_memory(now == "true")})

    async def goroutines(request: Request) -> Response:
        debug, leaked = request.query_params.get("debug", "2"), request.query_params.get("leaked", "false")
        if debug not in ("1", "2") or leaked not in ("true", "false"):
            return _sentence(422, "debug is 1 or 2, and leaked true or false")
        which = "goroutineleak" if leaked == "true" else "goroutine"
        await shared.profiles.prepare(request, which, collect=False)
        text = PROFILES[which].text
        return await shared.profiles.send_text(
            request, lambda: json.dumps({"text": text(int(debug))}).encode(), "application/json"
        )

    routes = [
        Route("/control/goroutines", goroutines, methods=["GET"]),
        Route("/control", show, methods=["GET"]),
        *(Route(f"/control/{path}", put, methods=["PUT"]) for path in _SETTINGS),
        Route("/control/gc", collect, methods=["POST"]),
        Route("/control/free-os-memory", free_os_memory, methods=["POST"]),
    ]
    refusals: dict[Any, Any] = {
        NoTurn: _refuse,
        ConfigError: _not_now,
        RuntimeLost: _not_now,
        GompError: _cannot_be_done,
        OSError: _refused_by_the_system,
    }
    if token is None:
        return Starlette(routes=routes, exception_handlers=refusals)
    guards = [Middleware(BaseHTTPMiddleware, dispatch=_require(token))]
    page = live.routes(live.Page(shared.name, "here"), shared.feed, shared.scrapes)
    return Starlette(routes=[*routes, *page], middleware=guards, exception_handlers=refusals)


async def _refuse(request: Request, refused: NoTurn) -> Response:
    return _sentence(refused.status_code, refused.detail.strip())


async def _not_now(request: Request, error: GompError) -> Response:
    return _sentence(504, str(error))


async def _cannot_be_done(request: Request, error: GompError) -> Response:
    return _sentence(409, str(error))


async def _refused_by_the_system(request: Request, error: OSError) -> Response:
    """As on the listener of the metrics."""
    return _sentence(503, error.strerror or str(error))


def _require(token: bytes) -> Callable[[Request, Callable[[Request], Awaitable[Response]]], Awaitable[Response]]:
    async def check(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        # Not the path of request.url: some versions of the library make that of the Host header.
        if live.is_public(request.scope["path"]):
            return await call(request)
        credentials = request.headers.get("authorization", "")
        scheme, _, given = credentials.partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token):
            return await call(request)
        why = "this is not" if credentials else "send as Authorization: Bearer TOKEN, or with gomp ctl --token-file,"
        answer = _sentence(401, f"{why} the token in the file that control_token_file names")
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer

    return check


async def _read_value(request: Request) -> object:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise TooLong
    text = body.decode(errors="replace").strip()
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/json" and not text.startswith("{"):  # curl -d says that it is a form
        return text
    try:
        return json.loads(text)["value"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError('the body is JSON, but not of this form: write {"value": ...}') from None


def _ask(name: str, what: Callable[[Client], dict[str, Any]]) -> Response:
    with connect(name) as client:
        return JSONResponse(what(client))


def _change(client: Client, setting: Setting, value: int) -> dict[str, Any]:
    old = client.set(setting, value)
    return {"old": show_setting(setting, old), "new": show_setting(setting, value)}


def _in_force() -> dict[str, Any]:
    pacer, runtime = view(pacer_dtype, PACER)[0], view(runtime_dtype, RUNTIME)[0]
    return {
        "gogc": show_setting("gogc", int(pacer.gc_percent)),
        "memory_limit": show_setting("memory_limit", int(pacer.memory_limit)),
        "memory_limit_is_auto": bool(runtime.limit_is_auto),
        "procs": int(runtime.nprocs),
        "procs_are_auto": bool(runtime.procs_are_auto),
        "num_gc": memstats.read().num_gc,
    }


def _sentence(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status_code=status)
