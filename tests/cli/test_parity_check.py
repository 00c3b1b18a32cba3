from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import numpy_helper  # noqa: E402

from lbkit.cli import parity_check as cli_parity  # noqa: E402
from lbkit.cli.main import run  # noqa: E402
from lbkit.models.checkpoint import CHECKPOINTS_VARIABLE  # noqa: E402
from lbkit.parity import check, samples  # noqa: E402

REPOSITORY = Path(__file__).parents[2]


Parity = Callable[..., Any]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copy(REPOSITORY / "exported" / "cnn.onnx", tmp_path / "small.onnx"))


@pytest.fixture
def wrong(model: Path, tmp_path: Path) -> Path:
    """A copy whose last bias is one too high: every map is lifted."""
    graph = onnx.load(model)
    bias = next(tensor for tensor in graph.graph.initializer if tensor.name == "network.head.2.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(1), bias.name))
    onnx.save(graph, tmp_path / "wrong.onnx")
    return tmp_path / "wrong.onnx"


@pytest.fixture
def parity(lbkit: Parity, monkeypatch: pytest.MonkeyPatch) -> Parity:
    monkeypatch.setenv(CHECKPOINTS_VARIABLE, str(REPOSITORY / "training" / "checkpoints"))
    monkeypatch.setattr("lbkit.parity.batches.DYNAMIC_BATCHES", (1, 2))
    return functools.partial(lbkit, "parity-check")


def test_numbers_spelled_out_are_the_librarys() -> None:
    assert cli_parity.DEFAULT_SYNTHETIC == samples.DEFAULT_SYNTHETIC
    assert cli_parity.MAX_SYNTHETIC == samples.MAX_SYNTHETIC
    assert cli_parity.BATCH_SIZE == check.BATCH_SIZE


def test_a_right_file_passes_with_table_and_report(parity: Parity, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    outcome = parity(model, "--samples", 2, "--report", folder)
    assert outcome.code == 0
    rows = dict(line.split("\t") for line in outcome.out.splitlines() if "\t" in line)
    assert rows["file"] == "small.onnx"
    assert rows["verdict"] == rows["stage heatmaps"] == "passed"
    assert outcome.out.splitlines()[-1].startswith("passed: 1 file checked on 2 rendered people")
    html = (folder / "parity.html").read_text()
    assert "Passed: 1 file checked on 2 rendered people" in html
    assert html.count("<img ") == 2
    assert html.count("<svg ") == 1
    assert "http-equiv" in html
    assert "<script" not in html
    assert json.loads((folder / "parity.json").read_text())["passed"] is True
    again = parity(model, "--samples", 2, "--report", folder)
    assert again.code == 1
    assert "give --force" in again.err


def test_a_wrong_file_ends_with_3_and_its_stage(parity: Parity, wrong: Path, model: Path, tmp_path: Path) -> None:
    outcome = parity(wrong, model, "--samples", 2, "--bisect", "--json")
    assert outcome.code == 3
    first, second = outcome.record["models"]
    assert (first["passed"], first["culprit"]) == (False, "heatmaps")
    assert (second["passed"], second["culprit"]) == (True, None)
    assert first["node"]["module"] == "network.head.2"
    assert "error: wrong.onnx not as the checkpoint" in outcome.err
    lifted = tmp_path / "loose.toml"
    lifted.write_text(
        'name = "loose"\ndescription = "heights do not matter"\nnear_tie_margin = { at_most = 0.0 }\n'
        "node_relative = { at_most = 9.0 }\n[limits]\ninput_px_median = { at_most = 9.0 }\n"
    )
    assert parity(wrong, "--samples", 2, "--preset", lifted, "-q").code == 0


def test_what_cannot_run_ends_with_1_and_the_others_are_told(parity: Parity, model: Path, wrong: Path) -> None:
    outcome = parity(model, "absent.onnx", "--samples", 2)
    assert outcome.code == 1
    assert "could not run: absent.onnx on cpu: absent.onnx: there is no such file" in outcome.err
    assert "verdict\tpassed\tcould not run" in outcome.out
    assert outcome.out.splitlines()[-1].startswith("not passed: 1 could not be checked")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--images", ".", "--coco", "."], 2, "exclude each other"),
        (["--their-tensor", "x.npy", "a", "b"], 2, "compared with one MODEL"),
        (["--samples", "0"], 2, "not in the range"),
        (["--provider", "cpuu"], 2, "Did you mean 'cpu'?"),
        (["--preset", "fp9"], 1, "no preset 'fp9'"),
        (["--images", "absent"], 1, "absent: no such folder"),
        (["--coco", "absent"], 1, "no such file"),
    ],
)
def test_bad_requests_are_one_line(
    parity: Parity, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = parity(*arguments)
    assert outcome.code == code
    assert words in outcome.err
    assert outcome.out == ""


def test_missing_photographs_are_counted(parity: Parity, model: Path, roots: Any, toys: Any, tmp_path: Path) -> None:
    root = roots.write_root(tmp_path / "root", toys, [roots.RootPerson(1), roots.RootPerson(2)])
    (root / "val2017" / "000002.png").unlink()
    refused = parity(model, "--coco", root)
    assert refused.code == 1
    assert "image file missing: 1" in refused.err
    allowed = parity(model, "--coco", root, "--allow-missing", "0.5", "--json")
    assert allowed.code == 0
    assert allowed.record["samples"]["left_out"] == {"image file missing": 1}
    assert allowed.record["models"][0]["persons"] == 1


def test_their_tensor_is_told_right_or_wrong(parity: Parity, model: Path, tmp_path: Path) -> None:
    from lbkit.core.preprocess import crop_person
    from lbkit.models.registry import bare_contract
    from lbkit.parity.mistakes import GOLDEN_BOX_XYXY, golden_picture

    assert parity("--write-golden", tmp_path / "golden").code == 0
    assert (tmp_path / "golden" / "golden.png").is_file()
    contract = bare_contract("cnn", weights_sha256="0" * 64, training_data=())
    crop, _ = crop_person(golden_picture(), np.array(GOLDEN_BOX_XYXY), contract=contract)
    tensor = tmp_path / "tensor.npy"
    np.save(tensor, crop)
    right = parity(model, "--their-tensor", tensor)
    assert right.code == 0
    assert right.out.startswith("right: ")
    np.save(tensor, crop[..., ::-1])
    wrong = parity(model, "--their-tensor", tensor, "--json")
    assert wrong.code == 3
    assert wrong.record["mistakes"] == ["this is BGR instead of RGB"]


def test_where_nothing_could_run_the_reason_is_all_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none.onnx").write_text("no model")
    assert run(["parity-check", str(tmp_path / "none.onnx"), "--samples", "1"]) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 1
    assert "could not run" in printed.err
    assert "next:" not in printed.err


def test_an_empty_folder_gets_a_remedy_that_the_command_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["parity-check", "--images", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "give --images another folder" in told
    assert "--recursive" not in told
