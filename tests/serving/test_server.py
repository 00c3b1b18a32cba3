"""Malformed, huge, slow and concurrent requests, clients that vanish, and the end: the server answers or refuses."""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lbkit.errors import ServingError
from lbkit.runtime.ort_backend import OrtBackend
from lbkit.serving.limits import ServingLimits
from lbkit.serving.server import ModelServer, address_of, is_loopback, open_socket
from lbkit.serving.service import KeypointService

KEYPOINTS = "/v1/keypoints"
INFER = "/v2/models/toy/infer"


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


class Gate:
    """The toy model behind a door."""

    streams = 1

    def __init__(self, backend: OrtBackend) -> None:
        self._backend = backend
        self.contract = backend.contract
        self.door = threading.Event()
        self.door.set()
        self.runs = 0

    def run_input(self, tensor: Any) -> Any:
        assert self.door.wait(20)
        self.runs += 1
        return self._backend.run_input(tensor)

    @contextmanager
    def closed(self) -> Iterator[None]:
        self.door.clear()
        try:
            yield
        finally:
            self.door.set()


@pytest.fixture
def gate(backend: OrtBackend) -> Gate:
    return Gate(backend)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image)[1].tobytes()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: b"", "is empty"),
        (lambda _: b"hello, this is text", "is not a picture"),
        (lambda _: b"%PDF-1.4 and so on and on", "but a PDF"),
        (lambda picture: jpeg(picture)[:-400], "is cut short"),
        (lambda picture: jpeg(picture)[:60], "is cut short"),
        (lambda _: bomb(50_000, 50_000), "is 50000x50000 pixels large, and at most 2 megapixels are read"),
        (lambda _: bomb(2**31 - 1, 2**31 - 1), "at most 2 megapixels"),
        (lambda _: bomb(0, 10), "a size of 0x10 pixels"),
        (lambda _: bomb(1000, 1000), "cannot be decoded"),
        (lambda picture: jpeg(picture[:5, :5]), "too small"),
        (lambda _: jpeg(np.zeros((1500, 1500, 3), np.uint8)), "is 1500x1500 pixels large"),
    ],
)
def test_pictures_that_are_none(live: Any, spotted: np.ndarray, make: Callable[[Any], bytes], message: str) -> None:
    answer = live.post(f"{KEYPOINTS}?name=holiday.jpg", make(spotted))
    assert answer.status == 400
    assert answer.error.startswith("holiday.jpg: ")
    assert message in answer.error


@pytest.mark.parametrize(
    ("boxes", "message", "status"),
    [
        ("[[NaN,0,10,10]]", "not a finite number", 400),
        ("[[0,0,Infinity,10]]", "not a finite number", 400),
        ("[[0,0,1e999,10]]", "not a finite number", 400),
        ("[[10,10,5,5]]", "has no area", 400),
        ("[[5000,5000,6000,6000]]", "lies outside the image", 400),
        ("[[-1e30,0,1e30,10]]", "lies beyond any picture", 400),
        ("[[0,0,9,9],[1,2,3]]", "boxes cannot be read", 400),
        ("[1,2,3]", "should have shape", 400),
        ("[1,2,3,4,5,6,7,8]", "should have shape", 400),
        ("[[[[0,0,9,9]]],[[[0,0,9,9]]]]", "should have shape", 400),
        ('[["0","0","9","9"]]', "no list of numbers", 400),
        ("[[true,true,9,9]]", "no list of numbers", 400),
        ("[[null,0,9,9]]", "no list of numbers", 400),
        ("{}", "no list of numbers", 400),
        ("7", "no list of numbers", 400),
        ("everywhere", "boxes cannot be read", 400),
        ("", "boxes cannot be read", 400),
        ("[" * 3000, "boxes cannot be read", 400),
        (f"[[0,0,{10**400},9]]", "boxes cannot be read", 400),
        (json.dumps([[0, 0, 9, 9]] * 21).replace(" ", ""), "more than 20 boxes", 413),
    ],
)
def test_boxes_that_cannot_be_used(live: Any, png: bytes, boxes: str, message: str, status: int) -> None:
    answer = live.post(f"{KEYPOINTS}?boxes={boxes.replace('[', '%5B')}", png)
    assert answer.status == status
    assert message in answer.error


