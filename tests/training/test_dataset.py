from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lbkit.core.geometry import ImageSize
from lbkit.models.registry import bare_contract
from training.augment import Person, varied_transform, vary_framing
from training.config import Augmentation, read_recipe
from training.dataset import CropDataset, DrawnBatches, plain_batches
from training.people import Annotated, load_sources

CONTRACT = bare_contract("cnn", weights_sha256="", training_data=())
STILL = Augmentation(
    rotation=0, scale=0, translation=0, flip=0, half_body=0, legs_only=0, color=0, gray=0, blur=0, jpeg=0, cutout=0
)
# Six joints at distinct places; each gets a blob of its own colour in the picture.
JOINTS = np.array([[70, 90], [50, 92], [75, 130], [48, 128], [72, 170], [52, 168.0]])
COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255)]


def blobs() -> np.ndarray:
    image = np.zeros((200, 130, 3), np.uint8)
    for (x, y), color in zip(JOINTS, COLORS, strict=True):
        cv2.circle(image, (int(x), int(y)), 4, color, -1)
    return image


def make_dataset(recipe_path: Path, folder: Path, plan: Augmentation | None) -> CropDataset:
    cv2.imwrite(str(folder / "blobs.png"), blobs()[..., ::-1])
    box = np.array([30.0, 20.0, 95.0, 185.0])
    person = Annotated("toy", folder / "blobs.png", 1, box, JOINTS, np.array([2, 2, 2, 2, 2, 1]))
    recipe = read_recipe(recipe_path, settings=["input_height=256", "input_width=192"])
    return CropDataset([person], CONTRACT, recipe=recipe, augmentation=plan)


def color_centers(image: np.ndarray) -> np.ndarray:
    centers = []
    for color in COLORS:
        distance = np.abs(image.astype(int) - np.array(color)).sum(axis=2)
        ys, xs = np.nonzero(distance < 120)
        centers.append([xs.mean(), ys.mean()] if len(xs) else [np.nan, np.nan])
    return np.array(centers)


@pytest.mark.parametrize(
    "plan",
    [
        None,
        STILL,
        replace(STILL, rotation=1, rotation_deg=25.0),
        replace(STILL, scale=0.3, translation=0.1),
        replace(STILL, half_body=1),
        replace(STILL, legs_only=1),
        replace(STILL, rotation=1, scale=0.2, translation=0.05, legs_only=0.5, half_body=0.3),
    ],
    ids=["plain", "still", "turned", "scaled", "half-body", "legs-only", "all"],
)
def test_joints_stay_on_their_blobs(recipe_path: Path, tmp_path: Path, plan: Augmentation | None) -> None:
    dataset = make_dataset(recipe_path, tmp_path, plan)
    for seed in range(6):
        item = dataset[0, seed]
        centers = color_centers(item["image"].permute(1, 2, 0).numpy())
        inside = item["weight"].numpy() > 0
        margin = np.all((item["joints"].numpy() > 12) & (item["joints"].numpy() < [180, 244]), axis=1)
        assert inside.any()
        np.testing.assert_allclose(item["joints"].numpy()[margin], centers[margin], atol=1.0)


def test_mirroring_swaps_left_and_right(recipe_path: Path, tmp_path: Path) -> None:
    plain = make_dataset(recipe_path, tmp_path, STILL)[0, 0]
    mirrored = make_dataset(recipe_path, tmp_path, replace(STILL, flip=1))[0, 0]
    np.testing.assert_array_equal(mirrored["image"].numpy(), plain["image"].numpy()[..., ::-1])
    swapped = plain["joints"].numpy()[[1, 0, 3, 2, 5, 4]]
    np.testing.assert_allclose(mirrored["joints"].numpy(), np.stack([191 - swapped[:, 0], swapped[:, 1]], 1), atol=1e-4)


def test_targets_and_heights_belong_to_the_crop(recipe_path: Path, tmp_path: Path) -> None:
    item = make_dataset(recipe_path, tmp_path, None)[0, 0]
    assert item["target"].shape == (6, 64, 48)
    y, x = np.unravel_index(item["target"][3].numpy().argmax(), (64, 48))
    np.testing.assert_allclose((np.array([x, y]) + 0.5) * 4 - 0.5, item["joints"][3].numpy(), atol=2.0)
    # Padding 1.25 puts the 4:3 box into 256 / 1.25 input pixels.
    assert float(item["height"]) == pytest.approx(256 / 1.25)


def test_equal_addresses_give_equal_crops_and_other_seeds_others(recipe_path: Path, tmp_path: Path) -> None:
    dataset = make_dataset(recipe_path, tmp_path, Augmentation(color=1, blur=1, jpeg=1, cutout=1))
    first, again, other = dataset[0, 7], dataset[0, 7], dataset[0, 8]
    for name in first:
        np.testing.assert_array_equal(first[name].numpy(), again[name].numpy())
    assert (first["image"] != other["image"]).any()


