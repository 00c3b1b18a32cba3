from dataclasses import replace

import numpy as np
import pytest

from lbkit.core.geometry import ImageSize
from lbkit.errors import InputError
from lbkit.synthetic.body import HAIR_STYLES, Outfit, dress
from lbkit.synthetic.camera import Camera
from lbkit.synthetic.figures import POSE_NAMES, VIEW_NAMES, Scene, draw_figure, random_figure
from lbkit.synthetic.poses import squat_pose
from lbkit.synthetic.raster import Part, rasterise
from lbkit.synthetic.render import Lighting
from lbkit.synthetic.skeleton import BodyShape, FigurePose, LegPose, place_skeleton

SHAPE = BodyShape()
SCENE = Scene(SHAPE, Outfit(), Lighting(np.array([0.0, 0.8, 0.6])))
SIZE = ImageSize(200, 150)


def _camera(azimuth_deg=0.0, size=SIZE, focal_px=330.0):
    angle = np.deg2rad(azimuth_deg)
    position = [4.0 * np.sin(angle), 1.0, 4.0 * np.cos(angle)]
    return Camera.looking_at([0.0, 0.9, 0.0], position=position, focal_px=focal_px, size=size)


def _figure(azimuth_deg=0.0, pose=None, **settings):
    camera = _camera(azimuth_deg, **settings)
    backdrop = np.zeros((camera.size.height, camera.size.width, 3), np.uint8)
    skeleton = place_skeleton(SHAPE, pose or FigurePose())
    return draw_figure(SCENE, skeleton, camera=camera, background=backdrop, pose="standing")


def _check(figure, size):
    assert figure.image.shape == (size.height, size.width, 3)
    assert figure.image.dtype == np.uint8
    left, top, right, bottom = figure.box_xyxy
    assert 0 <= left < right <= size.width
    assert 0 <= top < bottom <= size.height
    assert 0 < figure.area_px <= (right - left) * (bottom - top)
    for (x, y), v in zip(figure.joints_xy, figure.joints_visible, strict=True):
        inside = -0.5 <= x < size.width - 0.5 and -0.5 <= y < size.height - 0.5
        assert (v > 0) == inside
        if v == 2:
            assert left <= x + 0.5 <= right
            assert top <= y + 0.5 <= bottom


@pytest.mark.parametrize("size", [(16, 16), (16, 96), (90, 24), (121, 67), (64, 200)], ids=str)
@pytest.mark.parametrize("pose", POSE_NAMES)
def test_every_size_and_pose_gives_a_sound_figure(size, pose):
    for seed in range(3):
        figure = random_figure(np.random.default_rng(seed), ImageSize(*size), pose=pose, cropped_share=0.3)
        _check(figure, ImageSize(*size))
        assert figure.pose == pose


def test_many_random_figures_are_sound():
    size = ImageSize(72, 54)
    figures = [random_figure(np.random.default_rng(seed), size) for seed in range(80)]
    for figure in figures:
        _check(figure, size)
    assert {figure.pose for figure in figures} == set(POSE_NAMES)
    assert {figure.view for figure in figures} == set(VIEW_NAMES)
    whole = [figure for figure in figures if np.all(figure.joints_visible > 0)]
    assert len(whole) > 60


@pytest.mark.parametrize("view", VIEW_NAMES)
def test_the_view_asked_for_is_the_one_given(view):
    for seed in range(4):
        figure = random_figure(np.random.default_rng(seed), ImageSize(48, 40), view=view)
        assert figure.view == view


def test_the_same_seed_gives_the_same_picture_and_another_another():
    first, again, other = (random_figure(np.random.default_rng(seed), SIZE) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.joints_xy, again.joints_xy)
    assert np.mean(first.image != other.image) > 0.5


def test_joints_are_the_projected_centres_of_the_joints_in_space():
    figure = _figure(azimuth_deg=35.0, pose=squat_pose(SHAPE, knee_flexion_deg=70.0))
    for joint, xy in zip(figure.skeleton.lower_body_xyz, figure.joints_xy, strict=True):
        x, y, z = figure.camera.rotation @ (joint - figure.camera.position)
        np.testing.assert_allclose(xy, [330.0 * x / z + 74.5, 330.0 * y / z + 99.5], rtol=0, atol=1e-9)
    np.testing.assert_allclose(figure.knee_flexion_deg, 70.0, atol=1e-6)


