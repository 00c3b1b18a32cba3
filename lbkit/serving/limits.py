"""What a server takes at most, and how long it waits."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from lbkit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ServingLimits:
    """Bounds that keep any request, and all of them together, from taking the server down.

    Attributes:
        batch_size: People that run through the model at once, from any number of requests.
        max_delay_s: How long a batch may wait for more people while other requests are on their way.
        max_queue: Requests admitted and not yet answered; one more is refused.
        max_people: People in one request.
        max_body_bytes: Length of one request's body.
        max_pixels: Pixels of one picture, by its header.
        max_held_bytes: Bodies that lie in memory at once; likewise decoded pictures, what decoding them takes, and
            tensors that clients have yet to take; one of each is always allowed.
        max_connections: Open connections.
        transfer_timeout_s: How long a client may take to send a request's head, to send its body, and to take the
            answer.
        work_timeout_s: How long a request may wait and be worked on, from its last byte to its answer.
        shutdown_timeout_s: How long requests in flight may take once the server is told to end.
    """

    batch_size: int = 8
    max_delay_s: float = 0.002
    max_queue: int = 64
    max_people: int = 100
    max_body_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000
    max_held_bytes: int = 512 * 2**20
    max_connections: int = 512
    transfer_timeout_s: float = 30.0
    work_timeout_s: float = 30.0
    shutdown_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "max_delay_s" else 1 if isinstance(value, int) else 0.001
            if not (math.isfinite(value) and value >= least):
                raise ConfigError(f"{field.name} should be a number of at least {least}, got {value}")
