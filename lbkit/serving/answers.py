"""Answers on their way out, bounded in how much of them may lie in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lbkit.serving.refusals import unavailable

PIECE_BYTES = 2**16
"""What is handed to the connection at once: it takes no more where the client is behind (uvicorn's high-water mark)."""


class HeldAnswers:
    """Counts the answers that clients have not taken yet; to be used in one event loop.

    Without it clients that ask for megabytes and never read would fill the memory, one connection each.

    Args:
        limit_bytes: What may lie in memory together; a single answer may be larger.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0

    def response(self, content: bytes, **chosen: Any) -> Response:
        """Return an answer that counts until it is sent.

        Args:
            content: Its body.
            chosen: Other arguments of a `Response`.

        Raises:
            RequestRefusedError: Too many answers wait already.
        """
        if self._held_bytes and self._held_bytes + len(content) > self._limit_bytes:
            raise unavailable("too many answers wait for their clients")
        self._held_bytes += len(content)
        return _HeldResponse(content, on_sent=lambda: self._release(len(content)), **chosen)

    def _release(self, size_bytes: int) -> None:
        self._held_bytes -= size_bytes


class _HeldResponse(Response):
    def __init__(self, content: bytes, *, on_sent: Callable[[], None], **chosen: Any) -> None:
        super().__init__(content, **chosen)
        self._on_sent = on_sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send it piece by piece, each when the connection has room."""
        body = memoryview(self.body)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for start in range(0, len(body), PIECE_BYTES):
                piece = bytes(body[start : start + PIECE_BYTES])
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._on_sent()
