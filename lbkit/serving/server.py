"""The listening end: sockets, connections that may not linger, and an orderly end on SIGTERM."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from lbkit.errors import ServingError
from lbkit.serving.app import make_app
from lbkit.serving.limits import ServingLimits
from lbkit.serving.refusals import RETRY_AFTER_S
from lbkit.serving.service import KeypointService

BACKLOG = 128
KEEP_ALIVE_S = 5
LINGER_S = 0.2
"""How long connections are still read from once the server is told to end."""


def open_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Args:
        host: A name or an address.
        port: 0 takes a free one.

    Raises:
        ServingError: The address cannot be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except (OSError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ServingError(
            f"cannot listen on port {port} ({reason})", where=host, remedy="give another --host or --port"
        ) from error


def is_loopback(listener: socket.socket) -> bool:
    """Whether a socket can be reached from this machine alone."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def address_of(listener: socket.socket) -> str:
    """Return a socket's address for a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class ModelServer:
    """A service behind a socket.

    Args:
        service: The model; it is closed at the end.
        listener: Where to listen.
        token: What clients must show as their bearer token; None asks for none.
        on_ready: Called once connections are accepted.
    """

    def __init__(
        self,
        service: KeypointService,
        listener: socket.socket,
        *,
        token: str | None = None,
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        self._service = service
        self._listener = listener
        limits = service.limits
        config = uvicorn.Config(
            make_app(service, token=token),
            http=type("GuardedProtocol", (_GuardedProtocol,), {"limits": limits}),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(limits.shutdown_timeout_s),
        )
        self._server = _UvicornServer(config, self.end, on_ready)

    def run(self) -> None:
        """Serve until `end`, SIGTERM or SIGINT; then finish what is in flight and take no more.

        Raises:
            ServingError: Requests in flight could not be finished in time.
        """
        with self._service:
            self._server.run(sockets=[self._listener])
            unanswered = self._service.batcher.open_requests
        if unanswered:
            raise ServingError(
                f"ended with {unanswered} requests unanswered after {self._service.limits.shutdown_timeout_s:g} s",
                remedy="give a longer --shutdown-timeout",
            )

    def end(self) -> None:
        """End in order, or at once where that was asked for before; from any thread, or a signal's handler."""
        self._service.batcher.refuse_new()
        self._server.force_exit = self._server.should_exit
        self._server.should_exit = True


class _UvicornServer(uvicorn.Server):
    """uvicorn's server, which says when it is up, and for which a signal to end is no failure."""

    def __init__(self, config: uvicorn.Config, end: Callable[[], None], on_ready: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._end = end
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_ready is not None:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests that are here but not yet read be refused in words; uvicorn would reset their connections."""
        for server in self.servers:
            server.close()
        await asyncio.sleep(LINGER_S)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._end()  # and unlike uvicorn's own do not raise the signal again when all is done


class _GuardedProtocol(H11Protocol):
    """uvicorn's protocol with bounds that it lacks.

    uvicorn waits without end for a request's head, and for a client to take its answer; and what it answers by itself
    is plain text.
    """

    limits: ServingLimits
    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio leaves this out for a listener whose protocol number is 0; an answer's second packet would then wait
        # for the client's delayed acknowledgement, 40 ms on Linux.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self.limits.max_connections:
            transport.write(_plain_answer(503, "too many connections; try again later"))
            transport.close()
        self._set_watch()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before or not self._is_working:
            self._set_watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._set_watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set_watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._watch is not None:
            self._watch.cancel()

    def send_400_response(self, msg: str) -> None:
        self.transport.write(_plain_answer(400, msg))
        self.transport.close()

    @property
    def _is_working(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _set_watch(self) -> None:
        """Time the connection while its client is awaited: a head is to come, or an answer to be taken.

        The time for an answer runs from when the client was first behind with it, however little it takes meanwhile.
        """
        is_awaited = not self._is_working or self.flow.write_paused
        if not is_awaited and self._watch is not None:
            self._watch.cancel()
            self._watch = None
        elif is_awaited and self._watch is None:
            self._watch = self.loop.call_later(self.limits.transfer_timeout_s, self.transport.abort)


def _plain_answer(status: int, problem: str) -> bytes:
    body = json.dumps({"error": problem}).encode()
    reason = {400: "Bad Request", 503: f"Service Unavailable\r\nRetry-After: {RETRY_AFTER_S}"}[status]
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body
