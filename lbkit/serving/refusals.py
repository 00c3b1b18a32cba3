"""Requests that are not answered, each with its HTTP status."""

from __future__ import annotations

from collections.abc import Mapping

from lbkit.errors import ServingError

RETRY_AFTER_S = 1


class RequestRefusedError(ServingError):
    """A request that is answered with an error.

    Args:
        problem: What is wrong.
        status: The HTTP status.
        remedy: What the client can do.
        headers: Further headers of the answer.
    """

    def __init__(
        self, problem: str, *, status: int, remedy: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.headers = dict(headers or {})
        super().__init__(problem, remedy=remedy)


def bad_request(problem: str, *, remedy: str | None = None) -> RequestRefusedError:
    """Return the refusal of a request that is wrong in itself: 400."""
    return RequestRefusedError(problem, status=400, remedy=remedy)


def too_large(problem: str, *, remedy: str | None = None) -> RequestRefusedError:
    """Return the refusal of a request that is larger than the server takes: 413."""
    return RequestRefusedError(problem, status=413, remedy=remedy)


def unavailable(problem: str) -> RequestRefusedError:
    """Return the refusal of a request that may well be answered later: 503 with Retry-After."""
    return RequestRefusedError(
        problem, status=503, remedy="try again later", headers={"Retry-After": str(RETRY_AFTER_S)}
    )
