from __future__ import annotations

import http.client
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lbkit import __version__
from lbkit.cli.main import run
from lbkit.core.contract import ModelContract
from lbkit.core.estimator import PoseEstimator
from lbkit.core.images import read_image
from lbkit.runtime.loading import find_model, load_model
from lbkit.runtime.model_file import feed_of
from lbkit.runtime.ort_backend import OrtBackend

BOXES = [[40, 60, 190, 290], [30.5, 90.25, 200, 299]]


def form(*parts: tuple[str, str | None, bytes]) -> tuple[bytes, str]:
    """A multipart body of (name, file name or None, content), and its content type."""
    body = b""
    for name, filename, content in parts:
        file = "" if filename is None else f'; filename="{filename}"'
        body += f'--cut\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"
    return body + b"--cut--\r\n", "multipart/form-data; boundary=cut"


def post_form(live: Any, *parts: tuple[str, str | None, bytes]) -> Any:
    body, content_type = form(*parts)
    return live.post("/v1/keypoints", body, Content_Type=content_type)


def test_health_and_metadata(live: Any, backend: OrtBackend) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/toy/ready"):
        answer = live.get(path)
        assert (answer.status, answer.body) == (200, b"")
    assert live.get("/v2").json == {"name": "lbkit", "version": __version__, "extensions": ["binary_tensor_data"]}
    assert live.get("/v2/models/toy").json["inputs"][0]["shape"] == [-1, 256, 192, 3]
    assert ModelContract.from_json(live.get("/v1/contract").body.decode(), where="answer") == backend.contract


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/other/ready", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", "/v2/models/toy/infer", 405),
        ("GET", "/v1/keypoints", 405),
        ("DELETE", "/v2/models/toy", 405),
        ("GET", "/docs", 404),
        ("GET", "/v2/models/..%2f..%2fetc/passwd", 404),
    ],
)
def test_what_is_not_there(live: Any, method: str, path: str, status: int) -> None:
    answer = live.ask(method, path)
    assert answer.status == status
    assert answer.error


