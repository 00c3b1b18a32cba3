from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

import training.bystanders
from lbkit.models.registry import bare_contract
from training.augment import Person
from training.bystanders import add_bystander
from training.config import Augmentation, read_recipe
from training.dataset import CropDataset
from training.people import Annotated

BOX = np.array([80.0, 40.0, 140.0, 220.0])
JOINTS = np.array([[90, 120], [125, 121], [92, 160], [126, 162], [95, 205], [128, 206.0]])
BLUE, RED = (10, 20, 200), (230, 20, 10)


def someone(color: tuple[int, int, int], box: np.ndarray = BOX, shape: tuple[int, int] = (240, 320)) -> Person:
    image = np.full((*shape, 3), color, dtype=np.uint8)
    return Person(image, box, JOINTS, np.ones(6, dtype=bool))


def red_share(image: np.ndarray, box: np.ndarray) -> float:
    left, top, right, bottom = box.astype(int)
    inside = image[top:bottom, left:right].reshape(-1, 3)
    return float((inside[:, 0] > 120).mean())


@pytest.mark.parametrize("seed", range(12))
def test_a_bystander_is_pasted_and_nothing_of_the_person_s_labels_changes(seed: int) -> None:
    person, other = someone(BLUE), someone(RED)
    before = person.image.copy()
    result = add_bystander(person, other, rng=np.random.default_rng(seed))
    assert np.array_equal(person.image, before)
    assert np.array_equal(result.joints_xy, person.joints_xy)
    assert np.array_equal(result.box_xyxy, person.box_xyxy)
    assert result.image.shape == person.image.shape
    assert red_share(result.image, np.array([0, 0, 320, 240])) > 0.01


def test_who_stands_behind_is_hidden_by_the_person_and_who_stands_in_front_hides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training.bystanders, "DISTANCE", (0.3, 0.3))
    core = np.array([100.0, 60.0, 120.0, 200.0])
    for share, least, most in ((1.0, 0.0, 0.0), (0.0, 0.3, 1.0)):
        monkeypatch.setattr(training.bystanders, "BEHIND", share)
        covered = [
            red_share(add_bystander(someone(BLUE), someone(RED), rng=np.random.default_rng(seed)).image, core)
            for seed in range(8)
        ]
        assert least <= float(np.mean(covered)) <= most


def test_both_sides_are_used() -> None:
    sides = set()
    for seed in range(20):
        image = add_bystander(someone(BLUE), someone(RED), rng=np.random.default_rng(seed)).image
        red = np.nonzero(image[..., 0] > 120)[1].mean()
        sides.add(bool(red > 110))
    assert sides == {True, False}


def test_who_is_tiny_or_outside_the_picture_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = someone(RED, np.array([10.0, 10.0, 22.0, 40.0]))
    person = someone(BLUE)
    assert add_bystander(person, tiny, rng=np.random.default_rng(0)) is person
    monkeypatch.setattr(training.bystanders, "DISTANCE", (9.0, 9.0))
    away = add_bystander(person, someone(RED), rng=np.random.default_rng(0))
    assert np.array_equal(away.image, person.image)


def test_the_data_set_takes_bystanders_from_its_people_the_same_for_the_same_seed(
    recipe_path: Path, tmp_path: Path
) -> None:
    entries = []
    for name, color in (("blue", BLUE), ("red", RED)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), someone(color).image[..., ::-1])
        entries.append(Annotated("toy", tmp_path / f"{name}.png", 1, BOX, JOINTS, np.full(6, 2)))
    still = {field.name: 0.0 for field in dataclasses.fields(Augmentation)}
    recipe = read_recipe(recipe_path)
    contract = bare_contract("cnn", weights_sha256="", training_data=())
    company = Augmentation(**{**still, "bystander": 1.0})
    dataset = CropDataset(entries, contract, recipe=recipe, augmentation=company)
    alone = CropDataset(entries, contract, recipe=recipe, augmentation=Augmentation(**still))
    changed = 0
    for seed in range(10):
        crop, again, plain = dataset[0, seed], dataset[0, seed], alone[0, seed]
        assert np.array_equal(crop["image"], again["image"])
        assert np.array_equal(crop["joints"], plain["joints"])
        changed += not np.array_equal(crop["image"], plain["image"])
    assert changed >= 2  # half of the draws are the person itself, of one colour here
