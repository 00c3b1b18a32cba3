from __future__ import annotations

from pathlib import Path

import pytest

from lbkit.runtime.engine_cache import engine_folder, engine_options, model_hash


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LBKIT_CACHE", str(tmp_path / "cache"))


def test_a_file_and_its_bytes_are_one_model(toy_model: Path) -> None:
    assert model_hash(toy_model) == model_hash(toy_model.read_bytes())


def test_every_model_gpu_and_version_has_a_folder_of_its_own() -> None:
    folders = {
        engine_folder(model, gpu=gpu, version=version)
        for model in (b"a", b"b")
        for gpu in ("Toy 100 sm_90", "Toy 200 sm_90", "Toy 100 sm_80")
        for version in ("1.30", "1.31")
    }
    assert len(folders) == 12
    assert engine_folder(b"a", gpu="x", version="1") == engine_folder(b"a", gpu="x", version="1")


def test_an_engine_of_another_gpu_is_not_taken(tmp_path: Path) -> None:
    first = engine_options(b"model", gpu="Toy 100 sm_90", version="1.31")
    (Path(first["trt_engine_cache_path"]) / "x.engine").write_bytes(b"compiled")
    again = engine_options(b"model", gpu="Toy 100 sm_90", version="1.31")
    other = engine_options(b"model", gpu="Toy 200 sm_90", version="1.31")
    assert [path.name for path in Path(again["trt_engine_cache_path"]).iterdir()] == ["x.engine"]
    assert list(Path(other["trt_engine_cache_path"]).iterdir()) == []


def test_without_a_gpu_s_name_nothing_is_kept(tmp_path: Path) -> None:
    assert engine_options(b"model", gpu=None, version="1.31") == {}
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    assert engine_options(b"model", gpu="Toy", version="1") == {}
    assert "no engine is kept" in caplog.text