def test_legs_only_cuts_the_picture_above_the_hips() -> None:
    person = Person(blobs(), np.array([30.0, 20.0, 95.0, 185.0]), JOINTS, np.ones(6, bool))
    rng = np.random.default_rng(0)
    cut = vary_framing(person, replace(STILL, legs_only=1), rng=rng)
    removed = 200 - cut.image.shape[0]
    assert 20 < removed < 90
    np.testing.assert_allclose(cut.joints_xy, JOINTS - [0, removed])
    assert cut.box_xyxy[1] == 0
    lying = replace_joints(person, JOINTS[:, ::-1].copy())
    assert vary_framing(lying, replace(STILL, legs_only=1), rng=rng) is lying


@pytest.mark.parametrize("seed", range(40))
def test_a_cut_person_ends_at_the_edge_and_loses_what_lies_beyond(seed: int) -> None:
    person = Person(blobs(), np.array([30.0, 20.0, 95.0, 185.0]), JOINTS, np.array([True] * 5 + [False]))
    rng = np.random.default_rng(seed)
    cut = vary_framing(person, replace(STILL, cut_off=1), rng=rng)
    if cut is person:
        return
    height, width = cut.image.shape[:2]
    left, top, right, bottom = cut.box_xyxy
    assert cut.labelled.any()
    assert not cut.labelled[5]
    is_narrower, is_lower = width < 130, bottom < 185
    assert is_narrower != is_lower
    if is_narrower:
        assert left == 0 or right == width
    else:
        assert height in (200, bottom)
    inside = cut.joints_xy[cut.labelled]
    assert (inside > [left, top]).all()
    assert (inside < [min(right, width), min(bottom, height)]).all()
    # The blobs of joints that are labelled still are where the joints are.
    for (x, y), color, is_labelled in zip(cut.joints_xy, COLORS, cut.labelled, strict=True):
        if is_labelled:
            np.testing.assert_array_equal(cut.image[int(y), int(x)], color)


def test_cuts_come_in_all_three_kinds_and_never_leave_nothing() -> None:
    person = Person(blobs(), np.array([30.0, 20.0, 95.0, 185.0]), JOINTS, np.ones(6, bool))
    kinds = set()
    for seed in range(60):
        cut = vary_framing(person, replace(STILL, cut_off=1), rng=np.random.default_rng(seed))
        ends_below, covered = cut.image.shape[0] < 200, cut.image.shape == (200, 130, 3) and cut is not person
        kinds.add("below" if ends_below else "covered" if covered else "unchanged" if cut is person else "side")
    assert kinds >= {"below", "covered", "side"}
    nobody = Person(person.image, person.box_xyxy, person.joints_xy, np.zeros(6, bool))
    for seed in range(20):
        assert vary_framing(nobody, replace(STILL, cut_off=1), rng=np.random.default_rng(seed)) is nobody


def test_few_pixels_lose_detail_and_keep_the_size(recipe_path: Path, tmp_path: Path) -> None:
    plain = make_dataset(recipe_path, tmp_path, STILL)[0, 3]["image"].float()
    coarse = make_dataset(recipe_path, tmp_path, replace(STILL, low_resolution=1))[0, 3]["image"].float()
    assert coarse.shape == plain.shape
    assert float(coarse.mean()) == pytest.approx(float(plain.mean()), rel=0.02)
    steps = [float((image[:, :, 1:] - image[:, :, :-1]).abs().max()) for image in (plain, coarse)]
    assert steps[1] < 0.8 * steps[0]


def replace_joints(person: Person, joints: np.ndarray) -> Person:
    return Person(person.image, person.box_xyxy, joints, person.labelled)


def test_unknown_joints_weigh_nothing_and_no_framing_invents_them() -> None:
    labelled = np.array([True, False, True, False, False, False])
    person = Person(blobs(), np.array([30.0, 20.0, 95.0, 185.0]), JOINTS, labelled)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        framed = vary_framing(person, Augmentation(legs_only=0.5, half_body=0.5), rng=rng)
        np.testing.assert_array_equal(framed.labelled, labelled)
        varied_transform(framed, Augmentation(), size=ImageSize(256, 192), padding=1.25, rng=rng)


def test_an_epoch_draws_by_repeat_and_is_the_same_again() -> None:
    repeats = np.array([2.0] * 10 + [0.0] * 5 + [0.5] * 40)
    batches = list(DrawnBatches(repeats, batch_size=4, seed=3, epoch=1))
    counts = np.bincount([index for batch in batches for index, _ in batch], minlength=55)
    assert counts[:10].sum() >= 17
    assert counts[10:15].sum() == 0
    assert 5 < counts[15:].sum() < 35
    assert list(DrawnBatches(repeats, batch_size=4, seed=3, epoch=1)) == batches
    assert list(DrawnBatches(repeats, batch_size=4, seed=3, epoch=2)) != batches
    assert list(DrawnBatches(repeats, batch_size=4, seed=3, epoch=1, skip=2)) == batches[2:]
    assert [len(batch) for batch in plain_batches(5, 2)] == [2, 2, 1]


def test_rendered_figures_need_no_files(recipe_path: Path, tmp_path: Path) -> None:
    recipe = read_recipe(recipe_path, settings=['sources=[{name="synthetic", persons=5}]'])
    (part,) = load_sources(recipe, tmp_path)
    dataset = CropDataset(part.training, CONTRACT, recipe=recipe, augmentation=Augmentation())
    item = dataset[2, 11]
    assert item["image"].shape == (3, 64, 64)
    assert item["labelled"].sum() >= 2
    assert float(item["image"].float().std()) > 5
