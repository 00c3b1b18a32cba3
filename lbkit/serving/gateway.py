"""What every request passes before and after its route: the token, the count, and a clean end where it is refused."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lbkit.serving.metrics import ServingMetrics
from lbkit.serving.refusals import RequestRefusedError

OPEN_PREFIX = "/v2/health/"
"""Probes come without a token and learn nothing but that the server lives."""

DISCARD_S = 2.0
"""How long the rest of a refused request's body is read, so that its client comes to reading the answer."""

DISCARD_BYTES = 256 * 2**20
REQUEST_TIMEOUT = 408
OTHER = "other"
"""What requests to no known address are counted under."""


class Gateway:
    """Wraps an application: refuses requests without the token, counts all, and closes refused connections.

    Args:
        app: The application.
        metrics: Where requests are counted.
        token: What a client must show as its bearer token; None asks for none.
    """

    def __init__(self, app: ASGIApp, *, metrics: ServingMetrics, token: str | None) -> None:
        self._app = app
        self._metrics = metrics
        self._expected = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        exchange = _Exchange(scope, receive, send)
        try:
            if self._is_allowed(scope):
                await self._app(scope, exchange.receive, exchange.send)
            else:
                await error_response(_unauthorized())(scope, exchange.receive, exchange.send)
        finally:
            endpoint = getattr(scope.get("route"), "path", OTHER)
            self._metrics.count_request(endpoint, status=exchange.status, seconds=time.perf_counter() - start)

    def _is_allowed(self, scope: Scope) -> bool:
        if self._expected is None or scope["path"].startswith(OPEN_PREFIX):
            return True
        shown = Headers(scope=scope).get("authorization", "").encode("latin-1")
        return hmac.compare_digest(shown, self._expected)


def error_response(error: RequestRefusedError) -> Response:
    """Return a refusal as the protocol's error object."""
    return json_response({"error": str(error)}, status=error.status, headers=error.headers)


def json_response(content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON answer."""
    return Response(json.dumps(content), status_code=status, headers=headers, media_type="application/json")


def _unauthorized() -> RequestRefusedError:
    return RequestRefusedError(
        "this server asks for a token",
        status=401,
        remedy="send the header `Authorization: Bearer TOKEN`",
        headers={"WWW-Authenticate": "Bearer"},
    )


class _Exchange:
    """One request and its answer, watched: how much of the body has come, and with which status it ended."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._is_received = False
        self.status = 0

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._is_received = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if not self._is_received and self.status >= 400 and self.status != REQUEST_TIMEOUT:
                await self._discard_body()
            if self.status >= 400:
                MutableHeaders(scope=message)["connection"] = "close"
        await self._send(message)

    async def _discard_body(self) -> None:
        """Read on for a while: a connection closed on unread data is reset, and the client never sees why."""
        headers = Headers(scope=self._scope)
        if "expect" in headers or not ("content-length" in headers or "transfer-encoding" in headers):
            return
        left = DISCARD_BYTES
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_S):
                while not self._is_received and left > 0:
                    left -= len((await self.receive()).get("body", b""))
