from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pycocotools")

from lbkit.cli import eval as cli_eval
from lbkit.cli.main import run
from lbkit.evaluation.candidates import EVALUATION_BATCH_SIZE
from lbkit.evaluation.evaluate import ANNOTATED_BOXES
from lbkit.evaluation.pck import PCK_NORMS
from lbkit.runtime.loading import MODELS_VARIABLE

Eval = Callable[..., Any]


@pytest.fixture
def root(roots: ModuleType, toys: ModuleType, tmp_path: Path) -> Path:
    """Three people, one of them annotated wrongly at two of six joints."""
    off = roots.SPOTS.copy()
    off[:2] += 60
    persons = [roots.RootPerson(1), roots.RootPerson(2), roots.RootPerson(3, off)]
    return roots.write_root(tmp_path / "root", toys, persons)


@pytest.fixture
def model(toy_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(toy_model, tmp_path / "toy.onnx"))


@pytest.fixture
def evaluate(root: Path, lbkit: Eval, monkeypatch: pytest.MonkeyPatch) -> Eval:
    monkeypatch.delenv("LBKIT_COCO", raising=False)

    def call(*arguments: object, coco: Path | None = root) -> Any:
        return lbkit("eval", *arguments, *(["--coco", coco] if coco else []))

    return call


def test_choices_spelled_out_are_the_librarys() -> None:
    assert cli_eval.NORM_CHOICES == PCK_NORMS
    assert cli_eval.ANNOTATED_BOXES == ANNOTATED_BOXES
    assert cli_eval.BATCH_SIZE == EVALUATION_BATCH_SIZE


def test_table_has_a_row_a_figure_and_a_column_a_model(evaluate: Eval, model: Path, toy_model: Path) -> None:
    outcome = evaluate(model, toy_model)
    assert outcome.code == 0
    rows = [line.split("\t") for line in outcome.out.splitlines()]
    assert rows[0] == ["model", str(model), str(toy_model)]
    figures = {row[0]: row[1:] for row in rows}
    assert figures["PCK@0.05 v>0"][0].startswith("0.889 [0.667, 1.000]")
    assert figures["PCK@0.05 v>0"][0] == figures["PCK@0.05 v>0"][1]
    assert figures["runs on"] == ["ort cpu", "ort cpu"]
    assert "framing: legs only (2)" in figures
    assert "the height of the annotated box made 4:3" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("next: lbkit eval ")


def test_json_alone_goes_to_stdout(evaluate: Eval, model: Path) -> None:
    outcome = evaluate(model, "--json")
    figures = outcome.record["models"][0]
    assert outcome.record["verdict"] is None
    assert figures["curve"]["v>0"][4]["value"] == pytest.approx(16 / 18)
    assert figures["thresholds"][4] == 0.05
    assert figures["data"]["persons"] == 3
    assert figures["subject"]["backend"] == "ort"


@pytest.mark.parametrize(
    ("limits", "code", "words"),
    [
        (["--min-pck", "0.85", "--min-ap", "0.5"], 0, None),
        (["--min-pck", "0.95"], 3, "error: toy.onnx has PCK@0.05 v>0 0.8889, and 0.95 is asked for"),
        (["--min-ap", "0.99", "--min-pck", "0.1"], 3, "error: toy.onnx has OKS AP "),
    ],
)
def test_limits_make_it_a_gate(evaluate: Eval, model: Path, limits: list[str], code: int, words: str | None) -> None:
    outcome = evaluate(model, *limits, "--json")
    assert outcome.code == code
    assert outcome.record["verdict"]["passed"] == (code == 0)
    assert words is None or words in outcome.err