def test_one_bad_box_among_several_refuses_them_all_and_is_named(live: Any, png: bytes) -> None:
    """Answers belong to boxes by their places, so a program that sent a wrong one must not get fewer back."""
    boxes = [[0, 0, 99, 99], [9, 9, 5, 5], [10, 10, 90, 200], [9000, 0, 9999, 9]]
    answer = live.post(f"{KEYPOINTS}?boxes={json.dumps(boxes).replace(' ', '')}", png)
    assert answer.status == 400
    assert answer.error == (
        "box 1: box (9, 9, 5, 5) has no area (left, top, right, bottom); "
        "box 3: box (9000, 0, 9999, 9) lies outside the image of 300x220 (height x width)"
    )
    boxes = [[9, 9, 5, 5]] * 9
    answer = live.post(f"{KEYPOINTS}?boxes={json.dumps(boxes).replace(' ', '')}", png)
    assert answer.error.endswith("; and 4 more")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"{KEYPOINTS}?box=whole", "there is no parameter 'box'; did you mean 'boxes'?"),
        (f"{KEYPOINTS}?boxes=whole&Name=a", "there is no parameter 'Name'; did you mean 'name'?"),
        (f"{KEYPOINTS}?threshold=0.5", "there is no parameter 'threshold'; there are boxes and name"),
        (f"{KEYPOINTS}?boxes=whole&boxes=auto", "boxes is given twice"),
        (f"{KEYPOINTS}?name=a&name=b", "name is given twice"),
        (f"{INFER}?boxes=whole", "there is no parameter 'boxes'; this address takes none"),
    ],
)
def test_a_parameter_that_would_be_ignored_is_refused(live: Any, png: bytes, path: str, message: str) -> None:
    answer = live.post(path, png)
    assert (answer.status, answer.error) == (400, message)


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b"", "multipart/form-data; boundary=x", "form"),
        (b"", "multipart/form-data", "Missing boundary"),
        (b"--x--\r\n", "multipart/form-data; boundary=x", "should hold a file image"),
        (b"garbage", "multipart/form-data; boundary=x", "form"),
        (b"--x\r\n\r\nno headers\r\n--x--\r\n", "multipart/form-data; boundary=x", "cannot be read"),
        (
            b"--x\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--x--\r\n",
            "multipart/form-data; boundary=x",
            "name",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nno file\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            "should hold a file image",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="other"; filename="a"\r\n\r\nx\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            "should hold a file image",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nx\r\n' * 2 + b"--x--\r\n",
            "multipart/form-data; boundary=x",
            "Too many files",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="boxes"\r\n\r\nx\r\n' * 50 + b"--x--\r\n",
            "multipart/form-data; boundary=x",
            "Too many fields",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            "a: is empty",
        ),
    ],
)
def test_forms_that_are_none(live: Any, body: bytes, content_type: str, message: str) -> None:
    answer = live.post(KEYPOINTS, body, Content_Type=content_type)
    assert answer.status == 400
    assert message in answer.error


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "9" * 30, "", "0"])
def test_odd_header_lengths(live: Any, length: str) -> None:
    answer = live.post(INFER, b"{}", Inference_Header_Content_Length=length)
    assert answer.status == 400
    assert "Inference-Header-Content-Length" in answer.error


def test_a_compressed_body_is_refused(live: Any, png: bytes) -> None:
    assert live.post(KEYPOINTS, png, Content_Encoding="gzip").status == 415


