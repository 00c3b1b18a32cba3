"""`lbkit squat` with a shipped network on rendered people: whom it counts, and whether it notices others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lbkit.cli.main import run
from lbkit.core.geometry import ImageArray, ImageSize
from lbkit.motion.clip import ClipPlan, rendered_frames
from lbkit.motion.synthetic import PlannedSquat

pytest.importorskip("av")

from lbkit.video.sink import VideoWriter

SIZE = ImageSize(height=256, width=224)
FRAMES_PER_S = 8.0
SQUATS = (PlannedSquat(depth_deg=100, rest_s=0.5), PlannedSquat(depth_deg=105, rest_s=0.5))


def pictures(seed: int) -> list[ImageArray]:
    """Somebody who squats twice, from the side."""
    plan = ClipPlan(SQUATS, "side", SIZE, seed=seed, frames_per_s=FRAMES_PER_S)
    return [figure.image for _, figure in rendered_frames(plan)]


@pytest.fixture(scope="module")
def person() -> list[ImageArray]:
    return pictures(3)


def write(path: Path, images: list[ImageArray]) -> Path:
    with VideoWriter(path, size=ImageSize.of(images[0]), frames_per_s=FRAMES_PER_S) as writer:
        for number, image in enumerate(images):
            writer.write(number / FRAMES_PER_S, image)
    return path


def squats_of(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, set[str]]:
    assert run(["squat", str(path), "--model", "fpn-int8", "--json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)
    return found["count"], {warning["code"] for warning in found["warnings"]}


def test_one_person_is_counted_without_a_word_of_others(
    person: list[ImageArray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count, warnings = squats_of(write(tmp_path / "one.mp4", person), capsys)
    assert count == 2
    assert not warnings & {"somebody_else", "person_changed"}


def test_a_second_person_beside_the_first_is_told_of(
    person: list[ImageArray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = pictures(5)
    both = [np.ascontiguousarray(np.hstack(pair)) for pair in zip(person, other[::-1], strict=True)]
    count, warnings = squats_of(write(tmp_path / "two.mp4", both), capsys)
    assert count == 2
    assert "somebody_else" in warnings


def test_a_person_who_gives_way_to_another_is_told_of(
    person: list[ImageArray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The camera sees one person at the left, and from the middle of the clip on one at the right."""
    half, empty = len(person) // 2, np.full_like(person[0], 90)
    images = [np.hstack([image, empty] if number < half else [empty, image]) for number, image in enumerate(person)]
    _, warnings = squats_of(write(tmp_path / "then.mp4", [np.ascontiguousarray(image) for image in images]), capsys)
    assert "person_changed" in warnings