def test_report_is_a_page_and_the_figures(evaluate: Eval, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    outcome = evaluate(model, "--report", folder, "--min-pck", "0.99")
    assert outcome.code == 3
    html = (folder / "evaluation.html").read_text()
    assert "Failed: toy.onnx has PCK@0.05" in html
    assert html.count("<img ") == 3
    assert html.count("<polyline") == 3
    assert json.loads((folder / "evaluation.json").read_text())["models"][0]["norm"] == "box"
    again = evaluate(model, "--report", folder)
    assert again.code == 1
    assert "give --force" in again.err
    assert evaluate(model, "--report", folder, "--force").code == 0


def test_card_is_written_and_info_shows_it(
    evaluate: Eval, model: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(model, "--write-card", "-q").code == 0
    assert run(["info", str(model)]) == 0
    assert "figures\tpck@0.05 v>0\t0.8889 [0.6667, 1.0000], root (sha256 " in capsys.readouterr().out
    assert run(["info", str(model), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["contract"]["evaluation"][0]["persons"] == 3
    assert evaluate(model).code == 0


def test_without_a_model_all_are_taken(evaluate: Eval, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(model.parent))
    monkeypatch.chdir(model.parent)
    monkeypatch.setattr("lbkit.runtime.loading.model_folders", lambda: [model.parent])
    assert evaluate().out.splitlines()[0] == "model\ttoy"


def test_the_root_may_come_from_the_environment(
    evaluate: Eval, model: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate(model, coco=None).code == 2
    monkeypatch.setenv("LBKIT_COCO", str(root))
    assert evaluate(model, coco=None).code == 0


def test_results_of_another_program(evaluate: Eval, roots: ModuleType, tmp_path: Path) -> None:
    triples = np.zeros((17, 3))
    triples[11:] = np.concatenate([roots.SPOTS, np.ones((6, 1))], axis=1)
    entry = {"image_id": 1, "category_id": 1, "keypoints": triples.ravel().tolist(), "score": 0.9}
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps([entry, entry | {"image_id": 50}]))
    outcome = evaluate("--results", path)
    assert outcome.code == 0
    assert "PCK@0.05 v>0\t0.333" in outcome.out
    assert "left out: result for another image: 1" in outcome.err
    assert "next: lbkit eval --results" in outcome.err


def test_results_of_infer_are_judged_as_the_model_is(evaluate: Eval, model: Path, root: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    annotations = root / "annotations" / "person_keypoints_val2017.json"
    arguments = [root / "val2017", "--model", model, "--boxes", f"coco:{annotations}", "--format", "coco", "-o", path]
    assert run(["infer", *map(str, arguments), "-q"]) == 0
    of_file, of_model = (evaluate(*what, "--json").record["models"][0] for what in (["--results", path], [model]))
    assert of_file["curve"] == of_model["curve"]
    assert of_file["oks"]["ap"] == pytest.approx(of_model["oks"]["ap"])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--results", "x.json", "toy.onnx"], 2, "--results stands alone"),
        (["--results", "x.json", "--write-card"], 2, "--write-card needs ONNX files"),
        (["--write-card", "cnn.safetensors"], 2, "--write-card needs ONNX files"),
        (["--write-card", "--limit", "3"], 2, "leave out --limit"),
        (["--write-card", "--backend", "torch"], 2, "--write-card needs ONNX files"),
        (["--min-pck", "1.5"], 2, "not in the range"),
        (["--pck-norm", "boxx"], 2, "Did you mean 'box'?"),
        (["nobody.onnx"], 1, "there is no such file"),
        (["--boxes", "nothing.json"], 1, "nothing.json: no such file"),
        (["--results", "nothing.json"], 1, "nothing.json: no such file"),
        (["--split", "train2017"], 1, "person_keypoints_train2017.json: no such file"),
    ],
)
def test_bad_requests_are_one_line(
    evaluate: Eval, model: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, words: str
) -> None:
    monkeypatch.chdir(model.parent)
    outcome = evaluate(*arguments, *([] if "--results" in arguments or "nobody.onnx" in arguments else [model]))
    assert outcome.code == code
    assert words in outcome.err
    assert outcome.out == ""


def test_missing_images_fail_unless_allowed(evaluate: Eval, model: Path, root: Path) -> None:
    (root / "val2017" / "000002.png").unlink()
    outcome = evaluate(model)
    assert outcome.code == 1
    assert "1 of 3 annotated images cannot be used (image file missing: 1" in outcome.err
    outcome = evaluate(model, "--allow-missing", "0.4", "--json")
    assert outcome.code == 0
    assert outcome.record["models"][0]["data"]["skipped"] == {"image file missing": 1}
    assert "left out: image file missing: 1" in outcome.err


def test_onnx_files_are_judged_without_pytorch(model: Path, root: Path) -> None:
    script = (
        "import sys; from lbkit.cli.main import run\n"
        f"assert run(['eval', {str(model)!r}, '--coco', {str(root)!r}, '-q']) == 0\n"
        f"assert run(['info', {str(model)!r}]) == 0\n"
        "print([name for name in ('torch', 'torchvision', 'onnx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_pytorch_does_not_take_openvino(evaluate: Eval) -> None:
    checkpoint = Path(__file__).parents[2] / "training" / "checkpoints" / "cnn.safetensors"
    outcome = evaluate(checkpoint, "--provider", "openvino")
    assert outcome.code == 1
    assert "PyTorch does not run on openvino; give an ONNX file" in outcome.err


def test_a_provider_that_is_not_there_is_an_error(evaluate: Eval, model: Path) -> None:
    from lbkit.runtime.probe import probe_provider

    if probe_provider("cuda").works:
        pytest.skip("cuda is there")
    outcome = evaluate(model, "--provider", "cuda")
    assert outcome.code == 1
    assert "cuda cannot run here" in outcome.err
