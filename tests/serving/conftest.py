"""A server on loopback in a thread of its own, and the plainest of clients."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from lbkit.core.geometry import ImageSize
from lbkit.runtime.ort_backend import OrtBackend
from lbkit.serving.limits import ServingLimits
from lbkit.serving.server import ModelServer, open_socket
from lbkit.serving.service import KeypointService

SPOTS = np.array([[150.0, 120], [80, 124], [155, 180], [78, 186], [148, 240], [84, 236]])
SIZE = ImageSize(300, 220)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        assert list(self.json) == ["error"]
        return str(self.json["error"])


@dataclass(frozen=True)
class Running:
    """A server that listens."""

    service: KeypointService
    server: ModelServer
    port: int
    thread: threading.Thread

    def connect(self, timeout: float = 20) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return self.ask("POST", path, body, {key.replace("_", "-"): value for key, value in headers.items()})

    def raw(self, data: bytes) -> bytes:
        """Send bytes as they are and return all that comes until the server closes."""
        with self.connect() as connection:
            connection.sendall(data)
            return self.read_to_end(connection)

    @staticmethod
    def read_to_end(connection: socket.socket) -> bytes:
        data = b""
        while chunk := connection.recv(65536):
            data += chunk
        return data

    @property
    def is_well(self) -> bool:
        return self.get("/v2/health/ready").status == 200

    def end(self) -> None:
        self.server.end()
        self.thread.join(20)
        assert not self.thread.is_alive()


Start = Callable[..., Any]


@contextmanager
def running(backend: Any, *, token: str | None = None, **limits: Any) -> Iterator[Running]:
    service = KeypointService(backend, name="toy", limits=ServingLimits(**limits))
    listener = open_socket("127.0.0.1", 0)
    is_up = threading.Event()
    server = ModelServer(service, listener, token=token, on_ready=is_up.set)
    thread = threading.Thread(target=server.run)
    thread.start()
    assert is_up.wait(20)
    run = Running(service, server, listener.getsockname()[1], thread)
    try:
        yield run
    finally:
        run.end()


@pytest.fixture(scope="session")
def start() -> Start:
    """Give a context manager that starts a server: backend, token=..., and limits by name."""
    return running


@pytest.fixture(scope="session")
def backend(toy_model: Path) -> OrtBackend:
    return OrtBackend(toy_model, threads=1)


@pytest.fixture(scope="package")
def live(backend: OrtBackend) -> Iterator[Running]:
    """A server with small limits that tests share; none of them may leave it broken."""
    limits = {"max_body_bytes": 2 * 2**20, "max_pixels": 2_000_000, "max_people": 20, "transfer_timeout_s": 2.0}
    with running(backend, **limits) as run:
        yield run
        assert run.is_well
        assert run.service.batcher.open_requests == 0


@pytest.fixture(scope="session")
def spotted(toys: ModuleType) -> NDArray[np.uint8]:
    """A picture whose joints are known."""
    return toys.spotted_image(SIZE, SPOTS, spread_px=4.0)


@pytest.fixture(scope="session")
def png(spotted: NDArray[np.uint8]) -> bytes:
    """The same as a file."""
    return cv2.imencode(".png", spotted[..., ::-1])[1].tobytes()
