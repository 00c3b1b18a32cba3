"""`lbkit serve`: a model behind HTTP."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lbkit.cli.options import (
    DEFAULT_MODEL,
    batch_size_option,
    decoder_option,
    is_quiet,
    provider_option,
    streams_option,
    threads_option,
)

if TYPE_CHECKING:
    import socket

    from lbkit.serving.limits import ServingLimits
    from lbkit.serving.service import KeypointService

logger = logging.getLogger(__name__)


class _PositiveNumber(click.FloatRange):
    """A number above zero that is finite, because bytes and pixels are counted up to it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail: click lets nan and inf through every range."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} is no number that can be kept to.", param, ctx)
        return number


_Positive = click.FloatRange(min=0, min_open=True)
_Size = _PositiveNumber(min=0, min_open=True)


@click.command()
@click.argument("model", metavar="[MODEL]", default=DEFAULT_MODEL)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is every one.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0 takes a free one."
)
@provider_option
@decoder_option
@batch_size_option
@threads_option
@streams_option
@click.option(
    "--max-delay",
    type=click.FloatRange(min=0),
    default=2.0,
    show_default=True,
    metavar="MS",
    help="How long a batch waits for more people while other requests are on their way.",
)
@click.option(
    "--max-queue",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    metavar="N",
    help="Requests under way at once; one more gets 503.",
)
@click.option(
    "--max-people",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="People in one request.",
)
@click.option(
    "--max-body", type=_Size, default=20.0, show_default=True, metavar="MIB", help="Length of a request's body."
)
@click.option("--max-megapixels", type=_Size, default=50.0, show_default=True, metavar="MP", help="Size of a picture.")
@click.option(
    "--transfer-timeout",
    type=_Positive,
    default=30.0,
    show_default=True,
    metavar="S",
    help="How long a client may take to send its request, and to take the answer.",
)
@click.option(
    "--timeout", type=_Positive, default=30.0, show_default=True, metavar="S", help="How long an answer may take."
)
@click.option(
    "--shutdown-timeout",
    type=_Positive,
    default=30.0,
    show_default=True,
    metavar="S",
    help="How long requests under way may take once the server is told to end.",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File of the token that clients must show.  [default: LBKIT_TOKEN, else none]",
)
def serve(*, model: str, host: str, port: int, token_file: Path | None, **chosen: Any) -> None:
    """Serve a model over HTTP: the Open Inference Protocol, and joints for pictures.

    MODEL is a shipped model's name or an ONNX file exported by lbkit. SIGTERM or Ctrl-C lets requests under way finish
    and takes no more.

    POST /v1/keypoints takes a picture as its body, or as the file `image` of a form, and answers what `lbkit infer`
    writes. /v2 is the Open Inference Protocol (KServe V2), /metrics is for Prometheus.
    """
    from lbkit.cli.report import native_stderr_silenced
    from lbkit.serving.server import ModelServer, open_socket
    from lbkit.serving.tokens import read_token

    token = read_token(token_file)
    service = _service(model, chosen)
    with open_socket(host, port) as listener:
        _warn_if_open(listener, token)
        server = ModelServer(service, listener, token=token, on_ready=lambda: _tell(service, listener, token))
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # a client's malformed form is no news here
        with native_stderr_silenced():
            server.run()


def _service(model: str, chosen: dict[str, Any]) -> KeypointService:
    from lbkit.runtime.backends import load_backend
    from lbkit.runtime.loading import find_model
    from lbkit.serving.service import KeypointService

    path = find_model(model)
    placed = {name: chosen[name] for name in ("provider", "threads", "streams")}
    backend = load_backend(path, **placed)
    limits = _limits(chosen, streams=backend.streams)
    return KeypointService(backend, name=path.stem, decoder=chosen["decoder"], limits=limits)


def _limits(chosen: dict[str, Any], *, streams: int) -> ServingLimits:
    from lbkit.core.estimator import default_batch_size
    from lbkit.serving.limits import ServingLimits

    return ServingLimits(
        batch_size=chosen["batch_size"] or default_batch_size(streams),
        max_delay_s=chosen["max_delay"] / 1000,
        max_queue=chosen["max_queue"],
        max_people=chosen["max_people"],
        max_body_bytes=max(1, round(chosen["max_body"] * 2**20)),
        max_pixels=max(1, round(chosen["max_megapixels"] * 10**6)),
        transfer_timeout_s=chosen["transfer_timeout"],
        work_timeout_s=chosen["timeout"],
        shutdown_timeout_s=chosen["shutdown_timeout"],
    )


def _warn_if_open(listener: socket.socket, token: str | None) -> None:
    from lbkit.serving.server import is_loopback

    if token is None and not is_loopback(listener):
        logger.warning(
            "anybody who reaches this machine can use the server; set LBKIT_TOKEN or --token-file, "
            "and put TLS in front of it"
        )


def _tell(service: KeypointService, listener: socket.socket, token: str | None) -> None:
    from lbkit.serving.server import address_of

    if is_quiet():
        return
    address = address_of(listener)
    header = "" if token is None else ' -H "Authorization: Bearer $LBKIT_TOKEN"'
    click.echo(f"serving {service.name} on {address} (Ctrl-C ends it)", err=True)
    click.echo(f"next: curl{header} --data-binary @photo.jpg {address}/v1/keypoints", err=True)
