"""How many runs of a model go side by side on one machine."""

from __future__ import annotations

from lbkit.errors import ConfigError
from lbkit.runtime.providers import ProviderName

MAX_STREAMS = 16
"""Beyond it Python's own part of the work, one thread at a time, would hold the streams up."""

SIDE_BY_SIDE: tuple[ProviderName, ...] = ("cpu", "openvino", "openvino-bf16")
"""Providers that run in this process's threads; the others have a device of their own, which one run fills."""


def checked_streams(streams: int | None, *, provider: str, threads: int) -> int:
    """Return how many runs of a model go side by side.

    Threads inside one run wait for one another after every layer, and so for whatever else has the processor; a run a
    thread never waits. Over the photographs of the val2017 subset on two processors, reading and warping beside the
    model, two streams did 1.25 (fpn-int8) and 1.14 times (cnn-int8) the people a second of one run of two threads
    (AMD EPYC with AVX-512 VNNI, 2026-11-21); the model alone, with nothing beside it, gained little or nothing.

    Args:
        streams: As asked for; None for the most people a second: on a CPU a thread each, at most `MAX_STREAMS`, and
            one elsewhere.
        provider: Where the model runs.
        threads: What all streams share.

    Raises:
        ConfigError: There are more streams than threads, fewer than one, or several where the provider takes one.
    """
    most = threads if provider in SIDE_BY_SIDE else 1
    if streams is None:
        return min(most, MAX_STREAMS)
    if not 1 <= streams <= most:
        limit = f"at most {most}, the threads" if provider in SIDE_BY_SIDE else f"1 on {provider}"
        raise ConfigError(f"streams must be at least 1 and {limit}, got {streams}", remedy="leave it out")
    return streams
