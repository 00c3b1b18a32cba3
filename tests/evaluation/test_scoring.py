"""The figures against plain loops written from the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lbkit.evaluation.pck import THRESHOLDS, ImageBootstrap, PckNorm
from lbkit.evaluation.scoring import RULES, PeopleScores
from lbkit.evaluation.slices import LegsOnly, legs_only, people_groups
from lbkit.evaluation.truth import People

N = 40


def random_people(seed: int = 0) -> People:
    rng = np.random.default_rng(seed)
    corner, sides = rng.uniform(0, 100, (N, 2)), rng.uniform(20, 300, (N, 2))
    joints = corner[:, None] + rng.uniform(0, 1, (N, 6, 2)) * sides[:, None]
    visibility = rng.integers(0, 3, (N, 6))
    visibility[::4] = rng.integers(1, 3, (N // 4, 6))
    visibility[:, 3] = np.maximum(visibility[:, 3], 1)
    return People(
        ann_ids=np.arange(N) + 7,
        image_ids=rng.integers(0, 9, N),
        boxes_xyxy=np.concatenate([corner, corner + sides], axis=1),
        joints_xy=np.where((visibility > 0)[..., None], joints, 0.0),
        visibility=visibility,
        areas=sides.prod(axis=1),
        torso_px=np.where(rng.random(N) < 0.3, np.nan, rng.uniform(10, 80, N)),
        sizes_xy=np.tile([500.0, 400.0], (N, 1)),
        covered=rng.choice([0.0, 0.1, 0.5], N),
    )


def found_near(people: People, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = people.joints_xy + rng.normal(0, 12, people.joints_xy.shape)
    found[5] = np.inf
    return found


def length_px(people: People, row: int, norm: str) -> float:
    left, top, right, bottom = people.boxes_xyxy[row]
    if norm == "box":
        return max(bottom - top, (right - left) * 4 / 3)
    if norm == "diagonal":
        return math.sqrt((right - left) ** 2 + (bottom - top) ** 2)
    return people.torso_px[row] if norm == "torso" else 500.0


def plain_pck(people: People, found: np.ndarray, *, norm: str, rule: str, t: float) -> tuple[float, int, int]:
    right = joints = 0
    persons = set()
    for row in range(N):
        length = length_px(people, row, norm)
        if math.isnan(length) or (rule == "all six" and 0 in people.visibility[row]):
            continue
        for joint in range(6):
            v = people.visibility[row, joint]
            if v == 0 or (rule == "v=2" and v != 2):
                continue
            dx, dy = found[row, joint] - people.joints_xy[row, joint]
            right += math.hypot(dx, dy) <= t * length
            joints += 1
            persons.add(row)
    return right / joints, joints, len(persons)


@pytest.mark.parametrize("norm", ["box", "torso", "diagonal", "image"])
def test_curve_equals_plain_loops(norm: PckNorm) -> None:
    people = random_people()
    found = found_near(people)
    curve = PeopleScores(people, norm=norm, bootstrap=ImageBootstrap(people.image_ids)).curve(found)
    for rule in RULES:
        for t, estimate in zip(THRESHOLDS, curve[rule], strict=True):
            value, joints, persons = plain_pck(people, found, norm=norm, rule=rule, t=t)
            assert estimate.value == pytest.approx(value)
            assert (estimate.joints, estimate.persons) == (joints, persons)
            assert estimate.low is not None
            assert estimate.high is not None
            assert estimate.low <= value <= estimate.high
    assert THRESHOLDS[0] == 0.01
    assert THRESHOLDS[-1] == 0.2
    assert len(THRESHOLDS) == 20


def test_joints_add_up_to_the_whole() -> None:
    people = random_people()
    found = found_near(people)
    scores = PeopleScores(people, norm="box", bootstrap=ImageBootstrap(people.image_ids))
    by_joint = [estimates["0.05"] for estimates in scores.by_joint(found).values()]
    value, joints, _ = plain_pck(people, found, norm="box", rule="v>0", t=0.05)
    assert sum(estimate.joints for estimate in by_joint) == joints
    assert sum((estimate.value or 0) * estimate.joints for estimate in by_joint) == pytest.approx(value * joints)


def test_knee_error_equals_angles_by_hand() -> None:
    people = random_people()
    found = found_near(people)
    errors = []
    for row in range(N):
        for hip, knee, ankle in ((0, 2, 4), (1, 3, 5)):
            if 0 in people.visibility[row, [hip, knee, ankle]]:
                continue
            if row == 5:
                errors.append(180.0)
                continue
            errors.append(abs(bend(found[row], hip, knee, ankle) - bend(people.joints_xy[row], hip, knee, ankle)))
    scores = PeopleScores(people, norm="box", bootstrap=ImageBootstrap(people.image_ids))
    knee = scores.knee_error(found)
    assert knee.legs == len(errors)
    assert knee.median_deg == pytest.approx(np.median(errors))
    assert knee.p90_deg == pytest.approx(np.percentile(errors, 90))


def bend(xy: np.ndarray, hip: int, knee: int, ankle: int) -> float:
    thigh, shank = xy[hip] - xy[knee], xy[ankle] - xy[knee]
    return 180 - math.degrees(math.acos(float(thigh @ shank) / math.hypot(*thigh) / math.hypot(*shank)))


def test_groups_of_a_kind_are_disjoint_and_hold_everybody_known() -> None:
    people = random_people()
    kinds: dict[str, np.ndarray] = {}
    for group in people_groups(people):
        kinds[group.kind] = kinds.get(group.kind, np.zeros(N, int)) + group.members
    assert set(kinds) == {"knee flexion", "box height", "picture edge", "crowding"}
    for kind in ("box height", "picture edge", "crowding"):
        assert (kinds[kind] == 1).all()
    has_leg = [any(0 not in people.visibility[row, leg] for leg in ([0, 2, 4], [1, 3, 5])) for row in range(N)]
    np.testing.assert_array_equal(kinds["knee flexion"], np.array(has_leg, int))


def test_groups_are_what_they_are_called() -> None:
    people = random_people()
    groups = {group.name: group.members for group in people_groups(people)}
    for row in range(N):
        angles = [
            bend(people.joints_xy[row], *leg) for leg in ((0, 2, 4), (1, 3, 5)) if 0 not in people.visibility[row, leg]
        ]
        assert groups["90° and more"][row] == (bool(angles) and max(angles) >= 90)
        assert groups["30 to 60°"][row] == (bool(angles) and 30 <= max(angles) < 60)
        left, top, right, bottom = people.boxes_xyxy[row]
        assert groups["box touches the edge"][row] == (left <= 1 or top <= 1 or right >= 499 or bottom >= 399)
        assert groups["below 64 px"][row] == (length_px(people, row, "box") < 64)
        assert groups["covered 30% and more"][row] == (people.covered[row] == 0.5)


def test_worst_people_come_first_and_those_not_found_before_all() -> None:
    people = random_people()
    found = people.joints_xy.copy()
    found[3] += 50
    found[9] = np.inf
    scores = PeopleScores(people, norm="image", bootstrap=ImageBootstrap(people.image_ids))
    worst = scores.worst(found)
    assert [person.row for person in worst[:2]] == [9, 3]
    assert worst[0].mean_distance is None
    assert worst[1].mean_distance == pytest.approx(50 * math.sqrt(2) / 500)
    assert worst[1].ann_id == 10
    assert len(worst) == 20


def test_legs_only_takes_the_upright_and_cuts_above_the_hips() -> None:
    people = random_people()
    standing = np.array([[60.0, 200], [40, 200], [60, 260], [40, 260], [60, 320], [40, 320]])
    people.joints_xy[:], people.visibility[:] = standing, 2
    people.boxes_xyxy[:] = [30.0, 80, 70, 330]
    people.joints_xy[1, :, :] = standing[:, ::-1]  # lies on the side
    people.visibility[2, 0] = 0  # a hip is missing
    people.boxes_xyxy[3, 1] = 185  # the box begins just above the hips
    people.visibility[4, 4:] = 0  # knees tell the leg
    legs = legs_only(people)
    assert set(range(N)) - set(legs.rows.tolist()) == {1, 2, 3}
    assert legs.cut_rows[0] == math.floor(200 - 12 + 0.5)
    assert legs.cut_rows[legs.rows.tolist().index(4)] == math.floor(200 - 6 + 0.5)
    target = legs.targets(people, first_row=N)[0]
    assert (target.row, target.cut_rows) == (N, 188)
    np.testing.assert_allclose(target.box_xyxy, [30, 188, 70, 330])


def test_framing_compares_the_same_people_by_the_same_length() -> None:
    people = random_people()
    scores = PeopleScores(people, norm="box", bootstrap=ImageBootstrap(people.image_ids))
    rows = np.array([0, 4, 8])
    legs = LegsOnly(rows, np.array([10, 10, 10]))
    whole, cut = scores.framing_slices(people.joints_xy, legs, people.joints_xy[rows] + 1000)
    assert (whole.persons, cut.persons) == (3, 3)
    assert (whole.pck["0.05"].value, cut.pck["0.05"].value) == (1.0, 0.0)
    assert whole.pck["0.05"].joints == cut.pck["0.05"].joints