@pytest.mark.parametrize("boxes", ["auto", "whole", json.dumps(BOXES), "[]", json.dumps(BOXES[0])])
@pytest.mark.parametrize("as_form", [True, False])
def test_answers_what_lbkit_infer_writes(
    live: Any, png: bytes, boxes: str, as_form: bool, toy_model: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("spots.png").write_bytes(png)
    arguments = ["--boxes", boxes]
    if boxes.startswith("["):
        table = [["image,left,top,right,bottom"]]
        table += [[f"spots.png,{','.join(map(str, box))}"] for box in np.reshape(json.loads(boxes), (-1, 4)).tolist()]
        Path("boxes.csv").write_text("\n".join(line for (line,) in table) + "\nother.png,0,0,9,9\n")
        arguments = ["--boxes", "boxes.csv"]
    assert run(["infer", "spots.png", "--model", str(toy_model), "-q", *arguments]) in (0, 1)  # 1: no box for it
    written = capsys.readouterr().out
    if as_form:
        answer = post_form(live, ("image", "spots.png", png), ("boxes", None, boxes.encode()))
    else:
        answer = live.post(f"/v1/keypoints?name=spots.png&boxes={boxes.replace(' ', '')}", png)
    assert answer.status == 200
    assert answer.body.decode() == written
    assert len(answer.json["people"]) == {"[]": 0, json.dumps(BOXES): 2}.get(boxes, 1)


def test_defaults_and_a_name_of_another_script(live: Any, png: bytes) -> None:
    assert live.post("/v1/keypoints", png).json["path"] == "image"
    assert post_form(live, ("image", "żółw.png", png)).json["path"] == "żółw.png"


def test_infer_equals_the_backend_in_json_and_in_bytes(live: Any, backend: OrtBackend, spotted: Any) -> None:
    crops = np.stack([cv2.resize(spotted, (192, 256)), cv2.resize(spotted[::-1], (192, 256))])
    expected = backend.run(crops).heatmaps
    assert expected is not None
    request: dict[str, Any] = {"inputs": [{"name": "images", "shape": list(crops.shape), "datatype": "UINT8"}]}
    request["inputs"][0]["data"] = crops.ravel().tolist()
    answer = live.post("/v2/models/toy/infer", json.dumps(request))
    (output,) = answer.json["outputs"]
    assert np.array_equal(np.reshape(np.float32(output["data"]), output["shape"]), expected)

    del request["inputs"][0]["data"]
    request |= {"id": "7", "parameters": {"binary_data_output": True}}
    request["inputs"][0]["parameters"] = {"binary_data_size": crops.nbytes}
    header = json.dumps(request).encode()
    length = {"Inference_Header_Content_Length": str(len(header))}
    answer = live.post("/v2/models/toy/infer", header + crops.tobytes(), **length)
    assert answer.status == 200
    cut = int(answer.headers["inference-header-content-length"])
    assert json.loads(answer.body[:cut])["id"] == "7"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert np.array_equal(np.frombuffer(answer.body[cut:], "<f4").reshape(expected.shape), expected)


def test_more_crops_than_a_batch_holds(live: Any, backend: OrtBackend) -> None:
    crops = np.random.default_rng(1).integers(0, 256, (11, 256, 192, 3), dtype=np.uint8)
    spec = {"name": "images", "shape": [11, 256, 192, 3], "datatype": "UINT8"}
    spec["parameters"] = {"binary_data_size": crops.nbytes}  # type: ignore[assignment]
    header = json.dumps({"inputs": [spec], "parameters": {"binary_data_output": True}}).encode()
    length = {"Inference_Header_Content_Length": str(len(header))}
    answer = live.post("/v2/models/toy/infer", header + crops.tobytes(), **length)
    found = np.frombuffer(answer.body[int(answer.headers["inference-header-content-length"]) :], "<f4")
    assert np.allclose(found.reshape(11, 6, 64, 48), backend.run(crops).heatmaps, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_client_of_triton_understands_the_server(start: Any, toys: Any, tmp_path: Path, dtype: str) -> None:
    """Health, metadata and inference by JSON and by bytes, through the package that Triton's makers publish."""
    triton = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]", exc_type=ImportError)
    outputs = ("keypoints", "heatmaps") if dtype == "float32" else ("heatmaps",)
    path = toys.save_toy_model(tmp_path / "toy.onnx", dtype=dtype, outputs=outputs)
    backend = OrtBackend(path, threads=1)
    crops = np.random.default_rng(2).integers(0, 256, (3, 256, 192, 3), dtype=np.uint8)
    tensor, expected = feed_of(crops, backend.contract), backend.run(crops)
    datatype = {"uint8": "UINT8", "float32": "FP32"}[dtype]
    with start(backend) as run_, triton.InferenceServerClient(f"127.0.0.1:{run_.port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("toy")
        assert not client.is_model_ready("other")
        assert client.get_server_metadata()["name"] == "lbkit"
        metadata = client.get_model_metadata("toy")
        assert metadata["inputs"] == [{"name": "images", "datatype": datatype, "shape": [-1, *tensor.shape[1:]]}]
        assert [output["name"] for output in metadata["outputs"]] == list(outputs)
        for is_binary in (True, False):
            given = triton.InferInput("images", list(tensor.shape), datatype)
            given.set_data_from_numpy(tensor, binary_data=is_binary)
            wanted = [triton.InferRequestedOutput(name, binary_data=is_binary) for name in outputs]
            result = client.infer("toy", [given], outputs=wanted, request_id="r")
            for name in outputs:
                np.testing.assert_array_equal(result.as_numpy(name), getattr(expected, name))
            assert result.get_response()["id"] == "r"
        given = triton.InferInput("pictures", list(tensor.shape), datatype)
        given.set_data_from_numpy(tensor)
        with pytest.raises(Exception, match="the inputs should be images alone"):
            client.infer("toy", [given])


@pytest.mark.parametrize("kind", ["rotated", "CMYK", "16 bits", "animated GIF", "grey", "transparent"])
def test_unusual_pictures_are_shown_to_the_model_as_lbkit_infer_reads_them(
    live: Any, backend: OrtBackend, spotted: Any, tmp_path: Path, kind: str
) -> None:
    image = pytest.importorskip("PIL.Image")
    picture, path = image.fromarray(spotted), tmp_path / "picture"
    if kind == "rotated":
        exif = image.Exif()
        exif[274] = 6
        picture.save(path, "JPEG", exif=exif)
    elif kind == "CMYK":
        picture.convert("CMYK").save(path, "JPEG")
    elif kind == "16 bits":
        path.write_bytes(cv2.imencode(".png", spotted[..., ::-1].astype(np.uint16) * 257)[1].tobytes())
    elif kind == "animated GIF":
        picture.save(path, "GIF", save_all=True, append_images=[picture.rotate(180)] * 3)
    elif kind == "grey":
        picture.convert("L").save(path, "PNG")
    else:
        picture.putalpha(200)
        picture.save(path, "WEBP", lossless=True)
    poses = PoseEstimator(backend)(read_image(path), BOXES[:1])
    answer = live.post(f"/v1/keypoints?boxes={json.dumps(BOXES[:1])}".replace(" ", ""), path.read_bytes())
    assert answer.json["people"] == poses.to_dicts()
    assert answer.json["width"] == (300 if kind == "rotated" else 220)


def test_many_at_once_get_what_the_library_gives_each_alone(start: Any, tmp_path: Path, toys: Any) -> None:
    """The shipped network in batches of any make-up: JSON's three decimals may differ by the last."""
    path = find_model("cnn")
    library = load_model(path, threads=1, batch_size=1)
    pictures = []
    for seed in range(12):
        image = np.random.default_rng(seed).integers(0, 256, (90 + 7 * seed, 80 + 5 * seed, 3), dtype=np.uint8)
        pictures.append(cv2.GaussianBlur(image, (0, 0), 5))
    files = [cv2.imencode(".png", picture[..., ::-1])[1].tobytes() for picture in pictures]
    boxes = [[10, 8, 60, 80], [0, 0, 50, 88]]
    path_with_boxes = f"/v1/keypoints?boxes={json.dumps(boxes)}".replace(" ", "")
    expected = [library(picture, boxes).to_dicts() for picture in pictures]
    with (
        start(OrtBackend(path, threads=1), batch_size=4, max_delay_s=0.02) as run_,
        ThreadPoolExecutor(12) as pool,
    ):
        answers = list(pool.map(lambda file: run_.post(path_with_boxes, file), files))
        batches = run_.get("/metrics").body.decode()
    assert [answer.status for answer in answers] == [200] * 12
    for answer, people in zip(answers, expected, strict=True):
        for found, person in zip(answer.json["people"], people, strict=True):
            assert found["box_xyxy"] == person["box_xyxy"]
            for name, joint in person["keypoints"].items():
                assert found["keypoints"][name] == pytest.approx(joint, abs=0.0021), name
    runs = int(float(re.search(r"^lbkit_batch_people_count (\S+)", batches, re.MULTILINE).group(1)))
    people = int(float(re.search(r"^lbkit_batch_people_sum (\S+)", batches, re.MULTILINE).group(1)))
    assert people == 24
    assert runs < 12  # requests shared batches


def test_the_same_picture_gets_the_same_answer_alone_and_among_others(live: Any, png: bytes) -> None:
    alone = live.post("/v1/keypoints", png).body
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: live.post("/v1/keypoints", png).body, range(40))) == {alone}


