from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lbkit.core.coco import read_coco
from lbkit.errors import AnnotationError, ConfigError, InputError, OutputError
from training.data import main
from training.subsets import (
    CROWD,
    DIFFERENT_COUNT,
    NO_KEYPOINT,
    NO_PICTURE,
    NOT_JSON,
    OUTSIDE_JOINTS,
    OUTSIDE_PERSONS,
    RULES,
    SAMPLED_OUT,
    SUBSET_KEY,
    UNSIZED_IMAGES,
    SubsetRule,
    write_subset,
)

UPPER, SIX = range(11), range(11, 17)
FULL, MINI, LOWER, VISIBLE = (SubsetRule(name) for name in RULES)
LICENSES = [{"id": 1, "name": "a licence"}]
VAL2017_ANNOTATIONS = 11_004
CATEGORIES = [{"id": 1, "name": "person", "supercategory": "person"}]


def keypoints(labels: dict[int, int]) -> list[float]:
    """17 joints, at (10 + index, 20.5) where a v is given and at (0, 0) elsewhere."""
    flat: list[float] = []
    for joint in range(17):
        v = labels.get(joint, 0)
        flat += [10 + joint, 20.5, v] if v else [0, 0, 0]
    return flat


def person(ann_id: int, labels: dict[int, int], *, image_id: Any = 1, **changes: Any) -> dict[str, Any]:
    entry = {
        "id": ann_id,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [5.25, 5, 40, 60],
        "area": 900.125,
        "keypoints": keypoints(labels),
        "num_keypoints": sum(v > 0 for v in labels.values()),
        "segmentation": [[1.5, 2, 3, 4, 5, 6]],
    }
    return {key: value for key, value in {**entry, **changes}.items() if value is not ...}


def image(image_id: int, **changes: Any) -> dict[str, Any]:
    entry = {"id": image_id, "file_name": f"{image_id:012}.jpg", "width": 100, "height": 80, "license": 1}
    return {key: value for key, value in {**entry, **changes}.items() if value is not ...}


def write_coco(path: Path, annotations: list[Any], *, images: list[Any] | None = None, **others: Any) -> Path:
    document = {
        "info": {"description": "constructed", "year": 2017},
        "licenses": LICENSES,
        "images": [image(1), image(2)] if images is None else images,
        "annotations": annotations,
        "categories": CATEGORIES,
        **others,
    }
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not ...}))
    return path


def all_kinds() -> list[dict[str, Any]]:
    """One person of each kind that the rules tell apart; the ids say which."""
    six = dict.fromkeys(SIX, 2)
    return [
        person(10, {}),
        person(11, {0: 2}),
        person(12, {0: 1, **dict.fromkeys(range(11, 15), 2)}),
        person(13, six | {13: 1}),
        person(14, six, image_id=2),
        person(15, dict.fromkeys(range(17), 1)),
        person(16, six, iscrowd=1),
        person(17, {}, keypoints=..., num_keypoints=...),
    ]


def kept_ids(path: Path) -> list[int]:
    return [entry["id"] for entry in json.loads(path.read_text())["annotations"]]


@pytest.mark.parametrize(
    ("rule", "ids", "left_out"),
    [
        (FULL, [11, 12, 13, 14, 15], {NO_KEYPOINT: 2, CROWD: 1}),
        (LOWER, [13, 14, 15], {NO_KEYPOINT: 2, "only 0 of six labelled": 1, "only 4 of six labelled": 1, CROWD: 1}),
        (
            VISIBLE,
            [14],
            {NO_KEYPOINT: 2, CROWD: 1}
            | {f"only {count} of six visible": amount for count, amount in {0: 2, 4: 1, 5: 1}.items()},
        ),
    ],
)
def test_rules(rule: SubsetRule, ids: list[int], left_out: dict[str, int], tmp_path: Path) -> None:
    source = write_coco(tmp_path / "all.json", all_kinds())
    report = write_subset(source, tmp_path / "out.json", rule=rule)
    assert kept_ids(tmp_path / "out.json") == ids
    assert report.left_out == left_out
    assert report.persons + sum(report.left_out.values()) == report.annotations == len(all_kinds())
    assert list(report.left_out.values()) == sorted(report.left_out.values(), reverse=True)