def test_a_known_camera_puts_the_hip_where_arithmetic_says():
    figure = _figure()
    hip = figure.skeleton.hips[0]
    half_hips = 0.5 * 0.112 * 1.75
    # Straight legs: hips over ankles, so 4 m away but for the camera's tilt of 0.1 m down over 4 m.
    tilt = np.arctan2(0.1, 4.0)
    depth = 4.0 * np.cos(tilt) + (1.0 - 0.53 * 1.75) * np.sin(tilt)
    np.testing.assert_allclose(hip, [half_hips, 0.53 * 1.75, 0.0], atol=1e-12)
    assert figure.joints_xy[0, 0] == pytest.approx(74.5 + 330.0 * half_hips / depth)


def _depth(figure, point):
    return float((figure.camera.rotation @ (point - figure.camera.position))[2])


def test_left_is_at_larger_x_from_the_front_and_at_smaller_x_from_behind():
    front, back = _figure(0.0).joints_xy, _figure(180.0).joints_xy
    for left, right in ((0, 1), (2, 3), (4, 5)):
        assert front[left, 0] > front[right, 0] + 5
        assert back[left, 0] < back[right, 0] - 5


def test_the_limb_seen_at_a_joint_is_its_own():
    """A ray a little beside each frontal joint meets the leg of the right side."""
    figure = _figure(pose=FigurePose(LegPose(hip_abduction_deg=10), LegPose(hip_abduction_deg=10)))
    surfaces = rasterise(dress(figure.skeleton, shape=SHAPE, outfit=SCENE.outfit), figure.camera)
    sides = [{Part.LEFT_THIGH, Part.LEFT_SHANK, Part.LEFT_FOOT}, {Part.RIGHT_THIGH, Part.RIGHT_SHANK, Part.RIGHT_FOOT}]
    for index in (2, 3, 4, 5):
        part, depth = surfaces.at(figure.joints_xy[index])
        assert part in sides[index % 2]
        joint_depth = _depth(figure, figure.skeleton.lower_body_xyz[index])
        assert 0.01 < joint_depth - depth < 0.12


def test_the_knee_lies_midway_across_the_silhouette_of_the_leg():
    figure = _figure(
        pose=FigurePose(LegPose(hip_abduction_deg=14), LegPose(hip_abduction_deg=14)),
        size=ImageSize(400, 300),
        focal_px=660.0,
    )
    surfaces = rasterise(dress(figure.skeleton, shape=SHAPE, outfit=SCENE.outfit), figure.camera)
    for index, parts in ((2, (Part.LEFT_THIGH, Part.LEFT_SHANK)), (3, (Part.RIGHT_THIGH, Part.RIGHT_SHANK))):
        x, y = figure.joints_xy[index]
        row = surfaces.part[int((y + 0.5 - surfaces.top_px) * 2)]
        columns = np.flatnonzero(np.isin(row, parts)) / 2 + surfaces.left_px - 0.25
        assert columns.mean() == pytest.approx(x, abs=1.5)


def test_the_far_leg_is_hidden_from_the_side_and_no_joint_from_the_front():
    bent = squat_pose(SHAPE, knee_flexion_deg=60.0)
    assert list(_figure(0.0, pose=bent).joints_visible) == [2] * 6
    from_left = _figure(90.0, pose=bent)
    from_right = _figure(-90.0, pose=bent)
    assert list(from_left.joints_visible[[0, 2, 4]]) == [2, 2, 2]
    assert list(from_right.joints_visible[[1, 3, 5]]) == [2, 2, 2]
    assert from_left.joints_visible[1] == 1
    assert from_left.joints_visible[3] == 1
    assert from_right.joints_visible[0] == 1
    assert (from_left.view, from_right.view) == ("side", "side")
    assert (from_left.azimuth_deg, from_right.azimuth_deg) == pytest.approx((90.0, -90.0))


def test_joints_outside_the_picture_are_not_labelled():
    figure = _figure(focal_px=700.0)
    assert figure.joints_visible[4] == 0
    assert figure.joints_visible[5] == 0
    assert figure.joints_xy[4, 1] > SIZE.height
    assert figure.box_xyxy[3] == SIZE.height


