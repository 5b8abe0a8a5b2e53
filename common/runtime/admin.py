"""The admin endpoint of a service: metrics, health, readiness, captures, and what the service adds.

=================  ================================================================================================
GET /metrics       Prometheus text format
GET /healthz       200 while the event loop turns
GET /readyz        200, or 503 with the reasons why not
GET /capture       a msgpack stream of records, see :mod:`common.runtime.capture`
=================  ================================================================================================

Everything but errors of our own is JSON in and out. Bad input is a 4xx answer that names the field. Where a token is
set, captures, traces and every route that changes something want ``Authorization: Bearer <token>``.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from common.choices import with_choices
from common.errors import BackpressureError, ConfigError, LocalError, RemoteError
from common.runtime.capture import DIRECTIONS, CaptureHub
from common.runtime.clock import monotonic
from common.runtime.config import explain
from common.runtime.metrics import CONTENT_TYPE, Metrics

#: Largest body of a request in bytes.
MAX_BODY: Final = 4 << 20
#: Longest capture that one request may ask for, in seconds.
MAX_CAPTURE_SECONDS: Final = 3600.0

Handler = Callable[[Any], Any]
_Web = Callable[[web.Request], Awaitable[web.StreamResponse]]

_to_json: Final = msgspec.json.Encoder().encode


class BadRequestError(RemoteError):
    """A request that names something that does not exist or has the wrong type: answered with status 400."""


class Admin:
    """One HTTP server. ``ready()`` returns the reasons why the service is not ready; none means that it is."""

    def __init__(
        self,
        *,
        metrics: Metrics,
        ready: Callable[[], list[str]],
        token: str = "",
        capture: CaptureHub | None = None,
    ) -> None:
        self._metrics: Final = metrics
        self._ready: Final = ready
        self._token: Final = token.encode()
        self._hub: Final = capture or CaptureHub()
        self._log = structlog.get_logger("admin")
        self._closing = False
        self._runner: web.AppRunner | None = None
        # A table of our own, because aiohttp's is frozen at start and services add routes after that.
        self._routes: Final[dict[tuple[str, str], _Web]] = {}
        self._add("GET", "/metrics", self._get_metrics)
        self._add("GET", "/healthz", self._get_health)
        self._add("GET", "/readyz", self._get_ready)
        self._add("GET", "/capture", self._guard(self._get_capture))
        self._app: Final = web.Application(client_max_size=MAX_BODY)
        self._app.router.add_route("*", "/{path:.*}", self._dispatch)

    def get(self, path: str, handler: Callable[[], Any], *, guarded: bool = False) -> None:
        """Serve ``handler()`` as JSON (a coroutine function is awaited); ``guarded``: it shows payloads, so it wants
        the token as captures do. Raises LocalError if the path is taken."""

        async def answer(_request: web.Request) -> web.StreamResponse:
            return _json(await _result(handler()))

        self._add("GET", path, self._guard(answer) if guarded else answer)

    def post(self, path: str, handler: Handler, body: type[Any] = dict) -> None:
        """Serve ``handler(value)`` as JSON, ``value`` being the request's JSON body decoded as ``body`` (a msgspec
        struct names each field's type; no body counts as ``{}``).

        A RemoteError of the handler becomes status 400, BackpressureError 429, another LocalError 409. Raises
        LocalError if the path is taken.
        """
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(body)

        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                value = decoder.decode(await request.read() or b"{}")
            except msgspec.MsgspecError as error:
                field, reason = explain(str(error))
                raise BadRequestError(field or "body", None, None, with_choices(reason, body, field)) from None
            return _json(await _result(handler(value)))

        self._add("POST", path, self._guard(answer))

    @property
    def port(self) -> int:
        """The port that is served. Raises LocalError before start."""
        if self._runner is None or not self._runner.addresses:
            raise LocalError("the admin endpoint has not started")
        port: int = self._runner.addresses[0][1]
        return port

    async def start(self, host: str, port: int) -> None:
        """Serve. Raises ConfigError if the address cannot be had."""
        self._runner = web.AppRunner(self._app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._runner.cleanup()
            self._runner = None
            raise ConfigError("admin", "admin.port", f"cannot listen on {host}:{port}: {error}") from error

    async def close(self) -> None:
        """End running captures and stop serving."""
        self._closing = True
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _add(self, method: str, path: str, answer: _Web) -> None:
        if (method, path) in self._routes:
            raise LocalError(f"{method} {path} is already served")
        self._routes[method, path] = self._explain(answer)

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        method = "GET" if request.method == "HEAD" else request.method
        answer = self._routes.get((method, request.path))
        if answer is not None:
            return await answer(request)
        if any(path == request.path for _, path in self._routes):
            return _error(405, "method", f"{request.path} does not take {request.method}")
        return _error(404, "path", f"there is no {request.path}")

    # --- answers ------------------------------------------------------------------------------------------------

    async def _get_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def _get_health(self, _request: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def _get_ready(self, _request: web.Request) -> web.Response:
        reasons = self._ready()
        return _json({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def _get_capture(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        for name in query:
            if name not in ("link", "direction", "seconds"):
                raise BadRequestError(name, None, None, "no such parameter")
        direction = query.get("direction", "")
        if direction and direction not in DIRECTIONS:
            raise BadRequestError("direction", direction, "in, out")
        seconds = _seconds(query.get("seconds", "10"))
        recorder = self._hub.open(query.get("link", ""), direction)
        try:
            response = web.StreamResponse(headers={"Content-Type": "application/msgpack"})
            await response.prepare(request)
            end = monotonic() + seconds
            while (left := end - monotonic()) > 0 and not self._closing:
                chunk = await recorder.chunk(min(left, 0.25))
                if chunk:
                    await response.write(chunk)
                elif request.transport is None or request.transport.is_closing():
                    break
            await response.write_eof()
        except ConnectionError:
            pass  # the recorder at the other end has gone: that is how captures usually end
        finally:
            recorder.close()
        return response

    def _guard(self, answer: _Web) -> _Web:
        """Want the token where one is set; where none is set, keep web pages of other origins out."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            if self._token:
                given = request.headers.get("Authorization", "").removeprefix("Bearer ").encode()
                if not hmac.compare_digest(self._token, given):
                    return _error(401, "authorization", "a Bearer token is required")
            elif "Origin" in request.headers:
                return _error(403, "origin", "requests from web pages need a token")
            return await answer(request)

        return guarded

    def _explain(self, answer: _Web) -> _Web:
        """Turn the errors of the tree into answers."""

        async def explained(request: web.Request) -> web.StreamResponse:
            try:
                return await answer(request)
            except RemoteError as error:
                return _error(400, error.field, str(error))
            except BackpressureError as error:
                return _error(429, "", str(error))
            except LocalError as error:
                return _error(409, "", str(error))
            except web.HTTPException as error:
                return _error(error.status, "body" if error.status == 413 else "", error.reason)
            except Exception:
                self._log.exception("request failed", path=request.path)
                return _error(500, "", "the service failed on this request")

        return explained


async def _result(value: Any) -> Any:
    return await value if asyncio.iscoroutine(value) else value


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=_to_json(value), status=status, content_type="application/json")


def _error(status: int, field: str, text: str) -> web.Response:
    return _json({"error": text, "field": field}, status)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise BadRequestError("seconds", text[:32], None, "not a number") from None
    if not 0 < seconds <= MAX_CAPTURE_SECONDS:
        raise BadRequestError("seconds", text[:32], MAX_CAPTURE_SECONDS)
    return seconds
