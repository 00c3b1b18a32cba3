import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from lbkit.cli.figures import POSE_CHOICES, figures
from lbkit.cli.main import run
from lbkit.errors import OutputError
from lbkit.synthetic.poses import POSE_NAMES


def _invoke(*arguments):
    return CliRunner().invoke(figures, [str(argument) for argument in arguments])


def test_it_writes_pictures_and_annotations_and_names_the_next_command(tmp_path):
    result = _invoke(tmp_path / "out", "--count", 2, "--seed", 4, "--size", "40x64", "--pose", "squatting")
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert [(entry["height"], entry["width"]) for entry in content["images"]] == [(40, 64)] * 2
    assert {entry["pose"] for entry in content["annotations"]} == {"squatting"}
    assert "wrote 2 pictures" in result.stderr
    assert f"lbkit infer {tmp_path / 'out'} --boxes coco:{tmp_path / 'out' / 'annotations.json'}" in result.stderr
    assert result.stdout == ""


def test_it_refuses_to_overwrite_until_forced(tmp_path):
    arguments = (tmp_path, "--count", 1, "--size", "24x24")
    assert _invoke(*arguments).exit_code == 0
    before = (tmp_path / "figure-000.png").read_bytes()
    refused = _invoke(*arguments, "--seed", 1)
    assert isinstance(refused.exception, OutputError)
    assert (tmp_path / "figure-000.png").read_bytes() == before
    assert _invoke(*arguments, "--seed", 1, "--force").exit_code == 0
    assert (tmp_path / "figure-000.png").read_bytes() != before


def test_the_main_command_knows_it_and_ends_with_one_on_refusal(tmp_path, capsys):
    arguments = ["figures", str(tmp_path), "--count", "1", "--size", "24x24"]
    assert run(arguments) == 0
    assert run(arguments) == 1
    assert "--force" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["640", "0x40", "40x", "40*60", "axb"])
def test_a_size_of_another_form_is_a_usage_error(tmp_path, size):
    result = _invoke(tmp_path, "--size", size)
    assert result.exit_code == 2
    assert "480x640" in result.stderr


def test_a_size_too_small_is_said_so(tmp_path, capsys):
    assert run(["figures", str(tmp_path), "--size", "8x8"]) == 1
    assert "at least 16 px" in capsys.readouterr().err


def test_an_absurd_count_is_refused_at_once(tmp_path, capsys):
    assert run(["figures", str(tmp_path / "many"), "--count", "1000000000"]) == 1
    told = capsys.readouterr().err
    assert "1,000,000,000 figures are too many for a folder, which holds 100,000; fill several folders" in told
    assert run(["figures", str(tmp_path / "long.mp4"), "--count", "1000000000"]) == 2
    assert "a clip has at most 1000 squats; make several." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_pose_gets_the_nearest_one(tmp_path):
    result = _invoke(tmp_path, "--pose", "squating")
    assert result.exit_code == 2
    assert "squatting" in result.stderr


def test_the_choices_are_the_librarys():
    assert POSE_CHOICES == POSE_NAMES


def test_importing_the_command_brings_no_numpy():
    code = "import sys, lbkit.cli.figures; sys.exit(int('numpy' in sys.modules or 'cv2' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
