"""What comes in over HTTP: addresses, bodies within their bounds, and the picture and boxes in them."""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import python_multipart  # noqa: F401  # starlette needs it, and says so only when the first form comes
from fastapi import Request
from starlette.formparsers import MultiPartException, MultiPartParser

from lbkit.core.geometry import FloatArray
from lbkit.serving.limits import ServingLimits
from lbkit.serving.refusals import RequestRefusedError, bad_request, too_large, unavailable
from lbkit.serving.service import BoxChoice

IMAGE_FIELD, BOXES_FIELD, NAME_FIELD = "image", "boxes", "name"
PARAMETERS = (BOXES_FIELD, NAME_FIELD)
"""What an address with a picture may have behind its question mark."""

DEFAULT_NAME = "image"
MAX_NAME_CHARACTERS = 1024

FORM_COPIES = 3
"""Of a form there lie in memory the body, the file that is cut out of it, and for a moment the file as it was read."""


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """A picture as a client sent it.

    Attributes:
        data: The picture file, not yet looked into.
        name: What the client calls it.
        boxes: Where people are on it.
    """

    data: bytes
    name: str
    boxes: BoxChoice


class BodyReader:
    """Reads requests' bodies within the server's limits; to be used in one event loop.

    Args:
        limits: Length of a body, of all bodies together, and the time to send one.
    """

    def __init__(self, limits: ServingLimits) -> None:
        self._limits = limits
        self._held_bytes = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """Give a request's whole body; it counts as held until the block ends.

        Raises:
            RequestRefusedError: It is too long or too slow, compressed, or too much lies in memory already.
        """
        self._check_head(request)
        chunks: list[bytes] = []
        copies = FORM_COPIES if _is_form(request) else 1
        received = 0
        try:
            async with asyncio.timeout(self._limits.transfer_timeout_s):
                async for chunk in request.stream():
                    received += len(chunk)
                    self._held_bytes += copies * len(chunk)
                    self._check_length(received)
                    chunks.append(chunk)
            body = b"".join(chunks)
            chunks.clear()
            yield body
        except TimeoutError as error:
            seconds = self._limits.transfer_timeout_s
            raise RequestRefusedError(f"the body did not arrive within {seconds:g} s", status=408) from error
        finally:
            self._held_bytes -= copies * received

    def _check_head(self, request: Request) -> None:
        if request.headers.get("content-encoding", "identity") != "identity":
            raise RequestRefusedError("the body is compressed", status=415, remedy="send it as it is")
        declared = request.headers.get("content-length", "")
        self._check_length(int(declared) if declared.isdecimal() else 0)

    def _check_length(self, length: int) -> None:
        most = self._limits.max_body_bytes
        if length > most:
            raise too_large(f"the body is longer than {most / 2**20:g} MiB", remedy="send less at once")
        if self._held_bytes > self._limits.max_held_bytes:
            raise unavailable("too many requests are being received")


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/")


def check_parameters(request: Request, known: Collection[str]) -> None:
    """Refuse an address with a parameter that would be ignored, or one that comes twice.

    Args:
        request: For its address.
        known: The parameters there are.

    Raises:
        RequestRefusedError: There is another; the message offers the nearest.
    """
    given = [key for key, _ in request.query_params.multi_items()]
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.5)
            there = f"there are {' and '.join(known)}" if known else "this address takes none"
            remedy = f"did you mean {near[0]!r}?" if near else there
            raise bad_request(f"there is no parameter {key[:80]!r}", remedy=remedy)
        if given.count(key) > 1:
            raise bad_request(f"{key} is given twice")


async def read_upload(request: Request, body: bytes, *, limits: ServingLimits) -> Upload:
    """Find the picture and its boxes in a request: a form with the file `image`, or the picture as the body itself.

    Boxes come as the form's field or the address's parameter `boxes`: a JSON list, `whole` or `auto`.

    Args:
        request: For its headers and address.
        body: Its body.
        limits: The most people.

    Raises:
        RequestRefusedError: The form or the boxes are malformed.
    """
    given = [text for key, text in request.query_params.multi_items() if key == BOXES_FIELD]
    name, data = request.query_params.get(NAME_FIELD) or DEFAULT_NAME, body
    if _is_form(request):
        name, data, in_form = await _read_form(request, body)
        given += in_form
    if len(given) > 1:
        raise bad_request("boxes are given twice")
    return Upload(data, name[:MAX_NAME_CHARACTERS], parse_boxes(given[0] if given else "auto", limits=limits))


def parse_boxes(text: str, *, limits: ServingLimits) -> BoxChoice:
    """Read boxes as a client writes them.

    Args:
        text: A JSON list of [left, top, right, bottom], `whole` or `auto`.
        limits: The most people.

    Raises:
        RequestRefusedError: It is none of these, or they are too many.
    """
    if text == "whole" or text == "auto":
        return "whole" if text == "whole" else "auto"
    remedy = "give a JSON list of [left, top, right, bottom], whole or auto"
    try:
        values = json.loads(text)
        boxes = np.asarray(values, dtype=np.float64) if isinstance(values, list) else None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise bad_request(f"boxes cannot be read ({error})", remedy=remedy) from error
    if boxes is None or _has_words(values):
        raise bad_request("boxes are no list of numbers", remedy=remedy)
    if boxes.size > 4 * limits.max_people:
        raise too_large(f"more than {limits.max_people} boxes", remedy="send fewer at once")
    return _as_rows(boxes)


def _as_rows(boxes: FloatArray) -> FloatArray:
    if boxes.size in (0, 4) or (boxes.ndim == 2 and boxes.shape[1] == 4):
        return boxes.reshape(-1, 4)
    raise bad_request(f"boxes should have shape (N, 4), got {boxes.shape}")


def _has_words(value: object) -> bool:
    """Whether a nested list holds something that NumPy would take for a number though it is written as none."""
    if isinstance(value, list):
        return any(_has_words(item) for item in value)
    return isinstance(value, bool) or not isinstance(value, int | float)


class _InMemoryParser(MultiPartParser):
    """A body is bounded before it is parsed, so its file need not go to disk."""

    spool_max_size = 2**40


async def _read_form(request: Request, body: bytes) -> tuple[str, bytes, list[str]]:
    """Return the picture's name and bytes, and the form's boxes."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _InMemoryParser(request.headers, stream(), max_files=1, max_fields=1)
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError, LookupError) as error:
        raise bad_request(f"the form cannot be read ({error})") from error
    file = form.get(IMAGE_FIELD)
    unknown = [key for key in form if key not in (IMAGE_FIELD, BOXES_FIELD)]
    if unknown or file is None or isinstance(file, str):
        raise bad_request(f"the form should hold a file {IMAGE_FIELD} and, if wanted, a field {BOXES_FIELD}")
    boxes = form.get(BOXES_FIELD)
    if boxes is not None and not isinstance(boxes, str):
        raise bad_request(f"{BOXES_FIELD} should be a field of text, not a file")
    return file.filename or DEFAULT_NAME, await file.read(), [] if boxes is None else [boxes]
