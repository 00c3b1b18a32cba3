"""The server's addresses: the Open Inference Protocol under /v2, pictures under /v1, counters under /metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp

from lbkit._version import __version__
from lbkit.errors import InputError, LbkitError
from lbkit.serving.answers import HeldAnswers
from lbkit.serving.batching import Ticket
from lbkit.serving.gateway import Gateway, error_response, json_response
from lbkit.serving.protocol import HEADER_LENGTH_FIELD, model_metadata, server_metadata
from lbkit.serving.refusals import RequestRefusedError, bad_request, unavailable
from lbkit.serving.service import KeypointService
from lbkit.serving.uploads import PARAMETERS, BodyReader, check_parameters, read_upload

logger = logging.getLogger(__name__)

AnswerT = TypeVar("AnswerT")

CLIENT_GONE = 499
"""What nginx counts a request as whose client did not wait; nobody sees it but the counters."""

NOT_READY = 400
"""The protocol asks for a 4xx status where the answer to a health request is no."""


def make_app(service: KeypointService, *, token: str | None = None) -> ASGIApp:
    """Return the server's application.

    Args:
        service: The model.
        token: What clients must show as their bearer token; None asks for none.
    """
    app = FastAPI(title="lbkit", version=__version__, docs_url=None, redoc_url=None)
    _add_error_handlers(app)
    _add_health(app, service)
    _add_metadata(app, service)
    _add_work(app, service)
    return Gateway(app, metrics=service.metrics, token=token)


def _add_health(app: FastAPI, service: KeypointService) -> None:
    @app.get("/v2/health/live")
    async def live() -> Response:
        """Tell that the server answers at all."""
        return Response()

    @app.get("/v2/health/ready")
    async def ready() -> Response:
        """Tell whether requests are taken."""
        return Response(status_code=200 if service.batcher.is_ready else NOT_READY)

    @app.get("/v2/models/{name}/ready")
    async def model_ready(name: str) -> Response:
        """Tell whether requests to the model are taken."""
        _check_name(name, service)
        return Response(status_code=200 if service.batcher.is_ready else NOT_READY)


def _add_metadata(app: FastAPI, service: KeypointService) -> None:
    @app.get("/v2")
    async def server() -> Response:
        """Describe the server."""
        return json_response(server_metadata())

    @app.get("/v2/models/{name}")
    async def model(name: str) -> Response:
        """Describe the model's tensors."""
        _check_name(name, service)
        return json_response(model_metadata(service.name, service.contract))

    @app.get("/v1/contract")
    async def contract() -> Response:
        """Return the model's contract: joints, crop, normalisation, decoder."""
        return Response(service.contract.to_json(), media_type="application/json")

    @app.get("/metrics")
    async def metrics() -> Response:
        """Return the counters for Prometheus."""
        return Response(service.metrics.text(), media_type=service.metrics.content_type)


def _add_work(app: FastAPI, service: KeypointService) -> None:
    bodies, answers = BodyReader(service.limits), HeldAnswers(service.limits.max_held_bytes)

    @app.post("/v1/keypoints")
    async def keypoints(request: Request) -> Response:
        """Find the joints of the people on a picture."""
        check_parameters(request, PARAMETERS)
        _check_room(service)
        async with bodies.read(request) as body:
            upload = await read_upload(request, body, limits=service.limits)
            line = await _answer(
                request,
                service,
                lambda ticket: service.find_keypoints(upload.data, ticket, name=upload.name, boxes=upload.boxes),
            )
        return Response(line, media_type="application/json")

    @app.post("/v2/models/{name}/infer")
    async def infer(name: str, request: Request) -> Response:
        """Run the model on tensors."""
        _check_name(name, service)
        check_parameters(request, ())
        _check_room(service)
        header_length = _header_length(request)
        async with bodies.read(request) as body:
            content, json_length = await _answer(
                request, service, lambda ticket: service.infer(body, ticket, header_length=header_length)
            )
        if json_length is None:
            return answers.response(content, media_type="application/json")
        headers = {HEADER_LENGTH_FIELD: str(json_length)}
        return answers.response(content, media_type="application/octet-stream", headers=headers)


async def _answer(request: Request, service: KeypointService, work: Callable[[Ticket], AnswerT]) -> AnswerT:
    """Have a request worked on for as long as its client waits and its time allows."""
    ticket, future = service.submit(work)
    waiting = asyncio.ensure_future(asyncio.wrap_future(future))
    gone = asyncio.create_task(_wait_until_gone(request))
    try:
        seconds = service.limits.work_timeout_s
        watched: set[asyncio.Future[Any]] = {waiting, gone}
        await asyncio.wait(watched, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        if gone.done():
            raise ClientDisconnect
        raise unavailable(f"not answered within {seconds:g} s")
    finally:
        ticket.cancel()
        waiting.cancel()
        gone.cancel()


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _check_name(name: str, service: KeypointService) -> None:
    if name != service.name:
        raise RequestRefusedError(f"there is no model {name[:80]!r}", status=404, remedy=f"there is {service.name}")


def _check_room(service: KeypointService) -> None:
    """Refuse a request before its body is read where it would be refused afterwards."""
    if service.batcher.is_full:
        raise unavailable("too many requests are waiting already")


def _header_length(request: Request) -> int | None:
    text = request.headers.get(HEADER_LENGTH_FIELD)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise bad_request(f"{HEADER_LENGTH_FIELD} should be a number of bytes, got {text[:40]!r}")
    return int(text)


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(LbkitError)
    async def lbkit_error(request: Request, error: LbkitError) -> Response:  # noqa: ARG001
        if isinstance(error, RequestRefusedError):
            return error_response(error)
        if isinstance(error, InputError):
            return json_response({"error": str(error)}, status=400)
        logger.error("%s", error)
        return json_response({"error": str(error)}, status=500)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:  # noqa: ARG001
        headers = dict(error.headers or {})
        return json_response({"error": str(error.detail)}, status=error.status_code, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def wrong_parameter(request: Request, error: RequestValidationError) -> Response:  # noqa: ARG001
        return json_response({"error": str(error)}, status=400)

    @app.exception_handler(ClientDisconnect)
    async def client_gone(request: Request, error: ClientDisconnect) -> Response:  # noqa: ARG001
        return Response(status_code=CLIENT_GONE)

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:  # noqa: ARG001
        return json_response({"error": "the server has a fault; its log says which"}, status=500)
