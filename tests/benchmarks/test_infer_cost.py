from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
Run = Callable[..., Any]


def load(name: str) -> ModuleType:
    """Import a module of the benchmarks, which are no package."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


measures = load("measures")
picture_set = load("picture_set")
whole_process = load("whole_process")


@pytest.fixture(scope="module")
def document(
    run_benchmark: Run, toy_model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What a quick run writes, of a folder that also has a file that is no picture."""
    folder = tmp_path_factory.mktemp("out")
    shutil.copytree(photos, folder / "photos")
    (folder / "photos" / "broken.jpg").write_bytes(b"no picture")
    output = folder / "cost.json"
    options = ["--model", toy_model, "--photos", folder / "photos", "--output", output]
    done = run_benchmark("infer_cost.py", "--quick", *options)
    assert done.returncode == 0, done.stderr
    assert "| memory" in done.stdout
    return json.loads(output.read_text(encoding="utf-8"))


def figures(document: dict[str, Any], section: str) -> dict[str, dict[str, Any]]:
    return {figure["name"]: figure for figure in document["sections"][section]}


@pytest.mark.slow
def test_a_quick_run_has_every_section(document: dict[str, Any]) -> None:
    assert list(document["sections"]) == ["start", "throughput", "memory"]
    assert document["settings"]["pictures"].startswith("3 different photographs")
    assert document["machine"]["versions"]["lbkit"]
    for section in document["sections"].values():
        for figure in section:
            assert figure["least"] <= figure["median"] <= figure["most"]
            assert (figure["is_met"] is None) == (figure["target"] is None)


@pytest.mark.slow
def test_every_target_is_there(document: dict[str, Any]) -> None:
    targets = {
        (section, name): figure["target"]
        for section in document["sections"]
        for name, figure in figures(document, section).items()
        if figure["target"] is not None
    }
    assert targets == {
        ("start", "lbkit --help"): 0.2,
        ("start", "lbkit infer one.jpg"): 1.0,
        ("throughput", "run_inference / sum"): 1.15,
        ("throughput", "lbkit infer / sum"): 1.15,
        ("throughput", "run_inference, share of the model's own rate"): 0.85,
        ("memory", "growth from the first"): 5.0,
    }


@pytest.mark.slow
def test_the_sum_is_that_of_the_parts(document: dict[str, Any]) -> None:
    found = figures(document, "throughput")
    parts = sum(found[name]["median"] for name in ("reading", "warping", "model"))
    assert found["sum of these three"]["median"] == pytest.approx(parts)
    ratio = found["run_inference"]["median"] / parts
    assert found["run_inference / sum"]["median"] == pytest.approx(ratio)
    assert 1 <= found["search: looks a picture"]["median"] <= 3


@pytest.mark.slow
def test_nothing_tells_where_the_files_lie(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    assert str(tmp_path_factory.getbasetemp()) not in json.dumps(document)
    assert str(FOLDER.parent) not in json.dumps(document)


def test_the_readme_takes_whole_runs_alone(run_benchmark: Run, toy_model: Path) -> None:
    done = run_benchmark("infer_cost.py", "--quick", "--readme", "--model", toy_model)
    assert done.returncode == 2
    assert "--readme needs the whole run" in done.stderr


def test_a_folder_without_pictures_is_an_error(run_benchmark: Run, toy_model: Path, tmp_path: Path) -> None:
    done = run_benchmark("infer_cost.py", "--quick", "--photos", tmp_path, "--model", toy_model)
    assert done.returncode == 1
    assert "no readable picture" in done.stderr


def test_peak_memory_is_the_child_s_own() -> None:
    held = bytearray(200_000_000)
    held[::4096] = b"\1" * len(held[::4096])
    cost = whole_process.run_process([sys.executable, "-c", "print('done')"])
    assert cost.stdout == "done\n"
    assert cost.peak_bytes < 100_000_000
    fat = whole_process.run_process([sys.executable, "-c", "b'1' * 150_000_000"])
    assert 150_000_000 < fat.peak_bytes < 250_000_000


def test_a_failing_command_is_an_error() -> None:
    with pytest.raises(click.ClickException, match=r"ended with 3:\nwhy"):
        whole_process.run_process([sys.executable, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"])


def test_pictures_are_repeated_in_order(photos: Path, tmp_path: Path) -> None:
    pictures = picture_set.photographs(photos, 2)
    links = picture_set.repeat_pictures(pictures.paths, tmp_path / "links", 5)
    assert sorted((tmp_path / "links").iterdir()) == links
    originals = [pictures.paths[index % 2] for index in range(5)]
    assert [link.read_bytes() for link in links] == [original.read_bytes() for original in originals]


def test_rendered_figures_are_readable(tmp_path: Path) -> None:
    figures = picture_set.rendered_figures(tmp_path, 2)
    assert [path.name for path in figures.paths] == ["figure-000.jpg", "figure-001.jpg"]
    assert figures.mean_megapixels == pytest.approx(0.48 * 0.64)


def test_figures_are_put_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n{measures.BEGIN_MARK}\nold\n{measures.END_MARK}\nafter\n", encoding="utf-8")
    rows = [
        measures.Measure("start", "help", "s", (0.3, 0.1, 0.2), 0.15),
        measures.Measure("memory", "peak", "MB", (512,)),
    ]
    measures.replace_figures(page, measures.table(rows))
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{measures.BEGIN_MARK}\n| section")
    assert text.endswith(f"|\n{measures.END_MARK}\nafter\n")
    assert "old" not in text
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[4:6]]
    assert cells == [
        ["start", "help", "0.200 s", "0.100 to 0.300", "≤ 0.15 s", "**no**"],
        ["memory", "peak", "512 MB", "", "", ""],
    ]


def test_a_grid_has_a_column_a_section() -> None:
    rows = [
        measures.Measure("batch 1", "eager", "ms", (3.0, 1.0, 2.0)),
        measures.Measure("batch 8", "eager", "ms", (8.0,)),
        measures.Measure("batch 8", "int8", "ms", (4.0,)),
    ]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in measures.grid(rows, corner="ms").splitlines()
    ]
    assert [cells[0], *cells[2:]] == [["ms", "batch 1", "batch 8"], ["eager", "2.00", "8.00"], ["int8", "", "4.00"]]


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("no marks\n", encoding="utf-8")
    with pytest.raises(click.ClickException, match="should have"):
        measures.replace_figures(page, "new")
    assert page.read_text(encoding="utf-8") == "no marks\n"


def test_the_readme_of_the_folder_has_the_marks() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert text.count(measures.BEGIN_MARK) == text.count(measures.END_MARK) == 1
    assert text.index(measures.BEGIN_MARK) < text.index(measures.END_MARK)