def test_what_is_kept_stays_as_it_was(tmp_path: Path) -> None:
    annotations, images = all_kinds(), [image(2, flickr_url="http://example.org/\u00e4"), image(7), image(1)]
    source = write_coco(tmp_path / "all.json", annotations, images=images, extra={"anything": [1]})
    write_subset(source, tmp_path / "out.json", rule=VISIBLE)
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["annotations"] == [annotations[4]]
    assert list(found["annotations"][0]) == list(annotations[4])
    assert found["images"] == [images[0]]
    assert (found["licenses"], found["categories"], found["extra"]) == (LICENSES, CATEGORIES, {"anything": [1]})
    record = found["info"].pop(SUBSET_KEY)
    assert found["info"] == {"description": "constructed", "year": 2017}
    assert record["source"] == {"file": "all.json", "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}
    assert (record["rule"], record["persons"], record["images"]) == ("lower-body-visible", 1, 1)
    assert "seed" not in record
    assert record["images_left_out"] == {"without an annotation": 1, "without a kept person": 1}
    assert str(tmp_path) not in (tmp_path / "out.json").read_text()


def test_a_subset_of_a_subset_remembers_the_first(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "all.json", all_kinds(), info=...)
    write_subset(source, tmp_path / "full.json", rule=FULL)
    report = write_subset(tmp_path / "full.json", tmp_path / "out.json", rule=LOWER)
    record = json.loads((tmp_path / "out.json").read_text())["info"][SUBSET_KEY]
    assert record == report.to_dict()
    assert record["source"]["file"] == "full.json"
    assert record["earlier"]["source"]["file"] == "all.json"
    direct = write_subset(source, tmp_path / "direct.json", rule=LOWER)
    assert kept_ids(tmp_path / "out.json") == kept_ids(tmp_path / "direct.json")
    assert direct.joints == report.joints


def test_every_reader_reads_a_subset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco_module = pytest.importorskip("pycocotools.coco")
    source = write_coco(tmp_path / "all.json", all_kinds())
    write_subset(source, tmp_path / "out.json", rule=LOWER)
    loaded = coco_module.COCO(str(tmp_path / "out.json"))
    loaded.info()
    assert sorted(loaded.getAnnIds()) == [13, 14, 15]
    assert sorted(loaded.getImgIds()) == [1, 2]
    assert loaded.getCatIds(catNms=["person"]) == [1]
    coco = read_coco(tmp_path / "out.json")
    assert all(entry.labelled_joints == 6 for entry in coco.persons)
    assert coco.skipped == {}


def test_joints_are_counted(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "all.json", all_kinds())
    joints = write_subset(source, tmp_path / "out.json", rule=LOWER).joints
    knee, nose, eye = joints["left_knee"], joints["nose"], joints["left_eye"]
    assert (knee.labelled, knee.visible, knee.hidden) == (3, 1, 2)
    assert (nose.labelled, nose.visible, nose.hidden) == (1, 0, 1)
    assert (eye.labelled, eye.outside) == (1, 0)
    assert list(joints)[11:] == [f"{side}_{joint}" for joint in ("hip", "knee", "ankle") for side in ("left", "right")]


def scattered(count: int) -> list[dict[str, Any]]:
    return [person(1000 + 7 * number, {0: 2, 11: 1}, image_id=1 + number % 2) for number in range(count)]


def test_a_sample_depends_on_ids_and_seed_alone(tmp_path: Path) -> None:
    people = scattered(200)
    forward = write_coco(tmp_path / "a.json", [*people, person(1, {})])
    backward = write_coco(tmp_path / "b.json", people[::-1])
    out = tmp_path / "out.json"

    def sample(source: Path, persons: int, seed: int) -> set[int]:
        report = write_subset(source, out, rule=SubsetRule("mini", persons, seed), force=True)
        assert report.left_out[SAMPLED_OUT] == 200 - persons
        assert report.persons == persons == len(kept_ids(out))
        return set(kept_ids(out))

    first = sample(forward, 50, 1)
    assert first == sample(backward, 50, 1)
    assert first != sample(forward, 50, 2)
    assert sample(forward, 20, 1) < first
    assert kept_ids(out) == sorted(kept_ids(out))  # the order of the file
    record = json.loads(out.read_text())["info"][SUBSET_KEY]
    assert (record["asked_persons"], record["seed"]) == (20, 1)


def test_a_sample_is_spread_over_the_ids(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "all.json", scattered(2000))
    write_subset(source, tmp_path / "out.json", rule=SubsetRule("mini", 500))
    quarters = Counter((ann_id - 1000) // (7 * 500) for ann_id in kept_ids(tmp_path / "out.json"))
    assert all(90 < quarters[quarter] < 160 for quarter in range(4))


def test_a_sample_of_too_few_is_all_of_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_coco(tmp_path / "all.json", scattered(3))
    report = write_subset(source, tmp_path / "out.json", rule=MINI)
    assert (report.persons, report.left_out) == (3, {})
    assert "only 3 persons to sample 20000 from: all are kept" in caplog.text


def test_equal_calls_write_equal_bytes(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "all.json", scattered(30))
    for name in ("a.json", "b.json"):
        write_subset(source, tmp_path / name, rule=SubsetRule("mini", 10))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


BROKEN = {
    "NaN joint": (person(1, {}, keypoints=[float("nan"), 1, 2] + [1, 1, 2] * 16), "broken keypoints"),
    "infinite joint": (person(1, {}, keypoints=[1, float("inf"), 2] + [1, 1, 2] * 16), "broken keypoints"),
    "too few joints": (person(1, {}, keypoints=[1, 1, 2] * 16), "broken keypoints"),
    "unknown v": (person(1, {}, keypoints=[1, 1, 3] * 17), "broken keypoints"),
    "box without area": (person(1, {0: 2}, bbox=[5, 5, 0, 9]), "no box with an area"),
    "box of NaN": (person(1, {0: 2}, bbox=[5, 5, float("nan"), 9]), "no box with an area"),
    "no box": (person(1, {0: 2}, bbox=...), "no box with an area"),
    "image not listed": (person(1, {0: 2}, image_id=99), "image not in the file"),
    "image id no number": (person(1, {0: 2}, image_id=[1]), "image not in the file"),
    "id used twice": (person(11, {0: 2}), "id used twice"),
    "no id": (person(1, {0: 2}, id=...), "no integer id"),
    "no table": ("person", "no integer id"),
    "a dog": (person(1, {0: 2}, category_id=18), "not a person"),
    "NaN area": (person(1, {0: 2}, area=float("nan")), NOT_JSON),
    "infinite segment": (person(1, {0: 2}, segmentation=[[1, float("inf")]]), NOT_JSON),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_entries_are_counted_and_the_good_ones_kept(kind: str, tmp_path: Path) -> None:
    entry, reason = BROKEN[kind]
    source = write_coco(tmp_path / "all.json", [*all_kinds(), entry])
    report = write_subset(source, tmp_path / "out.json", rule=FULL)
    assert report.left_out == {NO_KEYPOINT: 2, CROWD: 1, reason: 1}
    assert kept_ids(tmp_path / "out.json") == [11, 12, 13, 14, 15]
    assert "NaN" not in (tmp_path / "out.json").read_text().replace(NOT_JSON, "")


def test_broken_entries_count_as_a_training_counts_them(tmp_path: Path) -> None:
    entries = [*all_kinds(), *(entry for entry, reason in BROKEN.values() if reason != NOT_JSON)]
    source = write_coco(tmp_path / "all.json", entries)
    left_out = write_subset(source, tmp_path / "out.json", rule=FULL).left_out
    skipped = read_coco(source).skipped
    assert skipped
    assert {reason: left_out[reason] for reason in skipped} == skipped


def test_what_a_reader_should_know_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An image of 100 x 80 reaches to 99.5, 79.5; a joint beyond is told, and its person stays as he was."""

    def moved(ann_id: int, x: float, y: float, **changes: Any) -> dict[str, Any]:
        return person(ann_id, {}, keypoints=[x, y, 1] + [0, 0, 0] * 15 + [x, y, 2], **{"num_keypoints": 2, **changes})

    entries = [
        moved(1, 99.5, 79.5),
        moved(2, 99.6, 0),
        moved(3, -0.6, 5),
        moved(4, 5, 80),
        moved(5, -0.5, -0.5),
        moved(6, 5000, 5000, image_id=3),
        moved(7, 5, 5, num_keypoints=9),
        person(8, {0: 2}, num_keypoints=...),
    ]
    source = write_coco(tmp_path / "all.json", entries, images=[image(1), image(3, width=...)])
    report = write_subset(source, tmp_path / "out.json", rule=FULL)
    expected = {OUTSIDE_JOINTS: 6, OUTSIDE_PERSONS: 3, UNSIZED_IMAGES: 1, DIFFERENT_COUNT: 1}
    assert report.warnings == expected
    assert json.loads((tmp_path / "out.json").read_text())["annotations"] == entries
    assert (report.joints["nose"].outside, report.joints["right_ankle"].outside) == (3, 3)
    assert f"6 {OUTSIDE_JOINTS}" in caplog.text


def test_missing_pictures_leave_their_people_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    odd = [image(3, file_name="deeper/3.jpg"), image(4, file_name="x" * 5000), image(5, file_name="null\0.jpg")]
    entries = [*all_kinds(), *(person(30 + number, {0: 2}, image_id=number) for number in (3, 4, 5))]
    source = write_coco(tmp_path / "all.json", entries, images=[image(1), image(2), *odd])
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    for name in ("000000000002.jpg", "deeper/3.jpg"):
        (folder / name).touch()
    report = write_subset(source, tmp_path / "out.json", rule=FULL, images=folder)
    assert kept_ids(tmp_path / "out.json") == [14, 33]
    assert report.left_out == {NO_PICTURE: 6, NO_KEYPOINT: 2, CROWD: 1}
    assert report.images_left_out == {NO_PICTURE: 3}
    assert "3 pictures are missing: 000000000001.jpg" in caplog.text
    with pytest.raises(InputError, match="no such folder of pictures"):
        write_subset(source, tmp_path / "o.json", rule=FULL, images=tmp_path / "none")


def test_an_empty_result_is_an_error_and_no_file(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "all.json", [person(1, {}), person(2, {}, iscrowd=1)])
    with pytest.raises(AnnotationError, match=r"nobody is left by the rule full \(no labelled keypoint: 1, crowd: 1\)"):
        write_subset(source, tmp_path / "out.json", rule=FULL)
    empty = write_coco(tmp_path / "empty.json", [])
    with pytest.raises(AnnotationError, match="there are no annotations"):
        write_subset(empty, tmp_path / "out.json", rule=FULL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.json", "empty.json"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not JSON"),
        ("[]", "not a COCO annotation file"),
        ('{"images": []}', "no list 'annotations'"),
        ('{"images": [{"id": 1}], "annotations": []}', "lacks an integer id or a file_name"),
        ('{"images": [], "annotations": [], "info": "text"}', "is not a table"),
        ('{"images": [], "annotations": [], "info": {"lbkit_subset": 3}}', "is not a table"),
    ],
)
def test_broken_files_are_errors(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text(text)
    with pytest.raises(AnnotationError, match=problem):
        write_subset(tmp_path / "all.json", tmp_path / "out.json", rule=FULL)
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("place", ["images", "licenses", "info"])
def test_infinity_outside_annotations_is_an_error(place: str, tmp_path: Path) -> None:
    odd = {
        "images": [image(1, height=float("inf")), image(2)],
        "licenses": [float("nan")],
        "info": {"year": float("nan")},
    }
    source = write_coco(tmp_path / "all.json", all_kinds(), **{place: odd[place]})
    with pytest.raises(AnnotationError, match="NaN or infinity outside its annotations"):
        write_subset(source, tmp_path / "out.json", rule=FULL)
    assert not (tmp_path / "out.json").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "all.json", all_kinds())
    before = source.read_bytes()
    (tmp_path / "out.json").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        write_subset(source, tmp_path / "out.json", rule=FULL)
    assert (tmp_path / "out.json").read_text() == "mine"
    (tmp_path / "link.json").symlink_to(source)
    for output in (source, tmp_path / "link.json"):
        with pytest.raises(OutputError, match="is the annotation file itself"):
            write_subset(source, output, rule=FULL, force=True)
    assert source.read_bytes() == before
    write_subset(source, tmp_path / "out.json", rule=FULL, force=True)
    assert len(kept_ids(tmp_path / "out.json")) == 5


def test_rules_are_checked() -> None:
    with pytest.raises(ConfigError, match="there is no rule 'legs'"):
        SubsetRule("legs")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a sample of 0 persons"):
        SubsetRule("mini", 0)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, ["subset", *map(str, arguments)])


def test_command_prints_a_table(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "all.json", all_kinds())
    result = run(source, "--rule", "lower-body", "--output", tmp_path / "out.json")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    for row in (["annotations", "8"], ["kept", "3"], ["crowd", "1"], ["only", "4", "of", "six", "labelled", "1"]):
        assert row in rows
    assert ["left_knee", "3", "1", "2", "0"] in rows
    assert result.stdout.splitlines()[-1] == f"wrote {tmp_path / 'out.json'}"


def test_command_prints_json(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "all.json", scattered(9))
    output = tmp_path / "out.json"
    result = run(source, "--rule", "mini", "--persons", 4, "--seed", 3, "--output", output, "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed.pop("output") == str(output)
    assert printed == json.loads(output.read_text())["info"][SUBSET_KEY]
    assert (printed["persons"], printed["seed"]) == (4, 3)


def test_command_exit_codes(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "all.json", all_kinds())
    target = ("--output", tmp_path / "out.json")
    missing = run(tmp_path / "none.json", "--rule", "full", *target)
    assert (missing.exit_code, "error:" in missing.stderr, "no such file" in missing.stderr) == (1, True, True)
    crowd_only = write_coco(tmp_path / "crowd.json", [person(1, {}, iscrowd=1)])
    assert run(crowd_only, "--rule", "full", *target).exit_code == 1
    assert not (tmp_path / "out.json").exists()
    for wrong in (("--rule", "legs"), (), ("--rule", "full", "--seed", 1), ("--rule", "mini", "--persons", 0)):
        assert run(source, *wrong, *target).exit_code == 2, wrong
    assert run(source, "--rule", "full").exit_code == 2
    assert run(source, "--rule", "full", *target).exit_code == 0
    again = run(source, "--rule", "full", *target)
    assert (again.exit_code, "exists already" in again.stderr) == (1, True)


@pytest.mark.coco
@pytest.mark.skipif("LBKIT_COCO" not in os.environ, reason="LBKIT_COCO names no COCO root")
@pytest.mark.parametrize("rule", [FULL, LOWER, VISIBLE], ids=lambda rule: rule.name)
def test_real_annotations_against_pycocotools(rule: SubsetRule, tmp_path: Path) -> None:
    """The rules, written once more over what pycocotools reads; on val2017 whole they give 6,352, 2,570 and 1,738."""
    coco_module = pytest.importorskip("pycocotools.coco")
    source = Path(os.environ["LBKIT_COCO"]) / "annotations" / "person_keypoints_val2017.json"
    report = write_subset(source, tmp_path / "out.json", rule=rule)
    whole = coco_module.COCO(str(source))
    people = [entry for entry in whole.loadAnns(whole.getAnnIds(iscrowd=False)) if entry["num_keypoints"] > 0]
    least = {"full": 0, "lower-body": 1, "lower-body-visible": 2}[rule.name]
    expected = {entry["id"]: entry for entry in people if all(v >= least for v in entry["keypoints"][35::3])}
    assert coco_module.COCO(str(tmp_path / "out.json")).anns == expected
    assert report.persons == len(expected)
    assert DIFFERENT_COUNT not in report.warnings
    if report.annotations == VAL2017_ANNOTATIONS:
        assert report.persons == {"full": 6_352, "lower-body": 2_570, "lower-body-visible": 1_738}[rule.name]