def test_counters(start: Any, backend: OrtBackend, png: bytes) -> None:
    with start(backend) as run_:
        run_.post("/v1/keypoints?boxes=whole", png)
        run_.post("/v1/keypoints", b"no picture")
        run_.get("/some/path/of/a/scanner")
        text = run_.get("/metrics").body.decode()
    assert 'lbkit_requests_total{endpoint="/v1/keypoints",status="200"} 1.0' in text
    assert 'lbkit_requests_total{endpoint="/v1/keypoints",status="400"} 1.0' in text
    assert 'lbkit_requests_total{endpoint="other",status="404"} 1.0' in text
    assert "scanner" not in text
    assert "lbkit_batch_people_sum 1.0" in text
    assert "lbkit_open_requests 0.0" in text


def test_a_token_is_asked_for_everywhere_but_in_probes(start: Any, backend: OrtBackend, png: bytes) -> None:
    token = "correct-horse-battery"
    with start(backend, token=token) as run_:
        for path in ("/v2", "/metrics", "/v1/contract", "/v2/models/toy", "/nothing", "/openapi.json"):
            answer = run_.get(path)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer"), path
            assert answer.error.startswith("this server asks for a token")
        for wrong in ("Bearer", "Bearer ", f"Bearer {token}x", f"bearer{token}", f"Basic {token}", "Bearer \xe9"):
            assert run_.post("/v1/keypoints", png, Authorization=wrong).status == 401, wrong
        assert run_.post("/v1/keypoints", png, Authorization=f"Bearer {token}").status == 200
        assert run_.get("/v2", Authorization=f"Bearer {token}").status == 200
        assert run_.get("/v2/health/live").status == 200
        assert run_.get("/v2/health/ready").status == 200


def test_a_model_that_does_not_run_is_found_at_the_start(start: Any, backend: OrtBackend) -> None:
    class Broken:
        contract = backend.contract

        def run_input(self, tensor: Any) -> Any:  # noqa: ARG002
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"), start(Broken()):
        pass


def test_a_model_that_fails_later_is_the_servers_fault(start: Any, backend: OrtBackend, png: bytes) -> None:
    """And the next request is answered all the same."""
    fails = threading.Event()

    class Flaky:
        contract = backend.contract
        streams = 1

        def run_input(self, tensor: Any) -> Any:
            if fails.is_set():
                raise RuntimeError("a secret")
            return backend.run_input(tensor)

    with start(Flaky()) as run_:
        fails.set()
        answer = run_.post("/v1/keypoints", png)
        assert (answer.status, answer.json) == (500, {"error": "the server has a fault; its log says which"})
        fails.clear()
        assert run_.post("/v1/keypoints", png).status == 200


def test_poses_are_those_of_the_estimator(live: Any, backend: OrtBackend, png: bytes, tmp_path: Path) -> None:
    (tmp_path / "spots.png").write_bytes(png)
    poses = PoseEstimator(backend)(read_image(tmp_path / "spots.png"), BOXES)
    answer = live.post(f"/v1/keypoints?boxes={json.dumps(BOXES)}".replace(" ", ""), png)
    assert answer.json["people"] == poses.to_dicts()


def test_no_answer_waits_for_a_delayed_acknowledgement(live: Any, png: bytes) -> None:
    """Later requests of one connection took 40 ms more than the model while the socket held small packets back."""
    connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=20)
    took = []
    for _ in range(15):
        asked = time.perf_counter()
        connection.request("POST", "/v1/keypoints?boxes=whole", body=png)
        assert json.loads(connection.getresponse().read())["people"]
        took.append(time.perf_counter() - asked)
    connection.close()
    assert min(took[5:]) < 0.035