def test_the_box_is_tight_about_what_changed():
    camera = _camera()
    black = np.zeros((SIZE.height, SIZE.width, 3), np.uint8)
    scene = replace(SCENE, shadow=0.0, grain=0.0, outfit=Outfit(*[(0.9, 0.9, 0.9)] * 9))
    figure = draw_figure(scene, place_skeleton(SHAPE, FigurePose()), camera=camera, background=black, pose="standing")
    rows, columns = np.nonzero(figure.image.max(axis=2) > 0)
    drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(figure.box_xyxy, drawn, atol=1.0)
    assert figure.area_px == pytest.approx(len(rows), rel=0.12)


def test_a_barbell_is_in_the_picture_but_not_in_the_box():
    loaded = replace(SCENE, plate_radius_m=0.2)
    camera = _camera(focal_px=200.0)
    backdrop = np.full((SIZE.height, SIZE.width, 3), 90, np.uint8)
    skeleton = place_skeleton(SHAPE, FigurePose())
    plain, heavy = (
        draw_figure(scene, skeleton, camera=camera, background=backdrop, pose="standing") for scene in (SCENE, loaded)
    )
    assert np.count_nonzero(np.abs(plain.image.astype(int) - heavy.image).max(axis=2) > 40) > 50
    np.testing.assert_allclose(heavy.box_xyxy[[0, 2]], plain.box_xyxy[[0, 2]], atol=0.6)


def _blue_share_of_head(outfit, azimuth_deg):
    """Return how much of the head in a close-up is blue, as the hair is here."""
    skeleton = place_skeleton(SHAPE, FigurePose())
    angle = np.deg2rad(azimuth_deg)
    position = [4.0 * np.sin(angle), 1.65, 4.0 * np.cos(angle)]
    camera = Camera.looking_at([0.0, 1.65, 0.0], position=position, focal_px=900.0, size=SIZE)
    backdrop = np.zeros((SIZE.height, SIZE.width, 3), np.uint8)
    scene = replace(SCENE, outfit=outfit, grain=0.0)
    image = draw_figure(scene, skeleton, camera=camera, background=backdrop, pose="standing").image.astype(int)
    surfaces = rasterise(dress(skeleton, shape=SHAPE, outfit=outfit), camera)
    part = surfaces.part[::2, ::2]
    rows, columns = np.nonzero(part == Part.HEAD)
    colors = image[rows + surfaces.top_px, columns + surfaces.left_px]
    return np.mean(colors[:, 2] > colors[:, 0])


@pytest.mark.parametrize("style", HAIR_STYLES)
def test_hair_and_face_tell_front_from_back(style):
    outfit = replace(SCENE.outfit, hair_style=style, hair=(0.05, 0.05, 0.6), skin=(0.9, 0.5, 0.4))
    front, back = (_blue_share_of_head(outfit, azimuth) for azimuth in (0.0, 180.0))
    if style == "bald":
        assert max(front, back) < 0.1
    else:
        assert back > front + 0.2


@pytest.mark.parametrize(("size", "words"), [((15, 400), "at least 16 px"), ((400, 99999), "at most 8192 px")])
def test_a_picture_too_small_or_too_large_is_refused(size, words):
    with pytest.raises(InputError, match=words):
        random_figure(np.random.default_rng(0), ImageSize(*size))


def test_a_figure_out_of_sight_and_a_background_of_another_size_are_refused():
    skeleton = place_skeleton(SHAPE, FigurePose())
    away = Camera.looking_at([30.0, 0.9, -4.0], position=[0.0, 1.0, 4.0], focal_px=330.0, size=SIZE)
    backdrop = np.zeros((SIZE.height, SIZE.width, 3), np.uint8)
    with pytest.raises(InputError, match="not in the picture"):
        draw_figure(SCENE, skeleton, camera=away, background=backdrop, pose="standing")
    with pytest.raises(InputError, match="background must be"):
        draw_figure(SCENE, skeleton, camera=_camera(), background=backdrop[1:], pose="standing")


def test_outfits_and_scenes_out_of_range_are_refused():
    with pytest.raises(ValueError, match="sleeve"):
        Outfit(sleeve=3.0)
    with pytest.raises(ValueError, match="hair_style"):
        Outfit(hair_style="mohawk")
    with pytest.raises(ValueError, match="shadow"):
        replace(SCENE, shadow=1.5)
