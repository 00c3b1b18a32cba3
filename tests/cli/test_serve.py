"""`lbkit serve` as a process: how it starts, what it says, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from lbkit.cli.main import run
from lbkit.cli.serve import _limits, serve
from lbkit.core.estimator import STREAM_BATCH_SIZE
from lbkit.core.geometry import ImageSize
from lbkit.serving.limits import ServingLimits

MAIN = "from lbkit.cli.main import main; main()"
# Nothing of the training stack may be needed.
WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "onnx", "pycocotools", "matplotlib"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""


@contextmanager
def serving(*arguments: object, **environment: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start the command and give it with its port once it says that it serves."""
    command = [sys.executable, "-c", WITHOUT_TORCH + MAIN, "serve", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)
    assert process.stderr is not None
    try:
        port = 0
        for line in process.stderr:
            if found := re.match(r"serving \S+ on http://\S+:(\d+) ", line):
                port = int(found.group(1))
                break
        assert port, process.wait(10)
        yield process, port
    finally:
        process.kill()
        process.wait(10)
        process.stderr.close()


@pytest.fixture
def picture(toys: ModuleType) -> bytes:
    spots = np.array([[60.0, 50], [110, 60], [65, 110], [105, 120], [55, 170], [115, 180]])
    image = toys.spotted_image(ImageSize(240, 170), spots, spread_px=4.0)
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def post(port: int, body: bytes, token: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection.request("POST", "/v1/keypoints", body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serves_without_the_training_stack_and_ends_in_order(
    toy_model: Path, picture: bytes, number: signal.Signals
) -> None:
    with serving(toy_model) as (process, port):
        status, body = post(port, picture)
        assert status == 200
        assert len(json.loads(body)["people"]) == 1
        answers: list[int] = []
        clients = [threading.Thread(target=lambda: answers.append(post(port, picture)[0])) for _ in range(8)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(30)
        process.send_signal(number)
        assert process.wait(20) == 0
        assert answers == [200] * 8


def test_the_end_comes_with_requests_in_flight(picture: bytes) -> None:
    """Whatever was taken in is answered; whoever comes later is refused or finds nobody."""
    with serving("cnn", "--batch-size", 1, "--threads", 1) as (process, port):
        answers: list[int] = []
        lock = threading.Lock()

        def ask() -> None:
            try:
                status = post(port, picture)[0]
            except OSError:
                status = 0
            with lock:
                answers.append(status)

        clients = [threading.Thread(target=ask) for _ in range(24)]
        for client in clients[:16]:
            client.start()
        while not answers:
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        for client in clients[16:]:
            client.start()
        for client in clients:
            client.join(30)
        assert process.wait(20) == 0
    assert len(answers) == 24
    assert set(answers) <= {200, 503, 0}
    assert answers.count(200) >= 1
    assert answers.count(0) <= 8  # those that came when nobody listened any more


def test_a_token_from_the_environment(toy_model: Path, picture: bytes) -> None:
    token = "0123456789abcdef-token"
    with serving(toy_model, LBKIT_TOKEN=token) as (_, port):
        assert post(port, picture)[0] == 401
        assert post(port, picture, token)[0] == 200


def test_a_warning_where_anybody_can_come(toy_model: Path) -> None:
    command = [sys.executable, "-c", MAIN, "serve", str(toy_model), "--host", "0.0.0.0", "--port", "0"]
    environment = {key: value for key, value in os.environ.items() if key != "LBKIT_TOKEN"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("warning: anybody who reaches this machine can use the server")
        assert process.stderr.readline().startswith("serving toy on http://0.0.0.0:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing-of-that-name"], 1, "no model 'nothing-of-that-name'"),
        (["{toy}", "--token-file", "gone"], 1, "gone: cannot be read"),
        (["{toy}", "--port", "70000"], 2, "70000"),
        (["{toy}", "--max-body", "0"], 2, "x>0"),
        (["{toy}", "--max-body", "nan"], 2, "nan is no number that can be kept to"),
        (["{toy}", "--max-megapixels", "inf"], 2, "inf is no number that can be kept to"),
        (["{toy}", "--timeout", "nan"], 1, "work_timeout_s should be a number"),
        (["{toy}", "--host", "no.such.host.invalid"], 1, "no.such.host.invalid: cannot listen on port"),
        (["{toy}", "--provider", "cdua"], 2, "Did you mean 'cuda'?"),
    ],
)
def test_what_cannot_be_served(
    toy_model: Path, capsys, monkeypatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.delenv("LBKIT_TOKEN", raising=False)
    assert run(["serve", *(argument.replace("{toy}", str(toy_model)) for argument in arguments)]) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "python_multipart", "prometheus_client"])
def test_a_missing_package_names_the_extra(package: str) -> None:
    block = WITHOUT_TORCH.replace('"torch"', f'"torch", "{package}"')
    command = [sys.executable, "-c", block + MAIN, "serve", "cnn", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"needs {package}" in done.stderr
    assert 'pip install "lbkit[serve]"' in done.stderr


def test_the_options_defaults_are_the_librarys() -> None:
    chosen = {param.name: param.default for param in serve.params}
    assert _limits(chosen, streams=1) == ServingLimits()
    assert _limits(chosen, streams=2).batch_size == STREAM_BATCH_SIZE


def test_there_is_no_option_for_the_token_itself() -> None:
    assert [name for param in serve.params for name in param.opts if "token" in name] == ["--token-file"]
