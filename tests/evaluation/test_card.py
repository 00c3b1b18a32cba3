from __future__ import annotations

import datetime
import hashlib
import json
import logging
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from lbkit.core.contract import Figure, ModelContract
from lbkit.core.sidecar import sidecar_path, write_sidecar
from lbkit.errors import ContractError, ModelError
from lbkit.evaluation.card import card_figures, describe_model, write_card
from lbkit.runtime.ort_backend import OrtBackend

NEW = Figure("pck@0.05 v>0", 0.75, "root", 12, "2026-02-03", (0.7, 0.8), "ab" * 32)
OTHER_DATA = Figure("pck@0.05 v>0", 0.5, "elsewhere", 3, "2026-01-01")


@pytest.fixture
def model(toys: ModuleType, tmp_path: Path) -> Path:
    """A toy with two older figures, another metadata entry, and a JSON beside it."""
    old = Figure("pck@0.05 v>0", 0.1, "root", 10, "2026-01-01")
    contract = toys.toy_contract().replace(evaluation=(old, OTHER_DATA))
    path = toys.save_toy_model(tmp_path / "toy.onnx", contract=contract)
    proto = onnx.load(path)
    proto.metadata_props.add(key="other", value="stays")
    path.write_bytes(proto.SerializeToString())
    record = {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "contract": {}, "golden": {}}
    write_sidecar(sidecar_path(path), record)
    return path


def test_card_is_in_the_file_and_beside_it_and_the_graph_stays(model: Path) -> None:
    crops = np.random.default_rng(0).integers(0, 255, (2, 256, 192, 3), dtype=np.uint8)
    before, graph = OrtBackend(model).run(crops).heatmaps, onnx.load(model).graph.SerializeToString()
    write_card(model, [NEW])
    after = OrtBackend(model)
    assert after.contract.evaluation == (OTHER_DATA, NEW)
    np.testing.assert_array_equal(after.run(crops).heatmaps, before)
    proto = onnx.load(model)
    assert proto.graph.SerializeToString() == graph
    assert {entry.key: entry.value for entry in proto.metadata_props}["other"] == "stays"
    record = json.loads(sidecar_path(model).read_text())
    assert record["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert record["size_bytes"] == model.stat().st_size
    assert ModelContract.from_json(json.dumps(record["contract"]), where="x") == after.contract
    assert sorted(file.name for file in model.parent.iterdir()) == ["toy.json", "toy.onnx"]


def test_writing_twice_changes_nothing_more(model: Path) -> None:
    write_card(model, [NEW])
    first = model.read_bytes()
    write_card(model, [NEW])
    assert model.read_bytes() == first


def test_without_a_json_beside_it_the_file_alone_is_written(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    sidecar_path(model).unlink()
    with caplog.at_level(logging.WARNING, "lbkit"):
        write_card(model, [NEW])
    assert OrtBackend(model).contract.evaluation[-1] == NEW
    assert "no such file" in caplog.text
    assert not sidecar_path(model).exists()


@pytest.mark.parametrize(("text", "words"), [("{", "is not JSON"), ('{"sha256": "0"}', "sha256 differ")])
def test_the_json_of_another_file_is_not_written_over(model: Path, text: str, words: str) -> None:
    sidecar_path(model).write_text(text)
    before = model.read_bytes()
    with pytest.raises(ModelError, match=words):
        write_card(model, [NEW])
    assert model.read_bytes() == before


def test_a_file_without_contract_is_refused(toys: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="carries no lbkit contract"):
        write_card(toys.save_toy_model(tmp_path / "bare.onnx", contract=""), [NEW])


def test_figures_written_before_there_were_intervals_are_still_read(toys: ModuleType) -> None:
    mapping = json.loads(toys.toy_contract().replace(evaluation=(NEW,)).to_json())
    for name in ("interval", "data_sha256"):
        del mapping["evaluation"][0][name]
    figure = ModelContract.from_json(json.dumps(mapping), where="x").evaluation[0]
    assert (figure.interval, figure.data_sha256) == (None, None)
    mapping["evaluation"][0]["interval"] = [0.1]
    with pytest.raises(ContractError, match=r"evaluation\[0\]\.interval should have 2 items"):
        ModelContract.from_json(json.dumps(mapping), where="x")


def test_card_figures_name_what_was_unusual(
    toys: ModuleType, toy_model: Path, roots: ModuleType, tmp_path: Path
) -> None:
    pytest.importorskip("pycocotools")
    from lbkit.evaluation.candidates import CandidateOptions, load_candidates
    from lbkit.evaluation.evaluate import EvaluationOptions, evaluate_models
    from lbkit.evaluation.persons import CocoRoot
    from lbkit.evaluation.truth import read_truth

    truth = read_truth(CocoRoot(roots.write_root(tmp_path / "data", toys, [roots.RootPerson(1), roots.RootPerson(2)])))
    names = {}
    for name, flip, norm, decoder in (("usual", False, "box", None), ("unusual", True, "image", "argmax")):
        loaded = load_candidates([str(toy_model)], CandidateOptions(flip=flip, decoder=decoder))  # type: ignore[arg-type]
        judged, _ = evaluate_models(loaded, truth, options=EvaluationOptions(norm=norm))  # type: ignore[arg-type]
        names[name] = card_figures(judged[0].evaluation, date=datetime.date(2026, 2, 3))
    first = names["usual"][0]
    assert first == Figure("pck@0.05 v>0", 1.0, "data", 2, "2026-02-03", (1.0, 1.0), truth.annotations_sha256)
    assert [figure.metric for figure in names["usual"]][-3:] == ["pck@0.10 all six", "oks ap", "oks ar"]
    assert names["unusual"][0].metric == "pck@0.05 v>0 flip by image with argmax"


def test_description_of_a_file_and_of_a_name(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LBKIT_MODELS", str(model.parent))
    by_path, by_name = describe_model(model), describe_model("toy")
    assert by_path == by_name
    assert (by_path.kind, by_path.sha256) == ("onnx", hashlib.sha256(model.read_bytes()).hexdigest())