def test_a_declared_length_beyond_the_limit_is_refused_before_it_is_sent(live: Any) -> None:
    with live.connect() as connection:
        head = f"POST {KEYPOINTS} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {10**12}\r\n\r\n"
        connection.sendall(head.encode())
        answer = live.read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'{"error": "the body is longer than 2 MiB; send less at once"}' in answer


def test_a_body_sent_beyond_the_limit_is_refused_in_words(live: Any) -> None:
    answer = live.post(KEYPOINTS, b"x" * (6 * 2**20))
    assert answer.status == 413
    assert "longer than 2 MiB" in answer.error


def test_an_undeclared_length_beyond_the_limit_is_refused(live: Any) -> None:
    """Chunks without end: the server neither keeps them nor listens for ever."""
    with live.connect() as connection:
        connection.sendall(f"POST {KEYPOINTS} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        assert _sends_until_closed(connection, lambda: chunk, seconds=20)
    assert live.is_well


def _sends_until_closed(connection: socket.socket, make: Callable[[], bytes], *, seconds: float) -> bool:
    """Send and send, and tell whether the server has put an end to it in time."""
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            connection.sendall(make())
    except (ConnectionResetError, BrokenPipeError):
        return True
    return False


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GARBAGE\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
        (b"GET /v2 HTTP/1.1\r\n\r\n", b"400"),  # no Host
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\n", b"400"),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n", b"400"),
        (b"POST /v1/keypoints HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"GET /v2/models/%ff%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"404"),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade, close\r\n\r\n", b"200"),
    ],
)
def test_malformed_http(live: Any, request_: bytes, status: bytes) -> None:
    answer = live.raw(request_)
    assert answer.startswith(b"HTTP/1.1 " + status)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/json" in head
    assert json.loads(body)


@pytest.mark.parametrize("start", [b"GET /v2 HTTP/1.1\r\nHost: x\r\nA: ", b"GET /", b""])
def test_a_head_without_end_is_cut_off(live: Any, start: bytes) -> None:
    with live.connect() as connection:
        connection.sendall(start)
        assert _sends_until_closed(connection, lambda: b"y" * 1000, seconds=10)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /v2 HTT",
        b"POST /v1/keypoints HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc",
        b"POST /v1/keypoints HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
)
def test_a_client_that_stops_sending_is_let_go(live: Any, sent: bytes) -> None:
    start = time.monotonic()
    with live.connect(timeout=10) as connection:
        connection.sendall(sent)
        answer = live.read_to_end(connection) if sent else _read_until_reset(live, connection)
    assert time.monotonic() - start < 9
    assert not answer or answer.startswith(b"HTTP/1.1 408 ")
    assert bool(answer) == (b"\r\n\r\n" in sent)


def _read_until_reset(live: Any, connection: socket.socket) -> bytes:
    try:
        return live.read_to_end(connection)
    except ConnectionResetError:
        return b""


def test_a_client_that_dribbles_its_head_is_let_go(live: Any) -> None:
    def dribble() -> bytes:
        time.sleep(0.05)
        return b"y"

    with live.connect(timeout=10) as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\nA: ")
        assert _sends_until_closed(connection, dribble, seconds=9)


def tensor_request(count: int) -> bytes:
    """A whole HTTP request for the heatmaps of so many black crops: 74 kB of binary answer each."""
    spec = {"name": "images", "shape": [count, 256, 192, 3], "datatype": "UINT8"}
    size = count * 256 * 192 * 3
    asked = {"inputs": [spec | {"parameters": {"binary_data_size": size}}], "parameters": {"binary_data_output": True}}
    header = json.dumps(asked).encode()
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(header) + size}\r\n"
    head += f"Inference-Header-Content-Length: {len(header)}\r\n\r\n"
    return head.encode() + header + bytes(size)


@contextmanager
def deaf(run: Any) -> Iterator[socket.socket]:
    """A client with little room for answers, which it does not read."""
    with socket.socket() as connection:
        connection.settimeout(20)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", run.port))
        yield connection


