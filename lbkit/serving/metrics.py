"""What a server counts, in a Prometheus registry of its own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class ServingMetrics:
    """Counters of one server.

    Args:
        open_requests: Tells how many requests are admitted and not yet answered.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, open_requests: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "lbkit_requests", "Requests answered.", ["endpoint", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "lbkit_request_seconds",
            "From a request's head to its answer.",
            ["endpoint"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram("lbkit_batch_people", "People a run.", buckets=ROWS, registry=self._registry)
        self._model = Histogram(
            "lbkit_model_seconds", "Seconds a run of the model.", buckets=SECONDS, registry=self._registry
        )
        queue = Gauge("lbkit_open_requests", "Requests admitted and not yet answered.", registry=self._registry)
        queue.set_function(open_requests)

    def count_request(self, endpoint: str, *, status: int, seconds: float) -> None:
        """Count an answered request.

        Args:
            endpoint: The route's pattern, never a path as the client wrote it.
            status: The HTTP status.
            seconds: How long it took.
        """
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def count_batch(self, rows: int, seconds: float) -> None:
        """Count a run of the model on so many people."""
        self._batches.observe(rows)
        self._model.observe(seconds)

    def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self._registry)