@pytest.mark.parametrize("dribbles", [False, True])
def test_a_client_that_does_not_take_its_answer_is_let_go(start: Any, backend: OrtBackend, dribbles: bool) -> None:
    """Its answer, of megabytes, waits in memory; the connection must not stay for ever."""
    with start(backend, transfer_timeout_s=1.0, max_people=100) as run:
        with deaf(run) as connection:
            connection.sendall(tensor_request(100))
            connections = run.server._server.server_state.connections
            until(lambda: len(connections) == 1 and next(iter(connections)).cycle.response_started)
            asked = time.monotonic()
            while connections:
                assert time.monotonic() - asked < 15
                if dribbles:
                    connection.recv(100)
                time.sleep(0.02)
        assert run.is_well


def test_answers_that_nobody_takes_do_not_fill_the_memory(start: Any, backend: OrtBackend) -> None:
    limits = {"transfer_timeout_s": 60.0, "max_people": 100, "max_held_bytes": 20 * 2**20}
    with start(backend, **limits) as run, ExitStack() as stack:
        clients = [stack.enter_context(deaf(run)) for _ in range(4)]
        for client in clients:  # 7 MB each, of which three do not fit beside one another
            client.sendall(tensor_request(100))
            assert client.recv(12, socket.MSG_PEEK) in (b"HTTP/1.1 200", b"HTTP/1.1 503")
        assert [client.recv(12) for client in clients] == [*[b"HTTP/1.1 200"] * 2, *[b"HTTP/1.1 503"] * 2]
        for client in clients:
            client.close()
        until(lambda: not run.server._server.server_state.connections)
        assert run.raw(tensor_request(100).replace(b"Host: x", b"Host: x\r\nConnection: close")).startswith(
            b"HTTP/1.1 200"
        )


def test_a_client_that_asks_on_and_on_and_reads_nothing_is_let_go(start: Any, backend: OrtBackend) -> None:
    """Small answers fill the connection too, and then a request under way waits for room."""
    with start(backend, transfer_timeout_s=1.0) as run, deaf(run) as connection:
        connection.settimeout(0.2)
        asked = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - asked < 20:
                with suppress(TimeoutError):
                    connection.sendall(b"GET /v1/contract HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        assert time.monotonic() - asked < 18
        until(lambda: not run.server._server.server_state.connections)


def test_pipelined_and_kept_connections(live: Any, png: bytes) -> None:
    one = b"POST /v1/keypoints HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(png) + png
    last = b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = live.raw(one * 3 + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 4


def test_a_client_that_vanishes_costs_no_work(start: Any, gate: Gate, png: bytes) -> None:
    with start(gate, batch_size=1) as run:
        runs = gate.runs
        with gate.closed():
            first = run.connect()
            request = b"POST /v1/keypoints?boxes=whole HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(png)
            first.sendall(request + png)
            until(lambda: run.service.batcher.open_requests == 1)
            time.sleep(0.05)  # into the model
            second = run.connect()
            second.sendall(request + png)
            until(lambda: len(run.service.batcher._queue) == 1)
            second.close()
            until(lambda: run.service.batcher._queue[0].ticket.refusal is not None)
        assert read_head(first).startswith(b"HTTP/1.1 200 ")
        first.close()
        until(lambda: run.service.batcher.open_requests == 0)
        assert gate.runs - runs == 1
        assert 'status="499"} 1.0' in run.get("/metrics").body.decode()


def read_head(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    return data


@pytest.mark.parametrize("where", ["head", "body"])
def test_clients_that_vanish_while_sending(live: Any, where: str) -> None:
    for _ in range(30):
        with live.connect() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset
            connection.sendall(b"POST /v1/keypoints HTTP/1.1\r\nHost: x\r\n")
            if where == "body":
                connection.sendall(b"Content-Length: 100\r\n\r\nabc")
    assert live.is_well


def test_a_full_queue_answers_503_and_is_well_again(start: Any, gate: Gate, png: bytes) -> None:
    with start(gate, batch_size=1, max_queue=3) as run, ThreadPoolExecutor(16) as pool:
        with gate.closed():
            asked = [pool.submit(run.post, f"{KEYPOINTS}?boxes=whole", png) for _ in range(3)]
            until(lambda: run.service.batcher.open_requests == 3)
            refused = [run.post(KEYPOINTS, png) for _ in range(5)]
            assert run.get("/v2/health/live").status == 200
        assert [answer.status for answer in refused] == [503] * 5
        assert {answer.headers["retry-after"] for answer in refused} == {"1"}
        assert "waiting already" in refused[0].error
        assert [future.result(20).status for future in asked] == [200] * 3
        assert run.post(KEYPOINTS, png).status == 200


def test_pictures_that_are_decoded_one_after_the_other_wait_for_the_model_together(
    start: Any, gate: Gate, png: bytes, spotted: np.ndarray
) -> None:
    """What decoding takes would fit into the limit once, what is left of a picture then ten times."""
    picture_bytes = spotted.size
    with start(gate, max_held_bytes=10 * picture_bytes) as run, ThreadPoolExecutor(8) as pool:

        def held() -> tuple[int, int]:
            return run.service._pictures._held_bytes, run.service._scratch._held_bytes

        with gate.closed():
            asked = [pool.submit(run.post, f"{KEYPOINTS}?boxes=whole", png) for _ in range(6)]
            until(lambda: held() == (6 * picture_bytes, 0))
        assert [future.result(20).status for future in asked] == [200] * 6
        assert held() == (0, 0)


def test_slow_work_is_given_up(start: Any, gate: Gate, png: bytes) -> None:
    with start(gate, work_timeout_s=0.3) as run:
        with gate.closed():
            answer = run.post(KEYPOINTS, png)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "not answered within 0.3 s" in answer.error
        until(lambda: run.service.batcher.open_requests == 0)
        assert run.post(KEYPOINTS, png).status == 200


def test_too_many_connections_are_turned_away(start: Any, backend: OrtBackend) -> None:
    with start(backend, max_connections=5) as run:
        held = [run.connect() for _ in range(5)]
        until(lambda: len(run.server._server.server_state.connections) == 5)
        assert b"503 Service Unavailable" in run.raw(b"")
        held.pop().close()
        until(lambda: len(run.server._server.server_state.connections) == 4)
        assert run.is_well
        for connection in held:
            connection.close()


def test_bodies_together_are_bounded(start: Any, backend: OrtBackend) -> None:
    limits = {"max_held_bytes": 3 * 2**20, "max_body_bytes": 2 * 2**20}
    with start(backend, **limits) as run:
        sending = [run.connect() for _ in range(2)]
        for connection in sending:
            connection.sendall(b"POST /v1/keypoints HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n")
            connection.sendall(b"x" * 1_900_000)
        refused, _, _ = select.select(sending, [], [], 10)  # whichever of the two was received last
        assert [connection.recv(12) for connection in refused] == [b"HTTP/1.1 503"]
        for connection in sending:
            connection.close()
        until(lambda: run.post(KEYPOINTS, b"x").status == 400)


def test_everything_wrong_at_once(live: Any, png: bytes) -> None:
    """Good requests among bad ones are all answered, and rightly."""
    expected = live.post(KEYPOINTS, png).body
    bad = [b"", b"text that is no picture", png[: len(png) // 2], bomb(60_000, 60_000), b"x" * (3 * 2**20)]

    def one(index: int) -> bool:
        if index % 2:
            return bool(live.post(KEYPOINTS, png).body == expected)
        if index % 4:
            return live.post(INFER, bad[index % 5]).status in (400, 413)
        return live.post(KEYPOINTS, bad[index % 5]).status in (400, 413)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(160)))


def test_nothing_stays_open_after_bad_clients(start: Any, backend: OrtBackend, png: bytes) -> None:
    def opened() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    with start(backend, transfer_timeout_s=1.0, batch_size=2) as run:
        whole = b"POST /v1/keypoints?boxes=whole HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(png) + png
        with ThreadPoolExecutor(8) as pool:  # so that every worker is there
            assert {answer.status for answer in pool.map(lambda _: run.post(KEYPOINTS, png), range(32))} == {200}
        before = opened()
        clients = [run.connect() for _ in range(60)]
        for number, client in enumerate(clients):
            client.sendall(whole[: (10, 60, 300, len(whole))[number % 4]])
            if number % 3 == 0:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if number % 3 < 2:
                client.close()
        until(lambda: not run.server._server.server_state.connections)
        for client in clients:
            client.close()
        assert run.is_well
        until(lambda: all(now <= then for now, then in zip(opened(), before, strict=True)))
        assert run.service.batcher.open_requests == 0


def test_the_end_finishes_what_is_in_flight(start: Any, gate: Gate, png: bytes) -> None:
    with start(gate, batch_size=2) as run, ThreadPoolExecutor(8) as pool:
        idle = run.connect()
        with gate.closed():
            asked = [pool.submit(run.post, f"{KEYPOINTS}?boxes=whole", png) for _ in range(5)]
            until(lambda: run.service.batcher.open_requests == 5)
            run.server.end()
            assert run.get("/v2/health/ready").status == 400
            assert run.post(KEYPOINTS, png).status == 503
            until(lambda: _is_refused(run.port))
        assert [future.result(20).status for future in asked] == [200] * 5
        run.thread.join(10)
        assert not run.thread.is_alive()
        idle.close()


def test_an_end_that_leaves_requests_unanswered_is_an_error(gate: Gate, png: bytes) -> None:
    service = KeypointService(gate, name="toy", limits=ServingLimits(shutdown_timeout_s=0.3))
    listener = open_socket("127.0.0.1", 0)
    is_up = threading.Event()
    server = ModelServer(service, listener, on_ready=is_up.set)
    with ThreadPoolExecutor(1) as pool, gate.closed():
        ended = pool.submit(server.run)
        assert is_up.wait(20)
        with socket.create_connection(listener.getsockname(), timeout=20) as client:
            client.sendall(b"POST /v1/keypoints HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(png) + png)
            until(lambda: service.batcher.open_requests == 1)
            server.end()
            with pytest.raises(ServingError, match=r"ended with 1 requests unanswered after 0\.3 s"):
                ended.result(20)


def test_a_claimed_length_claims_no_memory(live: Any) -> None:
    """Only what was really sent counts, so a claim alone does not wait until others are done."""
    ticket = live.service.batcher.admit()
    start = time.monotonic()
    with live.service._scratch.hold(1, ticket):
        answer = live.post(INFER, b"{}", Inference_Header_Content_Length=str(10**12))
    ticket.release()
    assert (answer.status, time.monotonic() - start < 5) == (400, True)


def _is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_addresses() -> None:
    with open_socket("127.0.0.1", 0) as listener:
        assert is_loopback(listener)
        port = listener.getsockname()[1]
        assert address_of(listener) == f"http://127.0.0.1:{port}"
        with pytest.raises(ServingError, match=f"127.0.0.1: cannot listen on port {port}"):
            open_socket("127.0.0.1", port)
    with open_socket("0.0.0.0", 0) as listener:
        assert not is_loopback(listener)
    with pytest.raises(ServingError, match="cannot listen on port 0"):
        open_socket("no.such.host.invalid", 0)


@pytest.mark.parametrize("field", ["batch_size", "max_queue", "max_pixels", "work_timeout_s", "max_delay_s"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_limits_are_checked(field: str, value: float) -> None:
    with pytest.raises(Exception, match=f"{field} should be a number"):
        ServingLimits(**{field: value})
